"""Writing samples as WebDataset shards, in the form that ``shards`` describes."""

import json
import shutil
from collections.abc import Iterable, Mapping
from io import BytesIO
from itertools import chain, islice
from pathlib import Path
from typing import Any

from PIL import Image
from webdataset.writer import TarWriter

from kosmosg.data.options import ImageFormat
from kosmosg.data.schema import (
    CaptionSample,
    CompositionalSample,
    EditSample,
    InterleavedDocument,
    Sample,
    open_picture,
)
from kosmosg.errors import DataError
from kosmosg.utils.files import atomic_file

_EXTENSION = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp"}
_SAVE_OPTIONS: dict[str, dict[str, Any]] = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True}}


def write_shards(
    samples: Iterable[Sample],
    directory: str | Path,
    *,
    per_shard: int = 1000,
    image_format: ImageFormat = "PNG",
) -> tuple[Path, ...]:
    """Write samples as a folder of shards; equal samples give equal bytes.

    The folder appears when everything is in it: one that is there is complete.

    Args:
        samples: Anything that yields samples; they are written as they come.
        directory: The folder, which must not exist yet.
        per_shard: Samples per file.
        image_format: Of the pictures; PNG and WebP are lossless.

    Raises:
        DataError: If the folder exists.
    """
    directory = Path(directory)
    if directory.exists():
        raise DataError(f"{directory} exists already. Remove it, or name another folder.")
    unfinished = directory.with_name(directory.name + ".part")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    remaining = iter(samples)
    for number, first in enumerate(remaining):
        write_shard(
            chain([first], islice(remaining, per_shard - 1)),
            unfinished / shard_name(number),
            first_key=number * per_shard,
            image_format=image_format,
        )
    unfinished.rename(directory)
    return tuple(sorted(directory.glob("*.tar")))


def write_shard(
    samples: Iterable[Sample], path: Path, *, first_key: int = 0, image_format: ImageFormat = "PNG"
) -> None:
    """Write samples as one shard, which appears when everything is in it.

    Args:
        samples: Anything that yields samples.
        path: The file; its folder must be there.
        first_key: Number of the first sample, so that keys differ from shard to shard.
        image_format: Of the pictures; PNG and WebP are lossless.
    """
    encoded = (encode_sample(sample, image_format) for sample in samples)
    write_files(encoded, path, first_key=first_key)


def write_files(samples: Iterable[Mapping[str, bytes]], path: Path, *, first_key: int = 0) -> None:
    """Write samples that are encoded already as one shard, as ``write_shard`` does.

    Args:
        samples: For each, its files by their names behind the key, such as ``target.png``.
        path: The file; its folder must be there.
        first_key: Number of the first sample, so that keys differ from shard to shard.
    """
    with (
        atomic_file(path) as unfinished,
        unfinished.open("wb") as file,
        TarWriter(file, mtime=0) as writer,
    ):
        for key, files in enumerate(samples, start=first_key):
            writer.write({"__key__": f"{key:09d}", **files})


def shard_name(number: int) -> str:
    """Name the shards of a folder so that their order is that of the alphabet."""
    return f"{number:06d}.tar"


def encode_sample(
    sample: Sample, image_format: ImageFormat = "PNG", **notes: str
) -> dict[str, bytes]:
    """Turn a sample into the files that stand for it.

    Args:
        sample: Any sample.
        image_format: Of the pictures; PNG and WebP are lossless.
        notes: Further entries for its JSON, which readers pass over, such as where it is from.

    Returns:
        The files by their names behind the key, such as ``json`` and ``target.png``.
    """
    metadata, images = _describe(sample)
    parts = {"json": json.dumps(metadata | notes, ensure_ascii=False).encode()}
    for name, image in images.items():
        buffer = BytesIO()
        image.save(buffer, format=image_format, **_SAVE_OPTIONS.get(image_format, {}))
        parts[f"{name}.{_EXTENSION[image_format]}"] = buffer.getvalue()
    return parts


def _describe(sample: Sample) -> tuple[dict[str, Any], dict[str, Image.Image]]:
    match sample:
        case CaptionSample(caption=caption, image=image):
            metadata = {"kind": "caption", "caption": caption}
            return metadata, {} if image is None else {"image": image}
        case EditSample(caption=caption, instruction=instruction):
            metadata = {"kind": "edit", "caption": caption, "instruction": instruction}
            return metadata, {"before": sample.before, "after": sample.after}
        case CompositionalSample(caption=caption, entities=entities):
            spans = [{"start": entity.span[0], "end": entity.span[1]} for entity in entities]
            images = {"target": sample.target}
            for number, entity in enumerate(entities):
                images[f"crop{number}"] = open_picture(entity.crop)
                images[f"masked{number}"] = open_picture(entity.masked_crop)
            return {"kind": "compositional", "caption": caption, "entities": spans}, images
        case InterleavedDocument(parts=parts):
            images = {}
            listed: list[str | dict[str, int]] = []
            for part in parts:
                if isinstance(part, str):
                    listed.append(part)
                else:
                    listed.append({"image": len(images)})
                    images[f"image{len(images)}"] = part
            return {"kind": "interleaved", "parts": listed}, images
