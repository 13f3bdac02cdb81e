"""Parity with the authors' modules, over everything in a folder of reference numbers.

The weights go through the real converter, so that its key table is tested as well.
"""

import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from kosmosg.diffusion.sampling import SamplingInputs, decode, denoise
from kosmosg.diffusion.schedulers import make_scheduler
from kosmosg.errors import PromptError
from kosmosg.pipeline import KosmosGPipeline
from kosmosg.prompts.batch import Batch
from kosmosg.prompts.images import clip_pixels, resize_and_crop, target_pixels
from kosmosg.prompts.prompt import parse_prompt, parse_text
from kosmosg.prompts.tokenizer import KosmosGTokenizer
from tests.reference import (
    GOLDEN,
    case_batch,
    convert_golden,
    names,
    read_json,
    text_batch,
)

SAMPLERS = {"dpms": "DPMSolverMultistep", "ddim": "DDIM", "pndm": "PNDM"}
TENSOR_TOLERANCE = 2e-5  # absolute, float32
LATENT_TOLERANCE = 2e-5  # relative to the tensor's maximum


# ------------------------------------------------------------------ fixtures


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> KosmosGPipeline:
    """The tiny checkpoint and the sampler's networks, converted and opened as a user would."""
    weights = convert_golden(tmp_path_factory.mktemp("golden"))
    return KosmosGPipeline.from_pretrained(weights, torch_dtype=torch.float32)


@pytest.fixture(scope="module")
def inputs() -> dict[str, Tensor]:
    return load_file(GOLDEN / "tiny" / "inputs.safetensors")


@pytest.fixture(scope="module")
def wanted() -> dict[str, Tensor]:
    return load_file(GOLDEN / "tiny" / "outputs.safetensors")


@pytest.fixture(scope="module")
def sampler() -> dict[str, Tensor]:
    return load_file(GOLDEN / "sampler" / "outputs.safetensors")


class Recorder:
    """Keeps what named modules yield during one forward pass."""

    def __init__(self, modules: dict[str, nn.Module]):
        self.outputs: dict[str, Tensor] = {}
        self._handles = [
            module.register_forward_hook(self._keep(name)) for name, module in modules.items()
        ]

    def _keep(self, name: str):
        def hook(module: nn.Module, args: tuple, output: Tensor) -> None:
            self.outputs[name] = output

        return hook

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, *exception: object) -> None:
        for handle in self._handles:
            handle.remove()


def compute_case(pipeline: KosmosGPipeline, batch: Batch) -> dict[str, Tensor]:
    """Every intermediate of one case, by the names of the reference file."""
    model = pipeline.kosmosg
    text = model.kosmos2.text_model.model
    modules = {f"layer{i}": layer for i, layer in enumerate(text.layers)}
    modules |= {"features": text.layer_norm, "aligner_memory": model.aligner.encoder}
    entering: list[Tensor] = []
    handle = text.layers[0].register_forward_pre_hook(lambda _, args: entering.append(args[0]))
    with Recorder(modules) as recorder:
        condition = model(batch)
    handle.remove()
    logits = recorder.outputs["features"] @ text.embed_tokens.weight.T
    return {**recorder.outputs, "embed": entering[0], "condition": condition, "logits": logits}


def compute_vision(pipeline: KosmosGPipeline, pixels: Tensor) -> dict[str, Tensor]:
    model = pipeline.kosmosg.kosmos2
    tower = model.vision_model.model
    modules = {f"block{i}": layer for i, layer in enumerate(tower.encoder.layers)}
    modules["ln_pre"] = tower.pre_layrnorm
    with Recorder(modules) as first:
        tower(pixel_values=pixels[:1])
    resampled: list[Tensor] = []
    handle = model.image_to_text_projection.register_forward_pre_hook(
        lambda _, args: resampled.append(args[0])
    )
    features: Any = model.get_image_features(pixels)
    handle.remove()
    last = max((name for name in modules if name.startswith("block")), key=lambda n: int(n[5:]))
    return {
        **{f"vision.image0.{name}": tensor for name, tensor in first.outputs.items()},
        "vision.image0.ln_post": tower.post_layernorm(first.outputs[last]),
        "vision.normalised": resampled[0],
        "connector.all_images": features.pooler_output,
    }


@pytest.fixture(scope="module")
def computed(pipeline: KosmosGPipeline, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Everything in ``tiny/outputs.safetensors``, computed here."""
    results: dict[str, Tensor] = {}
    with torch.inference_mode():
        results |= compute_vision(pipeline, inputs["pixel_values_f16"].float())
        for key in inputs:
            if key.endswith(".src_tokens"):
                case = key.removesuffix(".src_tokens")
                tensors = compute_case(pipeline, case_batch(inputs, case))
            elif key.startswith("negative."):
                case = key.removesuffix(".tokens")
                tensors = compute_case(pipeline, text_batch(inputs[key]))
            else:
                continue
            results |= {f"{case}.{name}": tensor for name, tensor in tensors.items()}
    return results


def guided_pair(computed: dict[str, Tensor], case: str, negative: str, n: int) -> Tensor:
    """The authors' conditioning batch: negatives first, then the conditions tiled as a whole."""
    condition = computed[f"{case}.condition"]
    rows = computed[f"negative.{negative}.condition"].expand(len(condition) * n, -1, -1)
    return torch.cat([rows, condition.repeat(n, 1, 1)])


# ------------------------------------------------------------------ language model and aligner


@pytest.mark.parametrize("name", names("tiny/outputs.safetensors"))
def test_tensor(name: str, computed: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    call = re.fullmatch(r"encode_condition\.(\w+)\.neg_(\w+)\.n(\d+)", name)
    found = guided_pair(computed, call[1], call[2], int(call[3])) if call else computed[name]
    torch.testing.assert_close(found, wanted[name], atol=TENSOR_TOLERANCE, rtol=0)


def test_null_condition(pipeline: KosmosGPipeline, computed: dict[str, Tensor]) -> None:
    """The kept null condition is that of the empty negative prompt."""
    found = pipeline.encoder.null_condition()
    torch.testing.assert_close(
        found, computed["negative.empty.condition"], atol=TENSOR_TOLERANCE, rtol=0
    )


def test_null_feature_begins_every_prompt(computed: dict[str, Tensor]) -> None:
    """The decoder is causal: whatever follows, the start symbol's feature stays the same."""
    null = computed["negative.empty.features"][0, 0]
    for name, features in computed.items():
        if name.endswith(".features"):
            rows = features[:, 0]
            torch.testing.assert_close(rows, null.expand_as(rows), atol=TENSOR_TOLERANCE, rtol=0)


# ------------------------------------------------------------------ sampler


def parse_run(name: str) -> dict:
    match = re.fullmatch(
        r"(?P<sampler>\w+)\.g(?P<guidance>[\d.]+?)(\.B(?P<prompts>\d+))?\.n(?P<n>\d+)"
        r"(\.steps(?P<steps>\d+))?\.(?P<what>latents|image)",
        name,
    )
    assert match, f"no run of the sampler: {name}"
    return match.groupdict()


RUNS = [name for name in names("sampler/outputs.safetensors") if re.match(r"\w+\.g[\d.]+\.", name)]


def run_latents(pipeline: KosmosGPipeline, sampler: dict[str, Tensor], run: dict) -> Tensor:
    prompts, n = int(run["prompts"] or 1), int(run["n"])
    guidance = float(run["guidance"])
    condition = sampler["cond"][:prompts].repeat(n, 1, 1)
    null = sampler["cond_null"].expand_as(condition)
    if guidance <= 1:
        # The authors return the unconditional half too.
        condition, null = torch.cat([null, condition]), torch.cat([null, condition])
    inputs = SamplingInputs(
        condition=condition,
        negative=null,
        noise=sampler["init_latents"][: len(condition)],
        steps=int(run["steps"] or read_json("sampler/meta.json")["steps"]),
        guidance_scale=guidance,
    )
    with torch.inference_mode():
        return denoise(pipeline.decoder_with(SAMPLERS[run["sampler"]]), inputs)


def levels(images: list[Image.Image]) -> np.ndarray:
    return np.stack([np.asarray(image, dtype=np.int16) for image in images])


@pytest.mark.parametrize("name", RUNS)
def test_sampler(name: str, pipeline: KosmosGPipeline, sampler: dict[str, Tensor]) -> None:
    run = parse_run(name)
    latents = run_latents(pipeline, sampler, run)
    if run["what"] == "latents":
        difference = (latents - sampler[name]).abs().max() / sampler[name].abs().max()
        assert difference <= LATENT_TOLERANCE
    else:
        with torch.inference_mode():
            found = levels(decode(pipeline.decoder_with("DDIM"), latents))
        wanted = (sampler[name].numpy() * 255).round()
        assert found.shape == wanted.shape
        assert np.abs(found - wanted).max() <= 1


END_TO_END = [
    name
    for name in names("sampler/outputs.safetensors")
    if name.startswith("end_to_end.") and name.endswith("_u8")
]


@pytest.mark.parametrize("name", END_TO_END)
def test_end_to_end(
    name: str,
    pipeline: KosmosGPipeline,
    computed: dict[str, Tensor],
    sampler: dict[str, Tensor],
) -> None:
    """Token ids and pixels in, eight-bit image out."""
    match = re.fullmatch(r"end_to_end\.(\w+)\.neg_(\w+)\.(\w+)\.g([\d.]+)\.n(\d+)\.image_u8", name)
    assert match
    case, negative, scheduler, guidance, n = match.groups()
    pair = guided_pair(computed, case, negative, int(n))
    rows = len(pair) // 2
    inputs = SamplingInputs(
        condition=pair[rows:],
        negative=pair[:rows],
        noise=sampler["init_latents"][:rows],
        steps=read_json("sampler/meta.json")["steps"],
        guidance_scale=float(guidance),
    )
    with torch.inference_mode():
        latents = denoise(pipeline.decoder_with(SAMPLERS[scheduler]), inputs)
        found = levels(decode(pipeline.decoder_with("DDIM"), latents))
    assert np.abs(found - sampler[name].numpy()).max() <= 1
    as_float = sampler[name.removesuffix("_u8")].numpy()
    assert np.abs(found - (as_float * 255).round()).max() <= 1


@pytest.mark.parametrize("name", list(read_json("sampler/meta.json")["timesteps"]))
def test_timesteps(name: str, pipeline: KosmosGPipeline) -> None:
    sampler_name, steps = name.split(".")
    scheduler: Any = make_scheduler(SAMPLERS[sampler_name], pipeline.scheduler.config)
    scheduler.set_timesteps(int(steps))
    assert scheduler.timesteps.tolist() == read_json("sampler/meta.json")["timesteps"][name]


def test_unet_and_vae(pipeline: KosmosGPipeline, sampler: dict[str, Tensor]) -> None:
    """Single calls of the decoder's networks."""
    unet, vae = pipeline.unet, pipeline.vae
    rows = len(sampler["unet.single_eps"])
    with torch.inference_mode():
        eps = unet(sampler["init_latents"][:rows], 500, sampler["cond"][:rows]).sample
        posterior = vae.encode(sampler["vae.encode_input"]).latent_dist
    for found, name in (
        (eps, "unet.single_eps"),
        (posterior.mean, "vae.posterior_mean"),
        (posterior.logvar, "vae.posterior_logvar"),
    ):
        difference = (found - sampler[name]).abs().max() / sampler[name].abs().max()
        assert difference <= LATENT_TOLERANCE, name


def test_every_sampler_output_is_compared() -> None:
    """No tensor of the file goes unlooked at."""
    known = {"cond", "cond_null", "init_latents", "unet.single_eps", *RUNS, *END_TO_END}
    known |= {"vae.encode_input", "vae.posterior_mean", "vae.posterior_logvar"}
    known |= {name.removesuffix("_u8") for name in END_TO_END}
    assert set(names("sampler/outputs.safetensors")) == known


# ------------------------------------------------------------------ tokens


@pytest.fixture(scope="module")
def tokenizer(real_tokenizer: Path) -> KosmosGTokenizer:
    return KosmosGTokenizer.from_pretrained(real_tokenizer)


def test_vocabulary(tokenizer: KosmosGTokenizer) -> None:
    facts = read_json("tokens.json")["facts"]
    assert len(tokenizer) == facts["dictionary_size"]
    symbols = tokenizer.symbols
    assert symbols[: len(facts["first_symbols"])] == facts["first_symbols"]
    assert symbols[-len(facts["last_symbols"]) :] == facts["last_symbols"]
    assert {symbol: symbols.index(symbol) for symbol in facts["ids"]} == facts["ids"]


@pytest.mark.parametrize(
    "case", read_json("tokens.json")["prompts"], ids=lambda case: ascii(case["prompt"])[:40]
)
def test_prompt_tokens(case: dict, tokenizer: KosmosGTokenizer) -> None:
    slots = read_json("tokens.json")["facts"]["image_token_length"]
    found = tokenizer.tokenize_prompt(parse_prompt(case["prompt"], case["num_images"]), slots)
    assert list(found.ids) == case["src_tokens"]
    assert [int(slot) for slot in found.image_mask] == case["img_gpt_input_mask"]


@pytest.mark.parametrize(
    "case",
    read_json("tokens.json")["negative_prompts"],
    ids=lambda case: ascii(case["negative_prompt"])[:40],
)
def test_negative_tokens(case: dict, tokenizer: KosmosGTokenizer) -> None:
    found = tokenizer.tokenize_prompt(parse_text(case["negative_prompt"]), 64)
    assert list(found.ids) == case["negative_tokens"]


@pytest.mark.parametrize("case", read_json("tokens.json")["mismatches"])
def test_mismatch(case: dict) -> None:
    """Where the authors fail an assertion, the message gives both numbers."""
    with pytest.raises(PromptError) as caught:
        parse_prompt(case["prompt"], case["num_images"])
    markers = case["prompt"].count("<i>")
    assert re.search(rf"\b{markers} <i> marker", str(caught.value))
    assert re.search(rf"\b{case['num_images']} input image", str(caught.value))


# ------------------------------------------------------------------ images


def sha256(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


@pytest.mark.parametrize("name", list(read_json("images/images.json")["images"]))
def test_image_transforms(name: str) -> None:
    facts = read_json("images/images.json")["images"][name]
    arrays = np.load(GOLDEN / "images" / "images.npz")
    with Image.open(GOLDEN / "images" / facts["file"]) as opened:
        image = opened.convert("RGB")

    crop = np.asarray(resize_and_crop(image, 224, Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(crop, arrays[f"{name}.gpt_crop_u8"])
    assert sha256(crop) == facts["sha256_gpt_crop_u8_hwc"]
    pixels = clip_pixels(image, 224)
    assert sha256(pixels.astype(np.float32)) == facts["sha256_gpt_f32_chw"]
    assert sha256(pixels.astype(np.float16)) == facts["sha256_gpt_f16_chw"]
    every7 = pixels.astype(np.float32)[:, ::7, ::7]
    np.testing.assert_allclose(every7, arrays[f"{name}.gpt_f32_every7"], atol=1e-6)
    if f"{name}.gpt_f16" in arrays:
        half = arrays[f"{name}.gpt_f16"]
        np.testing.assert_allclose(pixels.astype(np.float16), half, atol=1e-3)

    crop = np.asarray(resize_and_crop(image, 512, Image.Resampling.BILINEAR))
    assert sha256(crop) == facts["sha256_diff_crop_u8_hwc"]
    np.testing.assert_array_equal(crop[::16, ::16], arrays[f"{name}.diff_crop_u8_every16"])
    target = target_pixels(image, 512).astype(np.float32)[:, ::16, ::16]
    np.testing.assert_allclose(target, arrays[f"{name}.diff_f32_every16"], atol=1e-6)
