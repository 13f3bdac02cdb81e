"""A run of one of the paper's evaluations: what draws, how, where to, and what is written of it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import PartialState
from PIL import Image

from kosmosg.evaluation.evaluator import Finding, Job
from kosmosg.evaluation.image_folder import Gallery
from kosmosg.evaluation.models import (
    Generate,
    Sampling,
    diffusers_generator,
    kosmosg_generator,
    load_diffusers,
)
from kosmosg.evaluation.report import Report, write_results
from kosmosg.pipeline import KosmosGPipeline
from kosmosg.utils.contact_sheet import Card
from kosmosg.utils.fingerprint import fingerprint, fingerprint_of


@dataclass(frozen=True, kw_only=True)
class Model:
    """What draws.

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


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """Everything that decides pictures, besides what they are to show.

    Attributes:
        model: What draws.
        sampling: How.
        protocol: Name of the conventions.
        seed: The first.
        batch: Pictures at once, which decides how numbers are rounded.
        device: Where.
        dtype: Precision.
    """

    model: Model
    sampling: Sampling
    protocol: str
    seed: int
    batch: int
    device: torch.device
    dtype: torch.dtype

    @cached_property
    def settings(self) -> dict[str, Any]:
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

    def open_gallery(
        self, folder: Path, jobs: Sequence[Job], processes: PartialState, **inputs: str
    ) -> Gallery:
        """Open the folder of the pictures of some jobs.

        Args:
            folder: Of the run.
            jobs: All of them.
            processes: Those of the run.
            **inputs: Fingerprints of what the model gets besides prompts.

        Raises:
            EvaluationError: If it holds pictures of another run.
        """
        wanted = fingerprint_of([[job.name, job.prompt, job.seed, job.text] for job in jobs])
        settings = {**self.settings, "pictures": len(jobs), "prompts": wanted, **inputs}
        return Gallery.open(folder, settings, asdict(self.sampling), processes)

    def generator(self) -> Generate:
        """Make the model a plain function, which is opened when the first picture is asked for.

        Raises:
            WeightsError: Then, if it cannot be opened.
        """

        @cache
        def opened() -> Generate:
            source, options = self.model.source, {"device": self.device}
            if self.model.diffusers:
                pipeline = load_diffusers(source, dtype=self.dtype, **options)
                return diffusers_generator(pipeline, self.sampling)
            kosmosg = KosmosGPipeline.from_pretrained(source, torch_dtype=self.dtype, **options)
            return kosmosg_generator(kosmosg, self.sampling)

        def generate(
            prompts: Sequence[str], images: Sequence[Sequence[Image.Image]], seeds: Sequence[int]
        ) -> list[Image.Image]:
            return opened()(prompts, images, seeds)

        return generate


class PictureEvaluator(Protocol):
    """An evaluator that draws into a gallery and can show what is there."""

    gallery: Gallery

    def __call__(self, generate: Generate) -> Iterator[Finding]:
        """Draw and measure."""
        ...

    def pictures(self) -> Iterator[Mapping[str, Any]]:
        """List every picture."""
        ...

    def cards(self) -> Iterator[Card]:
        """Choose what a contact sheet shows."""
        ...


def measure(
    evaluator: PictureEvaluator,
    drawing: Drawing,
    processes: PartialState,
    *,
    evaluation: str,
    scoring: Mapping[str, Any],
    conventions: Sequence[str],
) -> str | None:
    """Draw, measure and write the results into the gallery's folder.

    Args:
        evaluator: DreamBench or COCO.
        drawing: What draws and how.
        processes: Those of the run, which all call this.
        evaluation: Its name.
        scoring: What else decides the numbers.
        conventions: What was done, in sentences.

    Returns:
        The table, in the main process.
    """
    scores = dict(evaluator(drawing.generator()))
    if not processes.is_main_process:
        return None
    report = Report(
        evaluation=evaluation,
        model=drawing.model.title,
        settings={**drawing.settings, **scoring},
        conventions=conventions,
        scores=scores,
        pictures=[*evaluator.pictures()],
    )
    return write_results(report, evaluator.cards(), evaluator.gallery.folder)


def identify(source: str | Path) -> str:
    """Tell apart what a network's folder or file holds; a Hub id is what it is called."""
    return fingerprint(Path(source)) if Path(source).exists() else str(source)
