"""Steps that harm whoever works at them; a module of its own, since every worker imports it."""

import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from kosmosg.curation.pipelines import Pipeline
from kosmosg.curation.records import Outcome, Record
from kosmosg.curation.steps import Step


class Mortal:
    """A step that takes its process with it when it comes to a sample: once, or always."""

    def __init__(self, make: Callable[[], Step], key: str, marker: Path | None = None):
        self._step, self._key, self._marker = make(), key, marker
        self.name, self.batch = self._step.name, self._step.batch

    def __call__(self, records: Sequence[Record]) -> Sequence[Outcome]:
        if any(record.key == self._key for record in records):
            if self._marker is None:
                os.kill(os.getpid(), signal.SIGKILL)
            elif not self._marker.exists():
                self._marker.write_text(str(os.getpid()))
                os.kill(os.getpid(), signal.SIGKILL)
        return self._step(records)


def make_mortal(pipeline: Pipeline, name: str, key: str, marker: Path | None = None) -> Pipeline:
    """Let the step of a name take its process with it when it comes to a sample."""
    steps = (
        replace(step, make=partial(Mortal, step.make, key, marker)) if step.name == name else step
        for step in pipeline.steps
    )
    return replace(pipeline, steps=tuple(steps))


class OnFire:
    """A step that fails for whatever comes."""

    name = "read"
    batch = 64

    def __call__(self, records: Sequence[Record]) -> Sequence[Outcome]:
        raise RuntimeError("the graphics card is on fire")
