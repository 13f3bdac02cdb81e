"""The suites: each measures the rows of ``benchmarks.rows`` that name it.

A suite is a function that takes a ``Workbench`` and yields names of rows and measurements. A row
whose ``needs`` the machine lacks is left out of what it yields.
"""

from collections.abc import Callable, Iterator

from benchmarks.measuring import Measurement
from benchmarks.suites.conditioning import measure_conditioning
from benchmarks.suites.conversion import measure_conversion
from benchmarks.suites.decoder import measure_decoder
from benchmarks.suites.opening import measure_opening
from benchmarks.suites.prediction import measure_prediction
from benchmarks.suites.start import measure_start
from benchmarks.suites.throughput import measure_throughput
from benchmarks.workbench import Workbench

Suite = Callable[[Workbench], Iterator[tuple[str, Measurement]]]

MEASURE: dict[str, Suite] = {
    "prediction": measure_prediction,
    "conditioning": measure_conditioning,
    "decoder": measure_decoder,
    "throughput": measure_throughput,
    "opening": measure_opening,
    "conversion": measure_conversion,
    "start": measure_start,
}
