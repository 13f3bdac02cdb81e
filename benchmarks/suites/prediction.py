"""A whole prediction beside plain diffusers, and one precision beside another."""

from collections.abc import Callable, Iterator

from benchmarks.drawing import Drawing, draw_plain, draw_whole, plain_decoder, plain_inputs
from benchmarks.measuring import (
    Measurement,
    NotMeasured,
    interleave,
    not_measured,
    psnr_of_pictures,
)
from benchmarks.request import WHOLE
from benchmarks.rows import PRECISIONS
from benchmarks.workbench import Workbench

OURS, PLAIN = "ours", "plain"


def measure_prediction(bench: Workbench) -> Iterator[tuple[str, Measurement]]:
    """Draw in every precision, both ways, all in turns."""
    trials: dict[str, Callable[[], Drawing]] = {}
    reasons = {}
    for precision in PRECISIONS:
        if reason := bench.lacks(f"prediction-{precision}"):
            reasons[precision] = reason
            continue
        try:
            trials |= trials_in(bench, precision)
        except NotMeasured as error:
            reasons[precision] = str(error)
    found = interleave(trials, bench.rounds) if trials else {}
    for precision in PRECISIONS:
        row = f"prediction-{precision}"
        if precision in reasons:
            yield row, not_measured(reasons[precision])
        else:
            yield row, compare(bench, found[f"{OURS} {precision}"], found[f"{PLAIN} {precision}"])
    for precision in PRECISIONS[1:]:
        missing = [reasons[each] for each in (precision, PRECISIONS[0]) if each in reasons]
        if missing:
            yield precision, not_measured(missing[0])
        else:
            ours, float32 = (found[f"{OURS} {each}"] for each in (precision, PRECISIONS[0]))
            yield precision, compare(bench, ours, float32)


def trials_in(bench: Workbench, precision: str) -> dict[str, Callable[[], Drawing]]:
    """Both ways to draw in one precision, with the same networks."""
    pipeline = bench.pipeline(precision)
    plain, inputs = plain_decoder(pipeline), plain_inputs(bench, pipeline)
    return {
        f"{OURS} {precision}": lambda: draw_whole(bench, pipeline),
        f"{PLAIN} {precision}": lambda: draw_plain(bench, plain, inputs),
    }


def compare(bench: Workbench, ours: list[Drawing], theirs: list[Drawing]) -> Measurement:
    """Put drawings of two ways side by side."""
    missing = WHOLE - bench.steps
    return Measurement(
        values=tuple(drawing.seconds for drawing in ours),
        baselines=tuple(drawing.seconds for drawing in theirs),
        psnr=psnr_of_pictures(ours[0].pictures[0], theirs[0].pictures[0]),
        note=f"{bench.steps} steps run, {missing} computed" if missing else "",
    )
