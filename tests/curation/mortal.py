"""Steps that harm whoever works at them; a module of its own, since every worker imports it."""

import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from kosmosg.curation.pipelines import Recipe
from kosmosg.curation.records import Draft, Outcome
from kosmosg.curation.steps import Step


class Mortal:
    """A step that takes its process with it when it comes to a sample: once, or always."""

    def __init__(self, make: Callable[[], Step], key: str, marker: Path | None = None):
        self._step, self._key, self._marker = make(), key, marker
        self.name, self.batch = self._step.name, self._step.batch

    def __call__(self, drafts: Sequence[Draft]) -> Sequence[Outcome]:
        if any(draft.key == self._key for draft in drafts):
            if self._marker is None:
                os.kill(os.getpid(), signal.SIGKILL)
            elif not self._marker.exists():
                self._marker.write_text(str(os.getpid()))
                os.kill(os.getpid(), signal.SIGKILL)
        return self._step(drafts)


def make_mortal(recipe: Recipe, step: str, key: str, marker: Path | None = None) -> Recipe:
    stages = (
        replace(stage, make=partial(Mortal, stage.make, key, marker))
        if stage.name == step
        else stage
        for stage in recipe.stages
    )
    return replace(recipe, stages=tuple(stages))


class OnFire:
    """A step that fails for whatever comes."""

    name = "read"
    batch = 64

    def __call__(self, drafts: Sequence[Draft]) -> Sequence[Outcome]:
        raise RuntimeError("the graphics card is on fire")
