"""The authors' data sets as shards: tab-separated lines with images in base64 become tar files.

    python -m scripts.convert_tsv openimages FOLDER OUTPUT

As the authors' readers take it, a set is a folder with an index ``json/train.json``, a list of
groups ``{"source": [files], "weight": number}`` (or ``"count"``). The files lie in ``data/``, those
of captions in the folder itself:

    captions         unused, caption, image, width, height
    instructpix2pix  caption, instruction, then pairs of images (before, after)
    openimages       caption, comma-separated tags, image, then for each tag (crop, masked crop)

Each file becomes a shard, with the images as they are; an edit with several pairs becomes as many
samples. Several groups become several folders. What is printed in the end is what ``--data`` takes.
The same command goes on after a kill: shards that are there are not written again.
"""

import argparse
import base64
import binascii
import json
import logging
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from kosmosg.data.bad_samples import BadSample, BadSampleLimit, SkipLog
from kosmosg.data.entities import match_tags
from kosmosg.data.shards import shard_name, write_files
from kosmosg.errors import DataError, KosmosGError
from kosmosg.prompts.images import image_suffixes
from kosmosg.utils.files import RunRecord, reason

Columns = list[bytes]
Files = dict[str, bytes]  # of a sample, by their names behind its key
INDEX = Path("json") / "train.json"


def convert(kind: str, folder: Path, output: Path) -> list[str]:
    """Convert a data set.

    Args:
        kind: A key of ``PARSERS``.
        folder: Of the set.
        output: Folder for the shards.

    Returns:
        What to name to ``--data``, group by group.

    Raises:
        DataError: If the set is not as described above, too much of it cannot be used, or the
            output is of another one.
        OSError: If it cannot be written.
    """
    groups = [(names, weight) for names, weight in read_index(folder / INDEX) if weight]
    output.mkdir(parents=True, exist_ok=True)
    RunRecord(file=output / "conversion.json", error=DataError).settle({kind: groups})
    lines = folder if kind == "captions" else folder / "data"
    folders = [output] if len(groups) == 1 else [output / str(n) for n in range(len(groups))]
    for shards, (names, _) in zip(folders, groups, strict=True):
        log = SkipLog(str(folder), BadSampleLimit())
        for number, name in enumerate(tqdm(names, desc=shards.name, unit=" files")):
            shard = shards / shard_name(number)
            if not shard.exists():
                write_files(read_samples(lines / name, PARSERS[kind], log), shard)
    return [f"{shards}:{weight:g}" for shards, (_, weight) in zip(folders, groups, strict=True)]


def read_samples(
    file: Path, parse: Callable[[Columns], list[Files]], log: SkipLog
) -> Iterator[Files]:
    """Read all samples of a file; a line that cannot be used is counted and told.

    Raises:
        DataError: If the file cannot be read, or too many lines cannot be used.
    """
    try:
        with file.open("rb") as opened:
            for number, line in enumerate(opened, start=1):
                try:
                    samples = parse(line.rstrip(b"\r\n").split(b"\t"))
                except BadSample as fault:
                    log.count_bad(fault, f"{file.name}, line {number}")
                else:
                    log.count_good()
                    yield from samples
    except OSError as error:
        raise DataError(
            f"{file} cannot be read ({reason(error)}). Fetch it, or take it out of {INDEX}."
        ) from error


def parse_caption(columns: Columns) -> list[Files]:
    """Read a line of a caption set; sizes are those of the images themselves."""
    check_columns(columns, len(columns) == 5, "5")
    return [to_files({"kind": "caption", "caption": to_text(columns[1])}, image=columns[2])]


def parse_edit(columns: Columns) -> list[Files]:
    """Read a line of InstructPix2Pix."""
    pairs, odd = divmod(len(columns) - 2, 2)
    check_columns(columns, pairs >= 1 and not odd, "2 and one or more pairs")
    edit = {"kind": "edit", "caption": to_text(columns[0]), "instruction": to_text(columns[1])}
    return [
        to_files(edit, before=columns[place], after=columns[place + 1])
        for place in range(2, len(columns), 2)
    ]


def parse_compositional(columns: Columns) -> list[Files]:
    """Read a line of OpenImages; only images of tags that the caption names are taken."""
    check_columns(columns, len(columns) >= 3, "3 and a pair for each tag")
    caption, listed = to_text(columns[0]), to_text(columns[1])
    tags = listed.split(",") if listed.strip() else []
    wanted = 3 + 2 * len(tags)
    check_columns(columns, len(columns) == wanted, f"{wanted} for {len(tags)} tags")
    matches = match_tags(caption, tags)
    entities = [{"start": match.start, "end": match.end} for match in matches]
    images = {"target": columns[2]}
    for number, match in enumerate(matches):
        images[f"crop{number}"] = columns[3 + 2 * match.tag]
        images[f"masked{number}"] = columns[4 + 2 * match.tag]
    metadata = {"kind": "compositional", "caption": caption, "entities": entities}
    return [to_files(metadata, **images)]


PARSERS = {
    "captions": parse_caption,
    "instructpix2pix": parse_edit,
    "openimages": parse_compositional,
}


def check_columns(columns: Columns, right: bool, wanted: str) -> None:
    """Refuse a line of another width.

    Raises:
        BadSample: With both numbers.
    """
    if not right:
        raise BadSample("metadata", f"{len(columns)} columns, wanted {wanted}")


def to_text(column: bytes) -> str:
    """Read a column of text.

    Raises:
        BadSample: If it is not UTF-8.
    """
    try:
        return column.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadSample("encoding", str(error)) from error


def to_files(metadata: dict[str, Any], **images: bytes) -> Files:
    """Make the files of a sample from its metadata and its images in base64.

    Raises:
        BadSample: If a column holds no image that shards can have.
    """
    files = {"json": json.dumps(metadata, ensure_ascii=False).encode()}
    for name, column in images.items():
        try:
            data = base64.b64decode(column, validate=True)
            with Image.open(BytesIO(data)) as image:  # its header alone
                extension = str(image.format).lower()
        except (binascii.Error, UnidentifiedImageError, OSError) as error:
            raise BadSample("image", f"{name}: {reason(error)}") from error
        if f".{extension}" not in image_suffixes():
            raise BadSample("image-format", f"{name} is {extension}; save it as JPEG or PNG")
        files[f"{name}.{extension}"] = data
    return files


def read_index(path: Path) -> list[tuple[list[str], float]]:
    """Read which files there are, group by group, and how often each group is to be read.

    Raises:
        DataError: If the index is missing or of another form.
    """
    try:
        groups = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"The data set has no index: {path} ({reason(error)}).") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON ({error}). Fetch it again.") from error
    if not isinstance(groups, list) or not groups:
        raise DataError(f"{path}: wanted a list of groups, found {groups!r:.80}.")
    return [read_group(group, path) for group in groups]


def read_group(group: Any, path: Path) -> tuple[list[str], float]:
    """Read a group of the index.

    Raises:
        DataError: If it is of another form.
    """
    match group:
        case {"source": [*names], "weight": int(weight) | float(weight)}:
            pass
        case {"source": [*names], "count": int(weight) | float(weight)}:
            pass
        case _:
            names, weight = [], 0.0
    if not names or not all(isinstance(name, str) for name in names) or not weight >= 0:
        raise DataError(
            f"{path}: wanted groups such as {{'source': ['0000.tsv'], 'weight': 1}}, found "
            f"{group!r:.120}."
        )
    return names, float(weight)


def main() -> None:
    """Read the command line, and convert."""
    logging.basicConfig(format="%(message)s")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=PARSERS, help="which of the three layouts it has")
    parser.add_argument("folder", type=Path, help="of the data set")
    parser.add_argument("output", type=Path, help="folder for the shards")
    options = parser.parse_args()
    try:
        for named in convert(options.kind, options.folder, options.output):
            print(named)
    except KosmosGError as error:
        raise SystemExit(f"error: {error}") from error
    except OSError as error:
        raise SystemExit(f"error: {options.output} cannot be written: {reason(error)}.") from error


if __name__ == "__main__":
    main()
