"""``evaluate``: measure what a model generates, with the numbers of the paper."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import subcommand

from kosmosg.cli.generate import ModelOptions
from kosmosg.errors import SettingError
from kosmosg.evaluation.options import (
    COCO_PHOTOGRAPHS,
    CocoOptions,
    DreamBenchOptions,
    EvaluationOptions,
)

if TYPE_CHECKING:
    from accelerate import PartialState

    from kosmosg.evaluation.run import ImageSettings


@dataclass(frozen=True, kw_only=True)
class EvaluateDreamBench(DreamBenchOptions):
    """DreamBench: 30 subjects in 25 prompts each."""

    model: ModelOptions

    def run(self) -> None:
        """Generate images of all subjects and score them."""
        from kosmosg.evaluation import dreambench
        from kosmosg.evaluation.features import ClipExtractor, DinoExtractor
        from kosmosg.evaluation.image_folder import lock_run
        from kosmosg.evaluation.metrics import check_libraries
        from kosmosg.evaluation.protocol import PROTOCOLS
        from kosmosg.evaluation.report import departures, dreambench_conventions, stand_in
        from kosmosg.evaluation.run import identify, measure
        from kosmosg.utils.fingerprint import fingerprint, fingerprint_of

        check_libraries()
        processes, settings = _prepare(self, self.model)
        subjects = dreambench.load_subjects(self.only)
        photographs = dreambench.find_photographs(self.subjects, subjects)
        wording = dreambench.Wording(images=not self.pipeline, noun=self.name_nouns)
        protocol = PROTOCOLS[self.protocol]
        jobs = dreambench.make_jobs(
            *(subjects, photographs, protocol),
            wording=wording,
            per_prompt=self.per_prompt,
            seed=self.seed,
        )
        settings.model.check_prompts(jobs)
        contents = fingerprint_of([fingerprint(path) for path in photographs.values()])
        found = {"subjects": len(subjects), "per_prompt": self.per_prompt}
        published = {"subjects": len(dreambench.load_subjects()), **self.published()}
        with lock_run(self.output, processes):
            evaluator = dreambench.DreamBench(
                jobs=jobs,
                photographs=photographs,
                folder=settings.open_folder(self.output, jobs, processes, photographs=contents),
                dino=DinoExtractor(self.dino, settings.device),
                clip=ClipExtractor(self.clip, settings.device),
                processes=processes,
                batch=self.batch,
            )
            table = measure(
                *(evaluator, settings, processes),
                evaluation="dreambench",
                scoring={**found, "dino": identify(self.dino), "clip": identify(self.clip)},
                conventions=[
                    *dreambench_conventions(protocol, wording, self.seed, self.per_prompt),
                    *stand_in(bool(self.pipeline)),
                    *departures({**vars(self), **found}, published),
                ],
            )
        print(table or "", end="")


@dataclass(frozen=True, kw_only=True)
class EvaluateCoco(CocoOptions):
    """MS-COCO: FID of 30 000 captions."""

    model: ModelOptions

    def run(self) -> None:
        """Generate images of all captions and measure their distance to the photographs."""
        from kosmosg.evaluation import coco
        from kosmosg.evaluation.features import InceptionExtractor, distance_extractor
        from kosmosg.evaluation.image_folder import lock_run
        from kosmosg.evaluation.metrics import check_libraries
        from kosmosg.evaluation.protocol import PROTOCOLS
        from kosmosg.evaluation.report import coco_conventions, departures, stand_in
        from kosmosg.evaluation.run import identify, measure

        check_libraries()
        processes, settings = _prepare(self, self.model)
        protocol = PROTOCOLS[self.protocol]
        captions, names = coco.read_captions(self.captions)
        jobs = coco.make_jobs(captions, protocol, count=self.count, seed=self.seed)
        settings.model.check_prompts(jobs)
        photographs = coco.find_photographs(self.photographs, names)
        extractor = distance_extractor(
            self.features, settings.device, old_resizing=protocol.old_resizing
        )
        inception = isinstance(extractor, InceptionExtractor)
        found = {"count": len(jobs), "photographs": len(photographs)}
        published = {"photographs": COCO_PHOTOGRAPHS, **self.published()}
        with lock_run(self.output, processes):
            evaluator = coco.Coco(
                jobs=jobs,
                photographs=photographs,
                folder=settings.open_folder(self.output, jobs, processes),
                extractor=extractor,
                protocol=protocol,
                processes=processes,
                name="FID" if inception else "Fréchet distance",
                batch=self.batch,
            )
            table = measure(
                *(evaluator, settings, processes),
                evaluation="coco",
                scoring={**found, "features": identify(self.features)},
                conventions=[
                    *coco_conventions(protocol, self.seed, inception=inception),
                    *stand_in(bool(self.pipeline)),
                    *departures({**vars(self), **found}, published),
                ],
            )
        print(table or "", end="")


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Measure what a model generates."""

    evaluation: (
        Annotated[EvaluateDreamBench, subcommand("dreambench")]
        | Annotated[EvaluateCoco, subcommand("coco")]
    )

    def run(self) -> None:
        """Measure it."""
        self.evaluation.run()


def _prepare(
    options: EvaluationOptions, model_options: ModelOptions
) -> tuple["PartialState", "ImageSettings"]:
    """Find processes, device and model, and say what generates and how."""
    import torch

    from kosmosg.checkpoints.folder import find_weights
    from kosmosg.evaluation.models import Sampling
    from kosmosg.evaluation.run import ImageSettings, ModelSource
    from kosmosg.pipeline import choose_device
    from kosmosg.utils.processes import find_processes

    if model_options.weights and options.pipeline:
        raise SettingError("Give --weights or --pipeline, not both: one model is measured.")
    named = choose_device(model_options.device) if model_options.device else None
    processes = find_processes(cpu=named is not None and named.type == "cpu")
    device: Any = processes.device  # of several processes each has one of its own
    if named is not None and processes.num_processes == 1:
        device = named
    dtype = model_options.dtype or ("float16" if device.type == "cuda" else "float32")
    model = ModelSource(
        source=options.pipeline or find_weights(model_options.weights),
        diffusers=bool(options.pipeline),
    )
    if options.output.resolve().is_relative_to(Path(model.source).resolve()):
        raise SettingError(
            f"--output {options.output} lies in the model's own folder, which would be another one "
            "with every image. Name a folder elsewhere."
        )
    settings = ImageSettings(
        model=model,
        sampling=Sampling(
            steps=options.steps,
            guidance_scale=options.guidance_scale,
            scheduler=options.scheduler,
        ),
        protocol=options.protocol,
        seed=options.seed,
        batch=options.batch,
        device=device,
        dtype=getattr(torch, dtype),
    )
    return processes, settings
