"""A folder of pictures that a run fills, and goes on to fill after it was killed.

A picture appears under its name in one step and whole, so one that is there is never made again.
Beside the pictures stands what they are drawn with: a run with anything else is refused, because
its pictures would be counted among those of another.
"""

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import PartialState
from PIL import Image
from tqdm import tqdm

from kosmosg.checkpoints.lockfile import only_one
from kosmosg.errors import EvaluationError, ImageError
from kosmosg.evaluation.evaluator import Job, in_batches
from kosmosg.evaluation.models import Generate
from kosmosg.prompts.images import open_image
from kosmosg.serving.metadata import save_image

logger = logging.getLogger(__name__)

PICTURES, RECORD, OWNER = "pictures", "run.json", ".run.lock"
PART = ".part.png"  # what a picture's name ends with until it is whole
PNG_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"  # PNG specification, section 11.2.5


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """The pictures of a run.

    Attributes:
        folder: Where they are, below ``pictures``.
        recipe: What all of them were drawn with, for the metadata of their files.
    """

    folder: Path
    recipe: Mapping[str, Any]

    @classmethod
    def open(
        cls,
        folder: Path,
        settings: Mapping[str, Any],
        recipe: Mapping[str, Any],
        processes: PartialState,
    ) -> "Gallery":
        """Open a folder of pictures; all processes together, before one of them draws.

        Args:
            folder: Made if missing.
            settings: Everything that decides the pictures, as JSON can hold it.
            recipe: See the class.
            processes: Those of the run.

        Raises:
            EvaluationError: If the folder holds pictures that were drawn with other settings.
        """
        gallery = cls(folder=folder, recipe=recipe)
        if processes.is_main_process:
            _check_record(folder, settings)
            for part in (folder / PICTURES).rglob(f"*{PART}"):
                part.unlink()  # what a killed run was writing
        processes.wait_for_everyone()
        return gallery

    def path(self, job: Job) -> Path:
        """Name the file of a picture."""
        return self.folder / PICTURES / f"{job.name}.png"

    def describe(self, job: Job) -> dict[str, Any]:
        """Say of a picture where it is and what it was made from."""
        file = self.path(job).relative_to(self.folder).as_posix()
        return {"file": file, "prompt": job.prompt, "seed": job.seed}

    def has(self, job: Job) -> bool:
        """Tell whether a picture is there, up to the end of its file."""
        try:
            with self.path(job).open("rb") as file:
                file.seek(-len(PNG_END), os.SEEK_END)
                whole = file.read() == PNG_END
        except FileNotFoundError:
            return False
        except OSError:  # shorter than the mark that it should end with
            whole = False
        if not whole:
            logger.warning("%s is cut off and drawn again.", self.path(job))
        return whole

    def add(self, jobs: Sequence[Job], images: Sequence[Image.Image]) -> None:
        """Write the pictures of jobs, each whole or not at all.

        Raises:
            EvaluationError: If the disk is full.
        """
        written = []
        for job, image in zip(jobs, images, strict=True):
            path = self.path(job)
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_name(path.stem + PART)
            recipe = {"prompt": job.prompt, "seed": job.seed, **self.recipe}
            with writing(part):
                save_image(image, part, quality=100, recipe=recipe)
                _flush(part)
            written.append((part, path))
        for part, path in written:
            part.replace(path)

    def read(self, job: Job) -> Image.Image:
        """Open a picture.

        Raises:
            EvaluationError: If it is missing or damaged.
        """
        path = self.path(job)
        try:
            return open_image(path, str(path))
        except ImageError as error:
            raise EvaluationError(
                f"{path} was drawn, but cannot be read any more. Delete it and give the same "
                "command again: it is drawn anew."
            ) from error


def hold(folder: Path, processes: PartialState) -> AbstractContextManager[None]:
    """Hold the folder of a run, which is made if need be, for as long as it takes.

    Two starts of one command would remove what the other is writing. Of several processes the main
    one holds it for all.

    Raises:
        EvaluationError: If another run holds it.
    """

    def explain(process: str) -> EvaluationError:
        return EvaluationError(
            f"{folder}: another evaluation (process {process}) is at work here. Wait for it or end "
            "it, or name another folder by --output."
        )

    return only_one(folder, OWNER, explain) if processes.is_main_process else nullcontext()


def draw_missing(
    jobs: Sequence[Job],
    generate: Generate,
    gallery: Gallery,
    *,
    batch: int,
    processes: PartialState,
) -> None:
    """Draw every picture that is not there yet; each process takes every n-th batch.

    The batches are the same in every run, on any number of processes, and a batch of which a
    picture is missing is drawn as a whole, though only what is missing is written. A picture
    depends on its neighbours through rounding alone, but so not even through that: a run that was
    killed ends with the very pictures of one that was not.

    Args:
        jobs: All of them.
        generate: The model.
        gallery: Where they go.
        batch: Pictures drawn at once.
        processes: Those of the run; all have drawn when this returns.
    """
    share = in_batches(jobs, batch)[processes.process_index :: processes.num_processes]
    missing = [[n for n, job in enumerate(part) if not gallery.has(job)] for part in share]
    waiting = [(part, rows) for part, rows in zip(share, missing, strict=True) if rows]
    total, left = sum(map(len, share)), sum(len(part) for part, _ in waiting)
    inputs = _Inputs()
    with tqdm(
        desc="draw" if processes.num_processes == 1 else "draw (first process)",
        unit="picture",
        total=total,
        initial=total - left,
        disable=not processes.is_main_process,
    ) as bar:
        for part, rows in waiting:
            images = generate(
                [job.prompt for job in part],
                [[inputs.open(path) for path in job.images] for job in part],
                [job.seed for job in part],
            )
            gallery.add([part[n] for n in rows], [images[n] for n in rows])
            bar.update(len(part))
    processes.wait_for_everyone()


class _Inputs:
    """Input pictures, of which the last few stay open: consecutive jobs have the same ones."""

    KEPT = 4

    def __init__(self):
        self._opened: dict[Path, Image.Image] = {}

    def open(self, path: Path) -> Image.Image:
        if path not in self._opened:
            if len(self._opened) >= self.KEPT:
                del self._opened[next(iter(self._opened))]
            self._opened[path] = open_image(path, str(path))
        return self._opened[path]


def _check_record(folder: Path, settings: Mapping[str, Any]) -> None:
    """Compare with what a folder's pictures were drawn with, or write it down."""
    record = folder / RECORD
    pictures = (folder / PICTURES).is_dir() and any((folder / PICTURES).rglob("*.png"))
    if not record.exists() or not pictures:
        if pictures:
            raise EvaluationError(
                f"{folder} holds pictures, but no {RECORD} says how they were drawn. Name another "
                "folder by --output."
            )
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(record, json.dumps(settings, indent=2, ensure_ascii=False) + "\n")
        return
    try:
        found: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("it holds no settings")
    except (ValueError, RecursionError) as error:
        raise EvaluationError(
            f"{record} cannot be read ({error}), so nobody knows how the pictures beside it were "
            "drawn. Name another folder by --output."
        ) from error
    wanted = json.loads(json.dumps(settings))
    names = [name for name in {**found, **wanted} if found.get(name) != wanted.get(name)]
    if names:
        differences = "; ".join(
            f"{name.replace('_', ' ')} is {wanted.get(name)!r}, was {found.get(name)!r}"
            for name in names
        )
        raise EvaluationError(
            f"{folder} holds pictures of another run: {differences}. Give the same settings to "
            "complete it, or name another folder by --output."
        )


def write_whole(path: Path, text: str) -> None:
    """Write a text file that a crash leaves as it was, or whole.

    Raises:
        EvaluationError: If the disk is full.
    """
    part = path.with_name(path.name + ".part")
    with writing(part):
        part.write_text(text, encoding="utf-8")
        _flush(part)
    part.replace(path)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say what to do where a file cannot be written."""
    try:
        yield
    except OSError as error:
        raise EvaluationError(
            f"{path} cannot be written ({error.strerror or error}). What was finished before is "
            "kept: mend that, and give the same command again."
        ) from error


def _flush(path: Path) -> None:
    """Wait until a file is on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
