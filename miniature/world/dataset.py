"""The world as a data set: folders of shards for every stage of the training.

    images       captions and images of *all* entities, for what the paper takes from
                   elsewhere and never trains on its subjects: CLIP, VAE and U-Net
    captions       captions and images                               stages 1 and 2
    text           sentences                                           stage 1
    documents      texts with images between                         stage 1
    compositional  captions, entities cut out of images, images    stage 3 (section 2.3)
    edits          images before and after an instruction            stage 3
    neon           images of one style, which no caption mentions    a LoRA

Nothing that is held out is mentioned or shown in any folder but the first and the last. Each shard
comes from a seed of its own, so that the same files are written whatever the number of processes,
and a run that was stopped goes on where it stood.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from zlib import crc32

import numpy as np
from PIL import Image

from kosmosg.data.schema import (
    CaptionSample,
    CompositionalSample,
    EditSample,
    EntityImages,
    InterleavedDocument,
    Sample,
)
from kosmosg.data.shards import shard_name, write_shard
from kosmosg.errors import DataError
from kosmosg.utils.files import RunRecord, lock_folder, remove_unfinished
from kosmosg.utils.fingerprint import fingerprint
from miniature.world.captions import Caption, write_caption
from miniature.world.crops import entity_crops
from miniature.world.description import Description
from miniature.world.documents import sample_document, sample_sentence
from miniature.world.edits import sample_edit
from miniature.world.render import render, sample_rendering
from miniature.world.world import World

DRAW_SHARD = 5  # first word of the seeds; those of the data's other parts are smaller
SETTINGS_FILE = "dataset.json"


@dataclass(frozen=True, kw_only=True)
class Folder:
    """One kind of samples, and how many of it make a whole data set."""

    samples: int
    draw: Callable[[World, np.random.Generator], Sample]


@dataclass(frozen=True, kw_only=True)
class _Shard:
    """A file to be written, and all that decides what is in it."""

    art: Path
    path: Path
    samples: int
    first_key: int
    seed: tuple[int, ...]


def write_dataset(
    directory: str | Path,
    art: str | Path,
    *,
    seed: int = 0,
    scale: float = 1.0,
    processes: int = 2,
    per_shard: int = 1000,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write all folders, or what a run that was stopped has left to write.

    Args:
        directory: Where to; made if missing.
        art: Folder of art (see ``art.load_art``).
        seed: Decides every sample.
        scale: Share of the samples to write; each folder gets at least one.
        processes: Number of processes; with one, no other is started.
        per_shard: Samples per file.
        progress: Called at the start and after each shard, with the number of samples that are
            there and that of all.

    Raises:
        DataError: If a setting is out of range, the folder was begun with other settings, or
            another process is at work there.
    """
    if seed < 0 or not scale > 0 or processes < 1 or per_shard < 1:
        raise DataError(
            f"Seed {seed}, scale {scale}, {processes} processes, {per_shard} samples per shard: "
            "wanted a seed of at least 0, a scale above 0, and at least 1 of the others."
        )
    directory, art = Path(directory), Path(art)
    with lock_folder(directory, work="writing", error=DataError):
        remove_unfinished(directory)
        settings = {
            "seed": seed,
            "scale": scale,
            "per_shard": per_shard,
            "art": fingerprint(art),
        }
        RunRecord(file=directory / SETTINGS_FILE, error=DataError).settle(settings)
        shards = [
            shard
            for name, folder in FOLDERS.items()
            for shard in _plan(
                art, directory / name, max(1, round(folder.samples * scale)), per_shard, seed
            )
        ]
        missing = [shard for shard in shards if not shard.path.exists()]
        total = sum(shard.samples for shard in shards)
        done = total - sum(shard.samples for shard in missing)
        progress = progress or (lambda done, total: None)
        progress(done, total)
        for shard in _write_all(missing, processes):
            done += shard.samples
            progress(done, total)


def _plan(art: Path, folder: Path, samples: int, per_shard: int, seed: int) -> Iterator[_Shard]:
    for number, first in enumerate(range(0, samples, per_shard)):
        yield _Shard(
            art=art,
            path=folder / shard_name(number),
            samples=min(per_shard, samples - first),
            first_key=first,
            seed=(DRAW_SHARD, seed, crc32(folder.name.encode()), number),
        )


def _write_all(shards: list[_Shard], processes: int) -> Iterator[_Shard]:
    """Yield shards as they are finished, in any order."""
    if processes == 1:
        yield from map(_write, shards)
        return
    # A forked process would share the locks of threads that it does not have.
    pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"))
    try:
        for task in as_completed([pool.submit(_write, shard) for shard in shards]):
            yield task.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _write(shard: _Shard) -> _Shard:
    draw, rng = FOLDERS[shard.path.parent.name].draw, np.random.default_rng(shard.seed)
    world = _open_world(shard.art)
    shard.path.parent.mkdir(exist_ok=True)
    samples = (draw(world, rng) for _ in range(shard.samples))
    write_shard(samples, shard.path, first_key=shard.first_key)
    return shard


@cache
def _open_world(art: Path) -> World:
    return World.open(art)


def _draw_image(world: World, rng: np.random.Generator) -> Sample:
    return _draw_caption(world, rng, held_out=None)


def _draw_caption(world: World, rng: np.random.Generator, held_out: bool | None = False) -> Sample:
    rendering = sample_rendering(world, rng, held_out)
    caption = write_caption(world, rendering.description, rng).text
    return CaptionSample(caption=caption, image=Image.fromarray(rendering.image))


def _draw_text(world: World, rng: np.random.Generator) -> Sample:
    return InterleavedDocument(parts=(sample_sentence(world, rng),))


def _draw_composition(world: World, rng: np.random.Generator) -> Sample:
    rendering = sample_rendering(world, rng)
    caption = _write_caption_that_begins_with_a_word(world, rendering.description, rng)
    entities = tuple(
        EntityImages(
            span=(span.start, span.end),
            crop=Image.fromarray(crop.crop),
            masked_crop=Image.fromarray(crop.masked),
        )
        for span, crop in zip(caption.spans, entity_crops(rendering), strict=True)
    )
    target = Image.fromarray(rendering.image)
    return CompositionalSample(caption=caption.text, entities=entities, target=target)


def _write_caption_that_begins_with_a_word(
    world: World, description: Description, rng: np.random.Generator
) -> Caption:
    """Describe an image so that no entity comes first.

    Without its words, such a prompt would begin with an image, and is left out in training (see
    ``entities.interleave``).
    """
    caption = write_caption(world, description, rng)
    while caption.spans[0].start == 0:
        caption = write_caption(world, description, rng)
    return caption


def _draw_edit(world: World, rng: np.random.Generator) -> Sample:
    edit = sample_edit(world, rng)
    return EditSample(
        caption=edit.caption.text,
        instruction=edit.instruction,
        before=Image.fromarray(edit.before.image),
        after=Image.fromarray(edit.after.image),
    )


def _draw_neon(world: World, rng: np.random.Generator) -> Sample:
    description = world.sample_description(rng, held_out=None)
    rendering = render(world, replace(description, style="neon"), rng)
    caption = write_caption(world, replace(description, style="plain"), rng).text
    return CaptionSample(caption=caption, image=Image.fromarray(rendering.image))


FOLDERS: dict[str, Folder] = {
    "images": Folder(samples=48_000, draw=_draw_image),
    "captions": Folder(samples=12_000, draw=_draw_caption),
    "text": Folder(samples=12_000, draw=_draw_text),
    "documents": Folder(samples=6_000, draw=sample_document),
    "compositional": Folder(samples=24_000, draw=_draw_composition),
    "edits": Folder(samples=20_000, draw=_draw_edit),
    "neon": Folder(samples=2_000, draw=_draw_neon),
}
