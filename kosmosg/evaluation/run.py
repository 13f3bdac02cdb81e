"""A run of one of the paper's evaluations: which model, how, where to, and what is written of it.

An evaluator is whatever can be called with a model as a plain function (``models.Generate``) and
yields what it found: the miniature's rows, DreamBench, COCO. So any model can be put in KOSMOS-G's
place, and a new measurement needs nothing of the others.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import PartialState
from PIL import Image

from kosmosg.checkpoints.loading import cannot_load, check_config
from kosmosg.diffusion.schedulers import make_scheduler
from kosmosg.errors import EvaluationError
from kosmosg.evaluation.image_folder import ImageFolder
from kosmosg.evaluation.metrics import Finding
from kosmosg.evaluation.models import (
    Generate,
    Sampling,
    diffusers_generator,
    kosmosg_generator,
    load_diffusers,
)
from kosmosg.evaluation.protocol import ImageJob
from kosmosg.evaluation.report import EvaluationReport, write_results
from kosmosg.models.kosmosg import KosmosGConfig
from kosmosg.pipeline import KosmosGPipeline
from kosmosg.prompts.prompt import parse_prompt
from kosmosg.prompts.tokenizer import KosmosGTokenizer
from kosmosg.utils.contact_sheet import Card
from kosmosg.utils.fingerprint import fingerprint, fingerprint_of

Evaluator = Callable[[Generate], Iterator[Finding]]


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """What generates.

    Attributes:
        source: A weights directory; or the folder or Hub id of a pipeline of diffusers.
        diffusers: Which of the two.
    """

    source: str | Path
    diffusers: bool = False

    @property
    def title(self) -> str:
        """What a table calls it."""
        return str(self.source)

    def check_prompts(self, jobs: Sequence[ImageJob]) -> None:
        """Check that no prompt is too long, before images are generated for hours.

        A pipeline of diffusers cuts what is too long for it.

        Raises:
            EvaluationError: If one is.
            WeightsError: If the model's tokenizer or configuration cannot be read.
        """
        if self.diffusers:
            return
        folder = Path(self.source)
        tokenizer = KosmosGTokenizer.from_pretrained(folder / "tokenizer")
        check_config(folder / "kosmosg" / "config.json", "kosmosg")
        try:
            config = KosmosGConfig.from_pretrained(folder / "kosmosg", local_files_only=True)
            slots, most = config.image_slots, config.max_tokens
        except Exception as error:
            # A configuration of nonsense fails anywhere in the constructors.
            raise cannot_load("kosmosg", folder / "kosmosg", error) from error
        for job in jobs:
            prompt = parse_prompt(job.prompt, len(job.images))
            tokens = len(tokenizer.tokenize_prompt(prompt, slots).ids)
            if tokens > most:
                raise EvaluationError(
                    f"The prompt {job.prompt:.80} … is {tokens} tokens long, and {folder} takes at "
                    f"most {most}. Shorten it where it comes from."
                )


@dataclass(frozen=True, kw_only=True)
class ImageSettings:
    """Everything that decides images, besides what they are to show.

    Attributes:
        model: What generates.
        sampling: How.
        protocol: Name of the conventions.
        seed: The first.
        batch: Images at once, which decides how numbers are rounded.
        device: Where.
        dtype: Precision.

    Raises:
        SettingError: If the sampler takes fewer steps.
    """

    model: ModelSource
    sampling: Sampling
    protocol: str
    seed: int
    batch: int
    device: torch.device
    dtype: torch.dtype

    def __post_init__(self) -> None:
        make_scheduler(self.sampling.scheduler, {}, self.sampling.steps)  # takes so many steps

    @cached_property
    def record(self) -> dict[str, Any]:
        """For a record; where the model lies does not count, what is in it at the start does."""
        return {
            "weights": identify(self.model.source),
            "diffusers": self.model.diffusers,
            "protocol": self.protocol,
            **asdict(self.sampling),
            "seed": self.seed,
            "batch": self.batch,
            "device": self.device.type,
            "dtype": str(self.dtype).removeprefix("torch."),
        }

    def open_folder(
        self, folder: Path, jobs: Sequence[ImageJob], processes: PartialState, **inputs: str
    ) -> ImageFolder:
        """Open the folder of the images of some jobs.

        Args:
            folder: Of the run.
            jobs: All of them.
            processes: Those of the run.
            **inputs: Fingerprints of what the model gets besides prompts.

        Raises:
            EvaluationError: If it holds images of another run.
        """
        wanted = fingerprint_of([[job.name, job.prompt, job.seed, job.text] for job in jobs])
        settings = {**self.record, "images": len(jobs), "prompts": wanted, **inputs}
        return ImageFolder.open(folder, settings, asdict(self.sampling), processes)

    def generator(self) -> Generate:
        """Make the model a plain function, which is opened when the first image is asked for.

        Raises:
            WeightsError: Then, if it cannot be opened.
        """

        @cache
        def opened() -> Generate:
            source, device, dtype = self.model.source, self.device, self.dtype
            if self.model.diffusers:
                pipeline = load_diffusers(source, dtype=dtype, device=device)
                return diffusers_generator(pipeline, self.sampling)
            kosmosg = KosmosGPipeline.from_pretrained(source, torch_dtype=dtype, device=device)
            return kosmosg_generator(kosmosg, self.sampling)

        def generate(
            prompts: Sequence[str], images: Sequence[Sequence[Image.Image]], seeds: Sequence[int]
        ) -> list[Image.Image]:
            return opened()(prompts, images, seeds)

        return generate


class ImageEvaluator(Protocol):
    """An evaluator that fills a folder of images and can show what is there."""

    folder: ImageFolder

    def __call__(self, generate: Generate) -> Iterator[Finding]:
        """Generate and measure."""
        ...

    def images(self) -> Iterator[Mapping[str, Any]]:
        """List every image."""
        ...

    def cards(self) -> Iterator[Card]:
        """Choose what a contact sheet shows."""
        ...


def measure(
    evaluator: ImageEvaluator,
    settings: ImageSettings,
    processes: PartialState,
    *,
    evaluation: str,
    scoring: Mapping[str, Any],
    conventions: Sequence[str],
) -> str | None:
    """Generate, measure and write the results into the folder.

    Args:
        evaluator: DreamBench or COCO.
        settings: What generates and how.
        processes: Those of the run, which all call this.
        evaluation: Its name.
        scoring: What else decides the numbers.
        conventions: What was done, in sentences.

    Returns:
        The table, in the main process.
    """
    scores = dict(evaluator(settings.generator()))
    if not processes.is_main_process:
        return None
    report = EvaluationReport(
        evaluation=evaluation,
        model=settings.model.title,
        settings={**settings.record, **scoring},
        conventions=conventions,
        scores=scores,
        images=[*evaluator.images()],
    )
    return write_results(report, evaluator.cards(), evaluator.folder.folder)


def identify(source: str | Path) -> str:
    """Tell apart what a network's folder or file holds; a Hub id is what it is called."""
    return fingerprint(Path(source)) if Path(source).exists() else str(source)
