"""Several pictures at once, and how much of the device's arithmetic a picture uses."""

from collections.abc import Callable, Iterator
from functools import partial

from benchmarks.arithmetic import count_operations, matrix_rate
from benchmarks.drawing import draw_whole
from benchmarks.measuring import Measurement, interleave
from benchmarks.request import WHOLE
from benchmarks.variants import make_variant
from benchmarks.workbench import Workbench
from kosmosg.pipeline import KosmosGPipeline

COUNTS = (1, 4, 8)


def measure_throughput(bench: Workbench) -> Iterator[tuple[str, Measurement]]:
    """Draw 1, 4 and 8 pictures in turns with a product of matrices."""
    counts = [n for n in COUNTS if n == 1 or not bench.lacks(f"batch-{n}")]
    pipeline = bench.pipeline(bench.fast_precision)
    per_picture, peaks = measure_counts(bench, pipeline, counts)
    for count in counts[1:]:
        rates = ", ".join(f"{rate:.2f}" for rate in (1 / min(per_picture[n]) for n in (1, count)))
        yield (
            f"batch-{count}",
            Measurement(
                values=tuple(per_picture[count]),
                baselines=tuple(per_picture[1]),
                note=f"{bench.fast_precision}; pictures a second at best, 1 and {count}: {rates}",
            ),
        )
    yield from peak_rows(bench, "peak", pipeline, per_picture, peaks)
    if not bench.lacks("peak-compiled-1"):
        compiled = KosmosGPipeline(
            pipeline.kosmosg,
            pipeline.conditioner.tokenizer,
            make_variant(pipeline.decoder, "compiled"),
        )
        per_picture, peaks = measure_counts(bench, compiled, [1, 8])
        yield from peak_rows(bench, "peak-compiled", compiled, per_picture, peaks)


def measure_counts(
    bench: Workbench, pipeline: KosmosGPipeline, counts: list[int]
) -> tuple[dict[int, list[float]], list[float]]:
    """Seconds per picture by the number of pictures, and the peak in TFLOP/s."""
    trials: dict[str, Callable[[], float]] = {
        str(n): partial(seconds_per_picture, bench, pipeline, n) for n in counts
    }
    trials["peak"] = matrix_rate(bench.device, bench.fast_precision)
    found = interleave(trials, bench.rounds)
    return {n: found[str(n)] for n in counts}, found["peak"]


def seconds_per_picture(bench: Workbench, pipeline: KosmosGPipeline, count: int) -> float:
    """Draw some pictures at once."""
    return draw_whole(bench, pipeline, count).seconds / count


def peak_rows(
    bench: Workbench,
    name: str,
    pipeline: KosmosGPipeline,
    per_picture: dict[int, list[float]],
    peaks: list[float],
) -> Iterator[tuple[str, Measurement]]:
    """What share of the peak one picture and eight at once reach."""
    operations = count_operations(pipeline.decoder, WHOLE)
    for count in (1, 8):
        if count in per_picture:
            yield (
                f"{name}-{count}",
                Measurement(
                    values=tuple(operations / s / 1e12 for s in per_picture[count]),
                    baselines=tuple(peaks),
                    note=f"{bench.fast_precision}; {operations / 1e12:.3g} TFLOP a picture",
                ),
            )
