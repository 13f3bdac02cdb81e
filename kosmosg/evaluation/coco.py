"""COCO: images of 30 000 captions, against all photographs of the set (paper, section 4.2)."""

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from accelerate import PartialState
from PIL import Image

from kosmosg.diffusion.settings import MAX_SEED
from kosmosg.errors import EvaluationError, PromptError
from kosmosg.evaluation.features import FeatureExtractor, extract
from kosmosg.evaluation.image_folder import ImageFolder, generate_missing
from kosmosg.evaluation.metrics import Finding, FrechetDistance
from kosmosg.evaluation.models import Generate
from kosmosg.evaluation.options import COCO_BATCH, COCO_CAPTIONS
from kosmosg.evaluation.protocol import EvaluationProtocol, ImageJob
from kosmosg.prompts.images import central_square, open_image, resize_and_crop
from kosmosg.prompts.prompt import parse_prompt
from kosmosg.utils.contact_sheet import Card

REAL_SIDE = 256  # to which the authors bring the photographs
PER_FOLDER = 1000
SHOWN = 200  # images on the sheet


@dataclass(kw_only=True)
class Coco:
    """The evaluator.

    Attributes:
        jobs: The images to generate.
        photographs: What they are compared with.
        folder: Where the images are.
        extractor: The features in whose space the distance is.
        protocol: Decides how photographs are prepared.
        processes: Those of the run; all of them call the evaluator, and the main one gets results.
        name: Of the distance.
        batch: Images generated at once.
    """

    jobs: Sequence[ImageJob]
    photographs: Sequence[Path]
    folder: ImageFolder
    extractor: FeatureExtractor
    protocol: EvaluationProtocol
    processes: PartialState
    name: str = "FID"
    batch: int = COCO_BATCH

    def __call__(self, generate: Generate) -> Iterator[Finding]:
        """Generate what is missing, and measure the distance."""
        generate_missing(
            *(self.jobs, generate, self.folder), batch=self.batch, processes=self.processes
        )
        generated = self._features(len(self.jobs), self._generated, "images")
        real = self._features(len(self.photographs), self._photograph, "photographs")
        if self.processes.is_main_process:
            device: Any = self.processes.device
            yield self.name, FrechetDistance(real, device).estimate(generated)

    def images(self) -> Iterator[dict[str, Any]]:
        """List every image."""
        return map(self.folder.describe, self.jobs)

    def cards(self) -> Iterator[Card]:
        """Show the first images."""
        for job in self.jobs[:SHOWN]:
            yield Card(group="captions", inputs=(), prompt=job.prompt, output=self.folder.read(job))

    def _features(self, count: int, read: Callable[[int], Image.Image], what: str) -> Any:
        return extract(count, read, self.extractor, self.processes, what)

    def _generated(self, number: int) -> Image.Image:
        return self.folder.read(self.jobs[number])

    def _photograph(self, number: int) -> Image.Image:
        path = self.photographs[number]
        image = open_image(path, str(path))
        if self.protocol.old_resizing:
            return resize_and_crop(image, REAL_SIDE, Image.Resampling.BILINEAR)
        return central_square(image)  # and from there to the network's size at once


def make_jobs(
    captions: Sequence[str],
    protocol: EvaluationProtocol,
    *,
    count: int = COCO_CAPTIONS,
    seed: int = 0,
) -> list[ImageJob]:
    """Choose captions with Python's generator, as the authors do, and list their images.

    Args:
        captions: All of a set, in the order of its file.
        protocol: Decides the seeds of the noise.
        count: How many captions.
        seed: Decides which, and is the first seed of the noise.

    Raises:
        EvaluationError: If there are fewer, one is no prompt, or the last seed would be too large.
    """
    if len(captions) < count:
        raise EvaluationError(
            f"There are {len(captions)} captions, fewer than the {count} asked for. Lower --count, "
            "or give the captions of the whole set."
        )
    if seed + count - 1 > MAX_SEED:
        raise EvaluationError(f"--seed is {seed}; with {count} images it must be lower.")
    chosen = random.Random(seed).sample(captions, count)  # noqa: S311  # no secret
    for caption in chosen:
        try:
            parse_prompt(caption, 0)
        except PromptError as error:
            raise EvaluationError(
                f"The caption {caption!r:.200} cannot be used. Mend it in the file of captions. "
                f"({error})"
            ) from error
    return [
        ImageJob(
            name=f"{number // PER_FOLDER:02d}/{number:05d}",
            prompt=caption,
            images=(),
            seed=protocol.seed(seed, number=number, place=number % COCO_BATCH),
            text=caption,
        )
        for number, caption in enumerate(chosen)
    ]


def read_captions(file: Path) -> tuple[list[str], list[str]]:
    """Read captions and file names of photographs from COCO's JSON.

    Raises:
        EvaluationError: If it is no such file.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        captions = [_text(entry["caption"]) for entry in content["annotations"]]
        names = [_text(entry["file_name"]) for entry in content["images"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise EvaluationError(
            f"{file} cannot be used ({error!r}). It must be COCO's captions_val2014.json, with "
            "'images' and 'annotations'."
        ) from error
    # A photograph that is listed twice would count twice.
    return captions, list(dict.fromkeys(names))


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{value!r:.80} is no text")
    return value


def find_photographs(folder: Path, names: Sequence[str]) -> list[Path]:
    """Find all photographs of a set.

    Args:
        folder: Where they are.
        names: As the file of captions has them. What is not found under a folder that a name
            begins with is looked for without it.

    Raises:
        EvaluationError: If some are missing, or two names would be of one file.
    """
    if not names:
        raise EvaluationError("The file of captions lists no photographs under 'images'.")
    paths = [_place(folder, name) for name in names]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        shown = ", ".join(missing[:5]) + (" …" if len(missing) > 5 else "")
        raise EvaluationError(
            f"{folder} lacks {len(missing)} of {len(paths)} photographs: {shown}. It must be the "
            "folder of images that the captions belong to (val2014)."
        )
    found: dict[Path, str] = {}
    for path, name in zip(paths, names, strict=True):
        if path in found:
            raise EvaluationError(
                f"{path} would count twice: the file of captions lists it as {found[path]} and as "
                f"{name}. If these are two photographs, keep their folders below {folder}; if not, "
                "list it once."
            )
        found[path] = name
    return paths


def _place(folder: Path, name: str) -> Path:
    """Say where a photograph is, never outside of the folder."""
    relative = PurePosixPath(name)
    inside = not relative.is_absolute() and ".." not in relative.parts
    nested = folder / relative
    return nested if inside and nested.is_file() else folder / relative.name
