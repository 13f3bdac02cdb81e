"""Memory of processes, and the page cache, as the system tells them."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks import processes
from benchmarks.measuring import NotMeasured
from benchmarks.processes import (
    cached_share,
    drop_from_cache,
    environment,
    read_files,
    read_status,
    run_task,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux tells these")
MEGABYTE = 2**20


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / name for name in "ab"]
    for path in paths:
        path.write_bytes(bytes(8 * MEGABYTE))
    return paths


def test_the_page_cache_can_be_emptied_and_filled(files: list[Path]) -> None:
    try:
        drop_from_cache(files)
    except NotMeasured:
        pytest.skip("the files of this system live in memory")
    assert cached_share(files) <= 0.05
    assert read_files(files) > 0
    assert cached_share(files) == 1.0


def test_a_cache_that_cannot_be_emptied_is_told(
    files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes.os, "posix_fadvise", lambda *arguments: None)
    with pytest.raises(NotMeasured, match="keeps 100% of the files"):
        drop_from_cache(files)


def run_script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str):
    """Let a short script stand where ``benchmarks.tasks`` would: it needs no torch."""
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "tasks.py").write_text(script)
    monkeypatch.setattr(processes, "ROOT", tmp_path)
    return run_task("any", directory=tmp_path / "x")


TASK = """
import json, mmap, pathlib, sys, time
arguments = json.loads(sys.argv[2])
print("something said on the way " * 10_000)
{work}
peak = pathlib.Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]
print(json.dumps({{"peak": int(peak) * 1024, "finished": time.perf_counter(), **arguments}}))
"""


def test_memory_of_a_task(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is mapped from a file counts in the peak, and not in what is anonymous."""
    mapped = tmp_path / "mapped"
    mapped.write_bytes(bytes(200 * MEGABYTE))
    ballast = bytes(300 * MEGABYTE)  # in the parent: a child that inherits its peak would show it
    work = f"""
held = b"x" * {100 * MEGABYTE}
file = open({str(mapped)!r}, "rb")
view = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
sum(view[::4096])
time.sleep(0.3)
"""
    outcome = run_script(monkeypatch, tmp_path, TASK.format(work=work))
    assert 300 * MEGABYTE < outcome.peak < 400 * MEGABYTE
    assert 100 * MEGABYTE < outcome.anonymous < 200 * MEGABYTE
    assert 0.3 < outcome.seconds < 60
    assert outcome.report == {"directory": str(tmp_path / "x")}
    assert ballast


def test_a_task_that_fails_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no such luck"):
        run_script(monkeypatch, tmp_path, "raise SystemExit('no such luck')")


def test_status_of_a_process_that_is_gone() -> None:
    assert read_status(2**30, "RssAnon") == 0
    assert read_status("self", "VmHWM") > MEGABYTE


def test_a_task_for_the_cpu_sees_no_gpu() -> None:
    assert environment({"device": "cpu"})["CUDA_VISIBLE_DEVICES"] == ""
    assert environment({"device": "cuda"}).get("CUDA_VISIBLE_DEVICES") != ""
    assert json.dumps(environment({}))
