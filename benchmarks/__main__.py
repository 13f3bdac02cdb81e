"""``python -m benchmarks``: measure, and write the table."""

import os
import platform
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal

import psutil
import torch
import tyro

from benchmarks.decoder import measure_decoder, measure_throughput
from benchmarks.inference import Inference, measure_conditioning, measure_prediction
from benchmarks.measuring import HEADER, Row
from benchmarks.processes import measure_conversion, measure_opening
from benchmarks.weights import RandomWeights
from kosmosg.checkpoints.folder import check_layout
from kosmosg.cli.main import Program, run_program
from kosmosg.diffusion.settings import DEFAULT_STEPS
from kosmosg.utils.checks import check_integer
from kosmosg.utils.devices import choose_device

Suite = Literal["prediction", "conditioning", "decoder", "throughput", "opening", "conversion"]
SUITES: tuple[Suite, ...] = (
    *("prediction", "conditioning", "decoder"),
    *("throughput", "opening", "conversion"),
)
INFERENCE = {
    "prediction": measure_prediction,
    "conditioning": measure_conditioning,
    "decoder": measure_decoder,
    "throughput": measure_throughput,
}
LIBRARIES = ("torch", "diffusers", "transformers", "safetensors", "accelerate", "numpy")


@dataclass(frozen=True, kw_only=True)
class Benchmark(Program):
    """Measure what this project costs, as ratios."""

    size: Literal["small", "full"] = "full"
    """Of the random weights."""
    only: tuple[Suite, ...] = ()
    """Some of the suites; all by default. May be repeated."""
    rounds: int = 5
    """Values per row."""
    steps: int | None = None
    """Denoising steps to run, 3 to 50; the rest is computed. Default: 6 on a CPU, else 50."""
    device: str | None = None
    """Default: cuda if there is one, else cpu."""
    weights: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Weights folder; default: random weights, made when missing."""
    folder: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("outputs/benchmark")
    """For random weights, trials and the table."""

    def run(self) -> None:
        """Measure; an interrupted run leaves the rows that it has.

        Raises:
            KosmosGError: If a setting is out of bounds, or the weights are not there.
        """
        device = choose_device(self.device)
        steps = self.steps or (6 if device.type == "cpu" else DEFAULT_STEPS)
        check_integer("--steps", steps, 3, DEFAULT_STEPS)
        check_integer("--rounds", self.rounds, 1, 1000)
        random = RandomWeights(folder=self.folder / self.size, size=self.size)
        if self.weights:
            check_layout(self.weights)
        else:
            random.make()
        weights = self.weights or random.weights
        file = self.folder / f"{self.size}.md"
        file.parent.mkdir(parents=True, exist_ok=True)
        heading = f"{describe_machine(device)} Size {self.size}, {self.rounds} rounds, "
        heading += f"{self.weights or 'random'} weights.\n\n{HEADER}\n"
        file.write_text(heading, encoding="utf-8")
        print(heading, end="")
        bench = Inference(weights=weights, device=device, rounds=self.rounds, steps=steps)
        for suite in self.only or SUITES:
            if suite in ("opening", "conversion"):
                bench = Inference(weights=weights, device=device, rounds=self.rounds, steps=steps)
            for row in measure(suite, bench, None if self.weights else random):
                print(row, flush=True)
                with file.open("a", encoding="utf-8") as table:
                    table.write(f"{row}\n")


def main(words: Sequence[str] | None = None) -> int:
    """Run the suites that were asked for; see ``run_program``."""
    return run_program(Benchmark, "benchmarks", words)


def measure(suite: Suite, bench: Inference, random: RandomWeights | None) -> Iterator[Row]:
    """Measure the rows of a suite."""
    if suite in INFERENCE:
        yield from INFERENCE[suite](bench)
    elif suite == "opening":
        yield from measure_opening(bench.weights, bench.device.type, bench.rounds)
    elif random is None:
        missing = "the weights were named, and no checkpoint with them"
        yield Row(title="converting a .pt checkpoint", baseline="copying the file", missing=missing)
    else:
        yield from measure_conversion(random, bench.rounds)


def describe_machine(device: torch.device) -> str:
    """Processor, device, memory, load and versions, as a sentence or two."""
    info = Path("/proc/cpuinfo")
    names = info.read_text().split("model name")[1:] if info.is_file() else []
    name = names[0].split(":")[1].splitlines()[0].strip() if names else platform.processor()
    if device.type == "cuda":
        gpu = torch.cuda.get_device_properties(device)
        name = f"{gpu.name}, {gpu.total_memory / 1e9:.0f} GB, CUDA {torch.version.cuda}; {name}"
    memory = psutil.virtual_memory().total / 1e9
    versions = ", ".join(f"{library} {version(library)}" for library in LIBRARIES)
    return (
        f"{name}, {torch.get_num_threads()} threads on {os.cpu_count()} cores, {memory:.0f} GB, "
        f"load {os.getloadavg()[0]:.1f} at the start; {versions}."
    )


if __name__ == "__main__":
    sys.exit(main())
