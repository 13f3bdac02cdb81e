"""A folder of images that a run fills, and goes on to fill after it was killed.

An image appears under its name in one step and whole, so one that is there is never made again.
Beside the images stands what they are generated with: a run with anything else is refused, because
its images would be counted among those of another.
"""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from accelerate import PartialState
from PIL import Image
from tqdm import tqdm

from kosmosg.errors import EvaluationError, ImageError
from kosmosg.evaluation.models import Generate
from kosmosg.evaluation.protocol import ImageJob, in_batches
from kosmosg.prompts.images import open_image
from kosmosg.serving.metadata import save_image
from kosmosg.utils.files import RunRecord, lock_folder, reason, remove_unfinished

logger = logging.getLogger(__name__)

IMAGES, RECORD = "images", "run.json"
OTHER_FOLDER = "name another folder by --output"
INPUTS_KEPT = 4  # of the last input images, which stay open: consecutive jobs have the same ones
PNG_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"  # PNG specification, section 11.2.5


@dataclass(frozen=True, kw_only=True)
class ImageFolder:
    """The images of a run.

    Attributes:
        folder: Where they are, below ``images``.
        recipe: What all of them were generated with, for the metadata of their files.
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
    ) -> "ImageFolder":
        """Open a folder of images; all processes together, before one of them generates.

        Args:
            folder: Made if missing.
            settings: Everything that decides the images, as JSON can hold it.
            recipe: See the class.
            processes: Those of the run.

        Raises:
            EvaluationError: If the folder holds images that were generated with other settings.
        """
        if processes.is_main_process:
            _check_record(folder, settings)
            remove_unfinished(folder)
        processes.wait_for_everyone()
        return cls(folder=folder, recipe=recipe)

    def path(self, job: ImageJob) -> Path:
        """Name the file of an image."""
        return self.folder / IMAGES / f"{job.name}.png"

    def describe(self, job: ImageJob) -> dict[str, Any]:
        """Say of an image where it is and what it was made from."""
        file = self.path(job).relative_to(self.folder).as_posix()
        return {"file": file, "prompt": job.prompt, "seed": job.seed}

    def has(self, job: ImageJob) -> bool:
        """Tell whether an image is there, up to the end of its file."""
        try:
            with self.path(job).open("rb") as file:
                file.seek(-len(PNG_END), os.SEEK_END)
                whole = file.read() == PNG_END
        except FileNotFoundError:
            return False
        except OSError:  # shorter than the mark that it should end with
            whole = False
        if not whole:
            logger.warning("%s is cut off and generated again.", self.path(job))
        return whole

    def add(self, job: ImageJob, image: Image.Image) -> None:
        """Write the image of a job, whole or not at all.

        Raises:
            EvaluationError: If the disk is full.
        """
        recipe = {"prompt": job.prompt, "seed": job.seed, **self.recipe}
        with writing(self.path(job)):
            save_image(image, self.path(job), quality=100, recipe=recipe)

    def read(self, job: ImageJob) -> Image.Image:
        """Open an image.

        Raises:
            EvaluationError: If it is missing or damaged.
        """
        path = self.path(job)
        try:
            return open_image(path, str(path))
        except ImageError as error:
            raise EvaluationError(
                f"{path} was generated, but cannot be read any more. Delete it and give the same "
                "command again: it is generated anew."
            ) from error


def lock_run(folder: Path, processes: PartialState) -> AbstractContextManager[None]:
    """Hold the folder of a run, which is made if need be, for as long as it takes.

    Two starts of one command would remove what the other is writing. Of several processes the main
    one holds it for all.

    Raises:
        EvaluationError: If another run holds it.
    """
    if not processes.is_main_process:
        return nullcontext()
    return lock_folder(folder, work="evaluation", error=EvaluationError, remedy=OTHER_FOLDER)


def generate_missing(
    jobs: Sequence[ImageJob],
    generate: Generate,
    folder: ImageFolder,
    *,
    batch: int,
    processes: PartialState,
) -> None:
    """Generate every image that is not there yet; each process takes every n-th batch.

    The batches are the same in every run, on any number of processes, and a batch of which an
    image is missing is generated as a whole, though only what is missing is written. An image
    depends on its neighbours through rounding alone, but so not even through that: a run that was
    killed ends with the very images of one that was not.

    Args:
        jobs: All of them.
        generate: The model.
        folder: Where they go.
        batch: Images generated at once.
        processes: Those of the run; all have generated when this returns.
    """
    share = in_batches(jobs, batch)[processes.process_index :: processes.num_processes]
    missing = [[n for n, job in enumerate(part) if not folder.has(job)] for part in share]
    waiting = [(part, rows) for part, rows in zip(share, missing, strict=True) if rows]
    total, left = sum(map(len, share)), sum(len(part) for part, _ in waiting)

    @lru_cache(INPUTS_KEPT)
    def opened(path: Path) -> Image.Image:
        return open_image(path, str(path))

    with tqdm(
        desc="generate" if processes.num_processes == 1 else "generate (first process)",
        unit="image",
        total=total,
        initial=total - left,
        disable=not processes.is_main_process,
    ) as bar:
        for part, rows in waiting:
            images = generate(
                [job.prompt for job in part],
                [[opened(path) for path in job.images] for job in part],
                [job.seed for job in part],
            )
            for row in rows:
                folder.add(part[row], images[row])
            bar.update(len(part))
    processes.wait_for_everyone()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say what to do where a file cannot be written.

    Raises:
        EvaluationError: In the place of any ``OSError``.
    """
    try:
        yield
    except OSError as error:
        raise EvaluationError(
            f"{path} cannot be written: {reason(error)}. What was finished before is kept: mend "
            "that, and give the same command again."
        ) from error


def _check_record(folder: Path, settings: Mapping[str, Any]) -> None:
    """Compare with what a folder's images were generated with, or write it down."""
    record = RunRecord(file=folder / RECORD, error=EvaluationError, remedy=OTHER_FOLDER)
    begun = any((folder / IMAGES).rglob("*.png"))
    if begun and not record.file.exists():
        raise EvaluationError(
            f"{folder} holds images, but no {RECORD} says how they were generated. Name another "
            "folder by --output."
        )
    with writing(record.file):
        record.settle(settings, anew=not begun)
