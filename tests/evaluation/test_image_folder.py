"""Folders of pictures: whole, in place, and of one run."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from accelerate import PartialState
from PIL import Image

from kosmosg.errors import EvaluationError
from kosmosg.evaluation import image_folder as gallery_module
from kosmosg.evaluation.evaluator import Job
from kosmosg.evaluation.image_folder import Gallery, draw_missing, hold, write_whole
from kosmosg.serving.metadata import read_recipe
from tests.evaluation.fabricated import photograph
from tests.training.disks import no_space

SETTINGS = {"steps": 50, "scale": 7.5, "photographs": "sha256:1234"}


class Painter:
    """A model whose pictures say who was drawn beside whom."""

    def __init__(self):
        self.calls: list[list[int]] = []

    def __call__(
        self, prompts: Sequence[str], images: Sequence[Sequence[Image.Image]], seeds: Sequence[int]
    ) -> list[Image.Image]:
        self.calls.append(list(seeds))
        neighbours = sum(seeds) % 256
        return [Image.new("RGB", (8, 8), (seed, neighbours, len(prompts))) for seed in seeds]


def make_jobs(count: int, images: tuple[Path, ...] = ()) -> list[Job]:
    return [
        Job(name=f"a/{n:02d}", prompt=f"dog {n}", images=images, seed=10 + n, text=f"dog {n}")
        for n in range(count)
    ]


def open_gallery(folder: Path, processes: PartialState, **settings: Any) -> Gallery:
    return Gallery.open(folder, {**SETTINGS, **settings}, {"steps": 50}, processes)


def draw(jobs: Sequence[Job], gallery: Gallery, processes: PartialState, batch: int = 4) -> Painter:
    painter = Painter()
    draw_missing(jobs, painter, gallery, batch=batch, processes=processes)
    return painter


def read_all(gallery: Gallery, jobs: Sequence[Job]) -> list[bytes]:
    return [gallery.path(job).read_bytes() for job in jobs]


def test_all_are_drawn_once(tmp_path: Path, alone: PartialState) -> None:
    gallery, jobs = open_gallery(tmp_path / "run", alone), make_jobs(10)
    assert draw(jobs, gallery, alone).calls == [
        [10, 11, 12, 13],
        [14, 15, 16, 17],
        [18, 19],
    ]
    assert [np.asarray(gallery.read(job))[0, 0, 0] for job in jobs] == [*range(10, 20)]
    assert read_recipe(gallery.path(jobs[3])) == {
        "prompt": "dog 3",
        "seed": 13,
        "steps": 50,
        "software": "KOSMOS-G",
    }
    assert gallery.describe(jobs[3]) == {
        "file": "pictures/a/03.png",
        "prompt": "dog 3",
        "seed": 13,
    }
    before = read_all(gallery, jobs)
    assert draw(jobs, open_gallery(tmp_path / "run", alone), alone).calls == []
    assert read_all(gallery, jobs) == before


@pytest.mark.parametrize("harm", ["missing", "cut off", "empty"])
def test_what_is_not_whole_is_drawn_again_as_it_was(
    tmp_path: Path, alone: PartialState, harm: str
) -> None:
    gallery, jobs = open_gallery(tmp_path / "run", alone), make_jobs(10)
    draw(jobs, gallery, alone)
    before = read_all(gallery, jobs)
    path = gallery.path(jobs[5])
    if harm == "missing":
        path.unlink()
    else:
        path.write_bytes(before[5][:-1] if harm == "cut off" else b"")
    others = [gallery.path(job) for job in jobs if job is not jobs[5]]
    times = [other.stat().st_mtime_ns for other in others]
    assert not gallery.has(jobs[5])
    assert draw(jobs, gallery, alone).calls == [[14, 15, 16, 17]]  # with its neighbours
    assert read_all(gallery, jobs) == before
    assert [other.stat().st_mtime_ns for other in others] == times
    assert gallery.has(jobs[5])


def test_what_a_killed_run_was_writing_is_removed(tmp_path: Path, alone: PartialState) -> None:
    gallery, jobs = open_gallery(tmp_path / "run", alone), make_jobs(2)
    draw(jobs, gallery, alone)
    left = gallery.path(jobs[0]).with_name("07.part.png")
    left.write_bytes(b"half")
    open_gallery(tmp_path / "run", alone)
    assert not left.exists()
    assert all(map(gallery.has, jobs))


def test_input_pictures_are_opened(tmp_path: Path, alone: PartialState) -> None:
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

    gallery = open_gallery(tmp_path / "run", alone)
    draw_missing(jobs, generate, gallery, batch=2, processes=alone)
    pixels = [photograph(n, (20, 20)).tobytes() for n in range(7)]
    assert seen == [pixels[:0], pixels[:3], pixels[:6]]


def test_another_run_is_refused(tmp_path: Path, alone: PartialState) -> None:
    open_gallery(tmp_path / "run", alone, steps=7)  # of which no picture was drawn
    draw(make_jobs(1), open_gallery(tmp_path / "run", alone), alone)
    open_gallery(tmp_path / "run", alone)
    with pytest.raises(EvaluationError, match=r"another run: steps is 20, was 50\. Give the same"):
        open_gallery(tmp_path / "run", alone, steps=20)
    with pytest.raises(EvaluationError, match=r"scale is 1, was 7\.5; new one is 2, was None"):
        open_gallery(tmp_path / "run", alone, scale=1, new_one=2)
    assert json.loads((tmp_path / "run" / "run.json").read_text()) == SETTINGS


def test_a_record_that_is_gone_or_damaged(tmp_path: Path, alone: PartialState) -> None:
    gallery = open_gallery(tmp_path / "run", alone)
    draw(make_jobs(1), gallery, alone)
    record = tmp_path / "run" / "run.json"
    for content in ('{"steps": ', "[[1, 2]]", "\udcff"):
        record.write_text(content, errors="surrogateescape")
        with pytest.raises(EvaluationError, match=r"run\.json cannot be read"):
            open_gallery(tmp_path / "run", alone)
    record.unlink()
    with pytest.raises(EvaluationError, match=r"no run\.json says how"):
        open_gallery(tmp_path / "run", alone)


def test_a_picture_that_cannot_be_read(tmp_path: Path, alone: PartialState) -> None:
    gallery, (job,) = open_gallery(tmp_path / "run", alone), make_jobs(1)
    with pytest.raises(EvaluationError, match=r"00\.png was drawn, but cannot be read"):
        gallery.read(job)


def test_what_the_disk_did_not_take_is_drawn_by_the_next_run(
    tmp_path: Path, alone: PartialState, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery, jobs = open_gallery(tmp_path / "run", alone), make_jobs(6)
    draw(jobs[:4], gallery, alone)
    with monkeypatch.context() as full:
        full.setattr(gallery_module, "save_image", no_space)
        with pytest.raises(EvaluationError, match=r"04.*cannot be written \(No space left on dev"):
            draw(jobs, gallery, alone)
        full.setattr(gallery_module, "_flush", no_space)
        with pytest.raises(EvaluationError, match=r"a\.md.* cannot be written"):
            write_whole(tmp_path / "a.md", "text")
    assert not (tmp_path / "a.md").exists()
    assert draw(jobs, open_gallery(tmp_path / "run", alone), alone).calls == [[14, 15]]


def test_one_run_at_a_time(tmp_path: Path, alone: PartialState) -> None:
    with hold(tmp_path / "run", alone):
        with (
            pytest.raises(EvaluationError, match=r"run: another evaluation .* at work here"),
            hold(tmp_path / "run", alone),
        ):
            pass
        with hold(tmp_path / "other", alone):
            pass
    with hold(tmp_path / "run", alone):
        pass
