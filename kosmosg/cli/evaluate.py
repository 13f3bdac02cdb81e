"""``evaluate``: measure what a model generates, with the numbers of the paper."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import subcommand

from kosmosg.cli.generate import ModelOptions
from kosmosg.errors import SettingError
from kosmosg.evaluation.options import CocoOptions, DreamBenchOptions, EvaluationOptions

if TYPE_CHECKING:
    from accelerate import PartialState

    from kosmosg.evaluation.run import ImageSettings


@dataclass(frozen=True, kw_only=True)
class EvaluateDreamBench(DreamBenchOptions):
    """DreamBench: 30 subjects in 25 prompts each."""

    model: ModelOptions

    def run(self) -> None:
        """Generate images of all subjects and score them."""
        from kosmosg.evaluation.run import evaluate_dreambench

        print(evaluate_dreambench(self, *_prepare(self, self.model)) or "", end="")


@dataclass(frozen=True, kw_only=True)
class EvaluateCoco(CocoOptions):
    """MS-COCO: FID of 30 000 captions."""

    model: ModelOptions

    def run(self) -> None:
        """Generate images of all captions and measure their distance to the photographs."""
        from kosmosg.evaluation.run import evaluate_coco

        print(evaluate_coco(self, *_prepare(self, self.model)) or "", end="")


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
) -> tuple["ImageSettings", "PartialState"]:
    """Find processes, device and model, and say what generates and how."""
    import torch

    from kosmosg.checkpoints.folder import fetch_weights
    from kosmosg.evaluation.metrics import check_libraries
    from kosmosg.evaluation.models import Sampling
    from kosmosg.evaluation.run import ImageSettings, ModelSource
    from kosmosg.utils.devices import choose_device
    from kosmosg.utils.processes import find_processes

    check_libraries()
    if model_options.weights and options.pipeline:
        raise SettingError("Give --weights or --pipeline, not both: one model is measured.")
    named = choose_device(model_options.device) if model_options.device else None
    processes = find_processes(cpu=named is not None and named.type == "cpu")
    device: Any = processes.device  # of several processes each has one of its own
    if named is not None and processes.num_processes == 1:
        device = named
    dtype = model_options.dtype or ("float16" if device.type == "cuda" else "float32")
    model = ModelSource(
        source=options.pipeline or fetch_weights(model_options.weights),
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
    return settings, processes
