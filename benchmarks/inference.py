"""A prediction and its conditioning, each beside the straightforward way.

On a CPU only some of the 50 denoising steps are run, and each further one is computed at the median
of those, separately for both sides; conditioning is never shortened.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.utils.benchmark import Timer

from benchmarks.measuring import Row, psnr_of_images, psnr_of_tensors, take_turns
from kosmosg import KosmosGPipeline
from kosmosg.checkpoints.stable_diffusion import make_decoder
from kosmosg.diffusion.sampling import draw_noise
from kosmosg.diffusion.schedulers import make_scheduler
from kosmosg.diffusion.settings import DEFAULT_GUIDANCE, DEFAULT_SAMPLER, DEFAULT_STEPS
from kosmosg.prompts.batch import collate
from kosmosg.prompts.colours import to_rgb
from kosmosg.prompts.images import clip_pixels, open_image
from kosmosg.prompts.prompt import Prompt, parse_prompt, parse_text

PROMPT, NEGATIVE, SEED = "<i> on the beach", "a red hat in the snow at night", 7
IMAGE = Path(__file__).resolve().parent.parent / "samples" / "cat.jpg"
PLAIN = "plain StableDiffusionPipeline, ready embeddings"


@dataclass(frozen=True, kw_only=True)
class Generated:
    """Images, and the seconds that they take with all steps, measured or computed."""

    seconds: float
    images: list[Image.Image]


@dataclass(kw_only=True)
class Inference:
    """What the rows of this module share.

    Attributes:
        weights: Weights folder.
        device: Where to measure.
        rounds: Values per row.
        steps: Denoising steps that are run.
    """

    weights: Path
    device: torch.device
    rounds: int
    steps: int
    _pipelines: dict[torch.dtype, KosmosGPipeline] = field(default_factory=dict)

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.type == "cuda"

    @property
    def fast(self) -> torch.dtype:
        """The precision that the device is used with where speed counts."""
        return torch.float16 if self.on_gpu else torch.bfloat16

    @property
    def shortened(self) -> str:
        """What a row says of the steps that were not run."""
        missing = DEFAULT_STEPS - self.steps
        return f"{self.steps} steps run, {missing} computed" if missing else ""

    def pipeline(self, dtype: torch.dtype) -> KosmosGPipeline:
        """Open the weights in a precision, once."""
        if dtype not in self._pipelines:
            self._pipelines[dtype] = KosmosGPipeline.from_pretrained(
                self.weights, torch_dtype=dtype, device=self.device
            )
        return self._pipelines[dtype]

    def time(self, generate: Callable[[Callable[[], None]], list[Image.Image]]) -> Generated:
        """Time work that calls its argument after every step."""
        ends: list[float] = []
        missing = DEFAULT_STEPS - self.steps

        def end_step() -> None:
            if missing:  # if all are run, nobody waits for the device
                self.synchronise()
                ends.append(time.perf_counter())

        self.synchronise()
        start = time.perf_counter()
        images = generate(end_step)
        self.synchronise()
        seconds = time.perf_counter() - start
        if missing:
            seconds += missing * median(later - earlier for earlier, later in pairwise(ends))
        return Generated(seconds=seconds, images=images)

    def synchronise(self) -> None:
        """Wait for the device, so that the clock measures the work and not its queueing."""
        if self.on_gpu:
            torch.cuda.synchronize(self.device)

    def compare(
        self, title: str, baseline: str, ours: list[Generated], theirs: list[Generated], note: str
    ) -> Row:
        """Make the row of two ways to generate the same image."""
        return Row(
            title=title,
            baseline=baseline,
            values=tuple(each.seconds for each in ours),
            baselines=tuple(each.seconds for each in theirs),
            psnr=psnr_of_images(ours[0].images[0], theirs[0].images[0]),
            note=", ".join(filter(None, (note, self.shortened))),
        )


# ------------------------------------------------------------------ whole predictions


def measure_prediction(bench: Inference) -> Iterator[Row]:
    """Compare a whole prediction with plain diffusers, and one precision with another."""
    trials: dict[str, Callable[[], Generated]] = {}
    dtypes = {"float32": torch.float32, str(bench.fast).removeprefix("torch."): bench.fast}
    for name, dtype in dtypes.items():
        pipeline = bench.pipeline(dtype)
        trials[f"ours {name}"] = partial(generate, bench, pipeline)
        trials[f"plain {name}"] = partial(
            generate_plainly, bench, plain_pipeline(pipeline), ready_inputs(pipeline)
        )
    found = take_turns(trials, bench.rounds)
    for name in dtypes:
        title = f"a whole prediction of {DEFAULT_STEPS} steps, {name}"
        ours, plain = found[f"ours {name}"], found[f"plain {name}"]
        yield bench.compare(title, f"{PLAIN}, {name}", ours, plain, "")
    name = list(dtypes)[1]
    title = f"a whole prediction in {name}"
    ours, float32 = found[f"ours {name}"], found["ours float32"]
    yield bench.compare(title, "the same in float32", ours, float32, "")


def generate(bench: Inference, pipeline: KosmosGPipeline, count: int = 1) -> Generated:
    """Open the image, condition, denoise, decode."""
    return bench.time(
        lambda end_step: (
            pipeline(
                PROMPT,
                [open_image(IMAGE)],
                num_images_per_prompt=count,
                num_inference_steps=bench.steps,
                seed=SEED,
                check_safety=False,
                progress=lambda done, total: end_step(),
            ).images
        )
    )


def generate_plainly(
    bench: Inference, plain: StableDiffusionPipeline, inputs: dict[str, Tensor]
) -> Generated:
    """Do what any Stable Diffusion v1.5 system does once it has its embeddings."""

    def run(end_step: Callable[[], None]) -> list[Image.Image]:
        def on_step_end(pipeline: Any, step: int, timestep: Any, state: dict) -> dict:
            end_step()
            return state

        call: Any = plain
        return call(
            **inputs,
            num_inference_steps=bench.steps,
            guidance_scale=DEFAULT_GUIDANCE,
            callback_on_step_end=on_step_end,
        ).images

    return bench.time(run)


def plain_pipeline(pipeline: KosmosGPipeline) -> StableDiffusionPipeline:
    """Put plain diffusers around the same networks."""
    scheduler = make_scheduler(DEFAULT_SAMPLER, pipeline.scheduler.config)
    return make_decoder(pipeline.unet, pipeline.vae, scheduler)


def ready_inputs(pipeline: KosmosGPipeline) -> dict[str, Tensor]:
    """Embeddings and noise of the request, so that both ways generate the same image."""
    condition, negative = pipeline.encode_prompt(PROMPT, [open_image(IMAGE)])
    config: Any = pipeline.unet.config
    noise = draw_noise([SEED], config.in_channels, config.sample_size, config.sample_size)
    return {
        # Copies, since what inference mode makes is of a kind that torch.compile may refuse.
        "prompt_embeds": condition.clone(),
        "negative_prompt_embeds": negative.clone(),
        "latents": noise.to(condition.device, condition.dtype),
    }


# ------------------------------------------------------------------ conditioning


def measure_conditioning(bench: Inference) -> Iterator[Row]:
    """Compare ``encode_prompt`` with two whole passes at every call."""
    images = [open_image(IMAGE)]
    for dtype in (torch.float32, bench.fast):
        pipeline = bench.pipeline(dtype)
        for kind, negative in (("empty", ""), ("real", NEGATIVE)):
            ways: dict[str, Callable[[], tuple[Tensor, Tensor]]] = {
                "ours": partial(pipeline.encode_prompt, PROMPT, images, negative),
                "straight": partial(condition_straightforwardly, pipeline, images, negative),
            }
            timers = {name: Timer("way()", globals={"way": way}) for name, way in ways.items()}
            number = 1 if timers["ours"].timeit(1).mean > 0.1 else 20
            trials = {name: partial(_seconds, timer, number) for name, timer in timers.items()}
            found = take_turns(trials, bench.rounds)
            precision = str(dtype).removeprefix("torch.")
            yield Row(
                title=f"conditioning, one image, {kind} negative prompt, {precision}",
                baseline="two passes, logits computed, nothing kept",
                values=tuple(found["ours"]),
                baselines=tuple(found["straight"]),
                psnr=psnr_of_tensors(torch.cat(ways["ours"]()), torch.cat(ways["straight"]())),
            )


def _seconds(timer: Timer, number: int) -> float:
    return timer.timeit(number).mean


@torch.inference_mode()
def condition_straightforwardly(
    pipeline: KosmosGPipeline, images: list[Image.Image], negative: str
) -> tuple[Tensor, Tensor]:
    """Compute what ``encode_prompt`` does in two passes, each with logits that nobody reads."""
    model = pipeline.kosmosg

    def one_pass(prompt: Prompt, pixels: list) -> Tensor:
        tokens = pipeline.tokenizer.tokenize_prompt(prompt, model.image_slots)
        batch = collate([tokens], pixels).to(model.device, model.dtype)
        features = model.features(batch)
        F.linear(features, model.kosmos2.text_model.model.embed_tokens.weight)
        return model.aligner(features, batch.padding_mask)

    pixels = [clip_pixels(to_rgb(image), model.image_size) for image in images]
    # An empty text is the start symbol alone, which is the null condition.
    return one_pass(parse_prompt(PROMPT, len(images)), pixels), one_pass(parse_text(negative), [])
