"""Variants of the decoder beside plain diffusers."""

from collections.abc import Iterator
from functools import partial

from benchmarks.drawing import draw_plain, plain_decoder, plain_inputs
from benchmarks.measuring import Measurement, interleave, psnr_of_pictures
from benchmarks.variants import MODES, VARIANTS, first_call, make_variant
from benchmarks.workbench import Workbench


def measure_decoder(bench: Workbench) -> Iterator[tuple[str, Measurement]]:
    """Draw the same picture with each variant, in turns with plain diffusers."""
    for name in VARIANTS:
        if not bench.lacks(name):
            yield name, compare_variant(bench, name)


def compare_variant(bench: Workbench, name: str) -> Measurement:
    """Draw in turns; only one variant is in memory at a time."""
    pipeline = bench.pipeline(bench.fast_precision)
    plain, inputs = plain_decoder(pipeline), plain_inputs(bench, pipeline)
    trials = {
        "plain": partial(draw_plain, bench, plain, inputs),
        "variant": partial(draw_plain, bench, make_variant(plain, name), inputs),
    }
    seconds, _ = first_call(trials["variant"])
    found = interleave(trials, bench.rounds)
    # Plain diffusers has the attention already: there the variant is what to compare with.
    value, baseline = ("plain", "variant") if name == "attention" else ("variant", "plain")
    note = bench.fast_precision
    if name in MODES:
        note += f", first picture after {seconds:.0f} s"
    return Measurement(
        values=tuple(drawing.seconds for drawing in found[value]),
        baselines=tuple(drawing.seconds for drawing in found[baseline]),
        psnr=psnr_of_pictures(found[value][0].pictures[0], found[baseline][0].pictures[0]),
        note=note,
    )
