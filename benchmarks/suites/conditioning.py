"""Conditioning beside the straightforward way, and one padded batch beside two passes."""

from collections.abc import Callable, Iterator
from functools import partial

from torch import Tensor

from benchmarks.measuring import (
    Measurement,
    NotMeasured,
    Timed,
    interleave,
    not_measured,
    psnr_of_tensors,
)
from benchmarks.request import PICTURE, PROMPT, REAL_NEGATIVE
from benchmarks.rows import PRECISIONS
from benchmarks.straightforward import condition_in_one_batch, condition_straightforwardly
from benchmarks.workbench import Workbench
from kosmosg.prompts.images import open_image

Conditions = tuple[Tensor, Tensor]
NEGATIVES = {"empty": "", "real": REAL_NEGATIVE}


def measure_conditioning(bench: Workbench) -> Iterator[tuple[str, Measurement]]:
    """Compare in every precision, with an empty and with a real negative prompt."""
    images = [open_image(PICTURE)]
    for precision in PRECISIONS:
        for name, negative in NEGATIVES.items():
            row = f"conditioning-{name}-{precision}"
            if bench.lacks(row):
                continue
            try:
                yield row, compare_ways(bench, precision, images, negative)
            except NotMeasured as error:
                yield row, not_measured(str(error))
    pipeline = bench.pipeline(bench.fast_precision)
    yield (
        "conditioning-batch",
        compare(
            bench,
            partial(condition_in_one_batch, pipeline, PROMPT, images, REAL_NEGATIVE),
            partial(pipeline.encode_prompt, PROMPT, images, REAL_NEGATIVE),
            note=bench.fast_precision,
        ),
    )


def compare_ways(bench: Workbench, precision: str, images: list, negative: str) -> Measurement:
    """The pipeline's way beside the straightforward one."""
    pipeline = bench.pipeline(precision)
    return compare(
        bench,
        partial(pipeline.encode_prompt, PROMPT, images, negative),
        partial(condition_straightforwardly, pipeline, PROMPT, images, negative),
    )


def compare(
    bench: Workbench,
    ours: Callable[[], Conditions],
    theirs: Callable[[], Conditions],
    note: str = "",
) -> Measurement:
    """Time two ways to condition in turns; the fidelity is that of the conditions themselves."""
    found, wanted = ours(), theirs()
    trials = {"ours": Timed(ours, bench.device), "theirs": Timed(theirs, bench.device)}
    seconds = interleave(trials, bench.rounds)
    return Measurement(
        values=tuple(seconds["ours"]),
        baselines=tuple(seconds["theirs"]),
        psnr=min(psnr_of_tensors(a, b) for a, b in zip(found, wanted, strict=True)),
        note=note,
    )
