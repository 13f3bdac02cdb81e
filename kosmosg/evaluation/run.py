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

from kosmosg.diffusion.schedulers import make_scheduler
from kosmosg.evaluation import coco, dreambench
from kosmosg.evaluation.features import ClipExtractor, DinoExtractor, distance_extractor
from kosmosg.evaluation.image_folder import ImageFolder, lock_run
from kosmosg.evaluation.inception import InceptionExtractor
from kosmosg.evaluation.metrics import Finding
from kosmosg.evaluation.models import Generate, ModelSource, Sampling
from kosmosg.evaluation.options import COCO_PHOTOGRAPHS, CocoOptions, DreamBenchOptions
from kosmosg.evaluation.protocol import PROTOCOLS, ImageJob
from kosmosg.evaluation.report import (
    EvaluationReport,
    coco_conventions,
    departures,
    dreambench_conventions,
    stand_in,
    write_results,
)
from kosmosg.utils.contact_sheet import Card
from kosmosg.utils.fingerprint import fingerprint, fingerprint_of

Evaluator = Callable[[Generate], Iterator[Finding]]


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
            return self.model.open(self.sampling, device=self.device, dtype=self.dtype)

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
        model=str(settings.model.source),
        settings={**settings.record, **scoring},
        conventions=conventions,
        scores=scores,
        images=[*evaluator.images()],
    )
    return write_results(report, evaluator.cards(), evaluator.folder.folder)


def evaluate_dreambench(
    options: DreamBenchOptions, settings: ImageSettings, processes: PartialState
) -> str | None:
    """Generate images of DreamBench's subjects and score them.

    Args:
        options: What to measure, and where the data are.
        settings: What generates and how.
        processes: Those of the run, which all call this.

    Returns:
        The table, in the main process.

    Raises:
        KosmosGError: If something is missing, damaged, or of another run.
    """
    subjects = dreambench.load_subjects(options.only)
    photographs = dreambench.find_photographs(options.subjects, subjects)
    wording = dreambench.Wording(images=not settings.model.diffusers, noun=options.name_nouns)
    protocol = PROTOCOLS[options.protocol]
    jobs = dreambench.make_jobs(
        *(subjects, photographs, protocol),
        wording=wording,
        per_prompt=options.per_prompt,
        seed=options.seed,
    )
    settings.model.check_prompts(jobs)
    contents = fingerprint_of([fingerprint(path) for path in photographs.values()])
    found = {"subjects": len(subjects), "per_prompt": options.per_prompt}
    published = {"subjects": len(dreambench.load_subjects()), **options.published()}
    with lock_run(options.output, processes):
        evaluator = dreambench.DreamBench(
            jobs=jobs,
            photographs=photographs,
            folder=settings.open_folder(options.output, jobs, processes, photographs=contents),
            dino=DinoExtractor(options.dino, settings.device),
            clip=ClipExtractor(options.clip, settings.device),
            processes=processes,
            batch=options.batch,
        )
        return measure(
            *(evaluator, settings, processes),
            evaluation="dreambench",
            scoring={**found, "dino": identify(options.dino), "clip": identify(options.clip)},
            conventions=[
                *dreambench_conventions(protocol, wording, options.seed, options.per_prompt),
                *stand_in(settings.model.diffusers),
                *departures({**vars(options), **found}, published),
            ],
        )


def evaluate_coco(
    options: CocoOptions, settings: ImageSettings, processes: PartialState
) -> str | None:
    """Generate images of COCO's captions and measure their distance to the photographs.

    Arguments, result and errors are those of ``evaluate_dreambench``.
    """
    protocol = PROTOCOLS[options.protocol]
    captions, names = coco.read_captions(options.captions)
    jobs = coco.make_jobs(captions, protocol, count=options.count, seed=options.seed)
    settings.model.check_prompts(jobs)
    photographs = coco.find_photographs(options.photographs, names)
    extractor = distance_extractor(
        options.features, settings.device, old_resizing=protocol.old_resizing
    )
    inception = isinstance(extractor, InceptionExtractor)
    found = {"count": len(jobs), "photographs": len(photographs)}
    published = {"photographs": COCO_PHOTOGRAPHS, **options.published()}
    with lock_run(options.output, processes):
        evaluator = coco.Coco(
            jobs=jobs,
            photographs=photographs,
            folder=settings.open_folder(options.output, jobs, processes),
            extractor=extractor,
            protocol=protocol,
            processes=processes,
            name="FID" if inception else "Fréchet distance",
            batch=options.batch,
        )
        return measure(
            *(evaluator, settings, processes),
            evaluation="coco",
            scoring={**found, "features": identify(options.features)},
            conventions=[
                *coco_conventions(protocol, options.seed, inception=inception),
                *stand_in(settings.model.diffusers),
                *departures({**vars(options), **found}, published),
            ],
        )


def identify(source: str | Path) -> str:
    """Tell apart what a network's folder or file holds; a Hub id is what it is called."""
    return fingerprint(Path(source)) if Path(source).exists() else str(source)
