"""Folders of images: whole, in place, and of one run."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from accelerate import PartialState
from PIL import Image

from kosmosg.errors import EvaluationError
from kosmosg.evaluation.image_folder import ImageFolder, generate_missing, lock_run
from kosmosg.evaluation.protocol import ImageJob
from kosmosg.serving.metadata import read_recipe
from kosmosg.utils import files
from tests.evaluation.fabricated import photograph
from tests.training.disks import no_space

SETTINGS = {"steps": 50, "scale": 7.5, "photographs": "sha256:1234"}


class Painter:
    """A model whose images say who was generated beside whom."""

    def __init__(self):
        self.calls: list[list[int]] = []

    def __call__(
        self, prompts: Sequence[str], images: Sequence[Sequence[Image.Image]], seeds: Sequence[int]
    ) -> list[Image.Image]:
        self.calls.append(list(seeds))
        neighbours = sum(seeds) % 256
        return [Image.new("RGB", (8, 8), (seed, neighbours, len(prompts))) for seed in seeds]


def make_jobs(count: int, images: tuple[Path, ...] = ()) -> list[ImageJob]:
    return [
        ImageJob(name=f"a/{n:02d}", prompt=f"dog {n}", images=images, seed=10 + n, text=f"dog {n}")
        for n in range(count)
    ]


def open_folder(folder: Path, processes: PartialState, **settings: Any) -> ImageFolder:
    return ImageFolder.open(folder, {**SETTINGS, **settings}, {"steps": 50}, processes)


def fill(
    jobs: Sequence[ImageJob], folder: ImageFolder, processes: PartialState, batch: int = 4
) -> Painter:
    painter = Painter()
    generate_missing(jobs, painter, folder, batch=batch, processes=processes)
    return painter


def read_all(folder: ImageFolder, jobs: Sequence[ImageJob]) -> list[bytes]:
    return [folder.path(job).read_bytes() for job in jobs]


def test_all_are_generated_once(tmp_path: Path, alone: PartialState) -> None:
    folder, jobs = open_folder(tmp_path / "run", alone), make_jobs(10)
    assert fill(jobs, folder, alone).calls == [
        [10, 11, 12, 13],
        [14, 15, 16, 17],
        [18, 19],
    ]
    assert [np.asarray(folder.read(job))[0, 0, 0] for job in jobs] == [*range(10, 20)]
    assert read_recipe(folder.path(jobs[3])) == {
        "prompt": "dog 3",
        "seed": 13,
        "steps": 50,
        "software": "KOSMOS-G",
    }
    assert folder.describe(jobs[3]) == {
        "file": "images/a/03.png",
        "prompt": "dog 3",
        "seed": 13,
    }
    before = read_all(folder, jobs)
    assert fill(jobs, open_folder(tmp_path / "run", alone), alone).calls == []
    assert read_all(folder, jobs) == before


@pytest.mark.parametrize("harm", ["missing", "cut off", "empty"])
def test_what_is_not_whole_is_generated_again_as_it_was(
    tmp_path: Path, alone: PartialState, harm: str
) -> None:
    folder, jobs = open_folder(tmp_path / "run", alone), make_jobs(10)
    fill(jobs, folder, alone)
    before = read_all(folder, jobs)
    path = folder.path(jobs[5])
    if harm == "missing":
        path.unlink()
    else:
        path.write_bytes(before[5][:-1] if harm == "cut off" else b"")
    others = [folder.path(job) for job in jobs if job is not jobs[5]]
    times = [other.stat().st_mtime_ns for other in others]
    assert not folder.has(jobs[5])
    assert fill(jobs, folder, alone).calls == [[14, 15, 16, 17]]  # with its neighbours
    assert read_all(folder, jobs) == before
    assert [other.stat().st_mtime_ns for other in others] == times
    assert folder.has(jobs[5])


def test_what_a_killed_run_was_writing_is_removed(tmp_path: Path, alone: PartialState) -> None:
    folder, jobs = open_folder(tmp_path / "run", alone), make_jobs(2)
    fill(jobs, folder, alone)
    left = folder.path(jobs[0]).with_name("07.png.0123abcd.part")
    left.write_bytes(b"half")
    open_folder(tmp_path / "run", alone)
    assert not left.exists()
    assert all(map(folder.has, jobs))


def test_input_images_are_opened(tmp_path: Path, alone: PartialState) -> None:
    files = tuple(tmp_path / f"{n}.png" for n in range(7))
    for n, file in enumerate(files):
        photograph(n, (20, 20)).save(file)
    jobs = [job for n in (0, 3, 6) for job in make_jobs(n + 1, files[:n])[-1:]]
    seen: list[list[bytes]] = []

    def generate(
        prompts: Sequence[str], images: Sequence[Sequence[Image.Image]], seeds: Sequence[int]
    ) -> list[Image.Image]:
        seen.extend([image.tobytes() for image in each] for each in images)
        return [Image.new("RGB", (8, 8))] * len(prompts)

    folder = open_folder(tmp_path / "run", alone)
    generate_missing(jobs, generate, folder, batch=2, processes=alone)
    pixels = [photograph(n, (20, 20)).tobytes() for n in range(7)]
    assert seen == [pixels[:0], pixels[:3], pixels[:6]]


def test_another_run_is_refused(tmp_path: Path, alone: PartialState) -> None:
    open_folder(tmp_path / "run", alone, steps=7)  # of which no image was generated
    fill(make_jobs(1), open_folder(tmp_path / "run", alone), alone)
    open_folder(tmp_path / "run", alone)
    with pytest.raises(
        EvaluationError, match=r"other settings: steps was 50 and is 20\. Use the same"
    ):
        open_folder(tmp_path / "run", alone, steps=20)
    with pytest.raises(
        EvaluationError, match=r"scale was 7\.5 and is 1; new_one was not given and is 2"
    ):
        open_folder(tmp_path / "run", alone, scale=1, new_one=2)
    assert json.loads((tmp_path / "run" / "run.json").read_text()) == SETTINGS


def test_a_record_that_is_gone_or_damaged(tmp_path: Path, alone: PartialState) -> None:
    folder = open_folder(tmp_path / "run", alone)
    fill(make_jobs(1), folder, alone)
    record = tmp_path / "run" / "run.json"
    for content in ('{"steps": ', "[[1, 2]]", "\udcff"):
        record.write_text(content, errors="surrogateescape")
        with pytest.raises(EvaluationError, match=r"run\.json cannot be read"):
            open_folder(tmp_path / "run", alone)
    record.unlink()
    with pytest.raises(EvaluationError, match=r"no run\.json says how"):
        open_folder(tmp_path / "run", alone)


def test_an_image_that_cannot_be_read(tmp_path: Path, alone: PartialState) -> None:
    folder, (job,) = open_folder(tmp_path / "run", alone), make_jobs(1)
    with pytest.raises(EvaluationError, match=r"00\.png was generated, but cannot be read"):
        folder.read(job)


def test_what_the_disk_did_not_take_is_generated_by_the_next_run(
    tmp_path: Path, alone: PartialState, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, jobs = open_folder(tmp_path / "run", alone), make_jobs(6)
    fill(jobs[:4], folder, alone)
    with monkeypatch.context() as full:
        full.setattr(files, "flush", no_space)
        with pytest.raises(
            EvaluationError, match=r"04.*cannot be written: the disk is full\. What"
        ):
            fill(jobs, folder, alone)
        with pytest.raises(EvaluationError, match=r"run\.json cannot be written: the disk is full"):
            open_folder(tmp_path / "other", alone)
    assert [*(tmp_path / "other").iterdir()] == []
    assert fill(jobs, open_folder(tmp_path / "run", alone), alone).calls == [[14, 15]]


def test_one_run_at_a_time(tmp_path: Path, alone: PartialState) -> None:
    with lock_run(tmp_path / "run", alone):
        with (
            pytest.raises(EvaluationError, match=r"run: another evaluation .* at work here"),
            lock_run(tmp_path / "run", alone),
        ):
            pass
        with lock_run(tmp_path / "other", alone):
            pass
    with lock_run(tmp_path / "run", alone):
        pass
