"""Opening weights, the server's setup and conversion: in fresh processes, with their memory.

A process that has done something before has memory to reuse and libraries in place: what a start
costs shows in a fresh one only. Imports do not count.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.measuring import Row, take_turns
from benchmarks.weights import RandomWeights

ROOT = Path(__file__).resolve().parent.parent
Found = dict[str, float]  # "seconds" and "peak", in bytes


def measure_opening(weights: Path, device: str, rounds: int) -> Iterator[Row]:
    """Compare opening weights, and the server's setup, with reading the same files."""
    files = sorted(weights.rglob("*.safetensors"))
    size = sum(file.stat().st_size for file in files) / 1e9
    trials: dict[str, Callable[[], Found]] = {
        "reading": lambda: {"seconds": read(files)},
        "opening weights in their stored precision": lambda: run("open_weights", weights, device),
        "setup() of the server, its default precision": lambda: run("set_up", weights, device),
    }
    read(files)  # into the page cache
    found = take_turns(trials, rounds, warm_ups=0)
    reading = tuple(each["seconds"] for each in found.pop("reading"))
    for title, results in found.items():
        seconds, peaks = (tuple(each[key] for each in results) for key in ("seconds", "peak"))
        yield Row(title=title, baseline="reading the same files", values=seconds, baselines=reading)
        yield Row(
            title=f"peak memory of {title}, mapped files included",
            baseline="size of the weights",
            values=tuple(peak / 1e9 for peak in peaks),
            baselines=(size,) * rounds,
            unit="GB",
        )


def measure_conversion(random: RandomWeights, rounds: int) -> Iterator[Row]:
    """Compare converting a checkpoint with copying the file."""
    output, copied = random.folder / "converted", random.folder / "copy.pt"

    def clean() -> None:
        shutil.rmtree(output, ignore_errors=True)
        copied.unlink(missing_ok=True)
        os.sync()  # what earlier trials wrote is on the disk
        read([random.checkpoint])

    def copy() -> Found:
        clean()
        start = time.perf_counter()
        shutil.copyfile(random.checkpoint, copied)
        return {"seconds": time.perf_counter() - start}

    def convert() -> Found:
        clean()
        return run("convert_checkpoint", random.folder, random.size, output)

    try:
        found = take_turns({"convert": convert, "copy": copy}, rounds, warm_ups=0)
    finally:
        clean()
    size = random.checkpoint.stat().st_size / 1e9
    yield Row(
        title="converting a .pt checkpoint",
        baseline="copying the file",
        values=tuple(each["seconds"] for each in found["convert"]),
        baselines=tuple(each["seconds"] for each in found["copy"]),
        note=f"{size:.1f} GB, page cache warm",
    )
    yield Row(
        title="peak memory of it, mapped files included",
        baseline="size of the checkpoint",
        values=tuple(each["peak"] / 1e9 for each in found["convert"]),
        baselines=(size,) * rounds,
        unit="GB",
    )


def read(files: Iterable[Path]) -> float:
    """Read files from end to end into one buffer; the seconds it took."""
    buffer = memoryview(bytearray(2**24))
    start = time.perf_counter()
    for path in files:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
    return time.perf_counter() - start


def run(task: str, *arguments: Any) -> Found:
    """Run a task of this module in a fresh process.

    Raises:
        RuntimeError: If it fails; with its last words.
    """
    command = [sys.executable, "-m", "benchmarks.processes", task, *map(str, arguments)]
    environment = {**os.environ, "KOSMOSG_ALLOW_NO_SAFETY_CHECKER": "1"}
    if "cpu" in arguments:
        environment["CUDA_VISIBLE_DEVICES"] = ""
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{task} failed: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


# ------------------------------------------------------------------ what such a process does


def open_weights(weights: str, device: str) -> float:
    """Open a weights folder in the precision that its files have."""
    import torch
    from safetensors import safe_open

    from kosmosg.pipeline import KosmosGPipeline

    stored = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}
    with safe_open(Path(weights) / "unet" / "diffusion_pytorch_model.safetensors", "pt") as file:
        dtype = stored[file.get_slice(next(iter(file.keys()))).get_dtype()]
    start = time.perf_counter()
    KosmosGPipeline.from_pretrained(weights, torch_dtype=dtype, device=device)
    return time.perf_counter() - start


def set_up(weights: str, _: str) -> float:
    """Do what the server does before it is ready."""
    from kosmosg.serving.service import Service

    start = time.perf_counter()
    Service.open(weights)
    return time.perf_counter() - start


def convert_checkpoint(folder: str, size: str, output: str) -> float:
    """Convert a random checkpoint."""
    random = RandomWeights(folder=Path(folder), size=size)
    start = time.perf_counter()
    random.convert(Path(output))
    return time.perf_counter() - start


def peak_memory() -> int:
    """Bytes of this process in memory at most; ``ru_maxrss`` would begin with its parent's."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


if __name__ == "__main__":
    task = {each.__name__: each for each in (open_weights, set_up, convert_checkpoint)}[sys.argv[1]]
    print(json.dumps({"seconds": task(*sys.argv[2:]), "peak": peak_memory()}))
