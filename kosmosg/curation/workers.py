"""How the cores and GPUs of all machines are shared out among the stages."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from kosmosg.curation.steps import Step
from kosmosg.errors import CurationError

# By the name of a stage, how many workers and how many GPUs for each; nothing: as it comes.
Wishes = Mapping[str, tuple[int | None, float | None]]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A step, as the engine needs to know it.

    Attributes:
        name: Of the step.
        make: Makes it where it is to work.
        model: Whether it holds a model, which takes long to load.
    """

    name: str
    make: Callable[[], Step]
    model: bool = False


@dataclass(frozen=True, kw_only=True)
class Workers:
    """How much of a machine the workers of a stage take.

    Attributes:
        count: How many; nothing: as many as there is room for.
        cpus: Cores of each.
        gpus: GPUs of each, or parts of one.
    """

    count: int | None
    cpus: float
    gpus: float = 0.0


def share_out(
    stages: Sequence[Stage], cpus: float, gpus: float, wishes: Wishes
) -> dict[str, Workers]:
    """Decide how many workers each stage has, and how large they are.

    Without wishes, each model has as many workers as there are GPUs, and an equal part of one for
    each; without GPUs it has one worker. The cores are shared out among them, and one share is left
    for the other stages.

    Args:
        stages: All of them.
        cpus: Cores of all machines.
        gpus: GPUs of all machines.
        wishes: Number of workers and GPUs of each, by the name of a stage.

    Raises:
        CurationError: If there are too few GPUs: Ray would wait for ever. Or if a stage without a
            model is to have some.
    """
    _check_wishes(stages, wishes)
    models = [stage for stage in stages if stage.model]
    counts = {stage.name: wishes.get(stage.name, (None, None))[0] for stage in stages}
    parts = dict.fromkeys(counts, 0.0)
    for stage in models:
        counts[stage.name] = counts[stage.name] or max(1, int(gpus))
        wished = wishes.get(stage.name, (None, None))[1]
        parts[stage.name] = _part(min(1.0, gpus), len(models)) if wished is None else wished
    wanted = sum((counts[stage.name] or 1) * parts[stage.name] for stage in models)
    if wanted > gpus:
        raise CurationError(
            f"The workers want {wanted:g} GPUs, and there are {gpus:g}. Choose fewer of them, or "
            f"smaller parts, for {', '.join(stage.name for stage in models)}."
        )
    workers = sum(counts[stage.name] or 1 for stage in models)
    cores = min(1.0, _part(cpus, workers + 1))
    return {
        stage.name: Workers(count=counts[stage.name], cpus=cores, gpus=parts[stage.name])
        for stage in stages
    }


def _check_wishes(stages: Sequence[Stage], wishes: Wishes) -> None:
    for stage in stages:
        if not stage.model and wishes.get(stage.name, (None, None))[1]:
            raise CurationError(
                f"Stage {stage.name} has no model, and so no use for a GPU. Choose its number of "
                "workers alone."
            )


def _part(whole: float, parts: int) -> float:
    """Divide, and round down, so that the parts fit into the whole."""
    return math.floor(100 * whole / parts) / 100
