"""InstructPix2Pix as its authors publish it, CLIP-filtered, to samples of edits.

    seeds.json                    [["0000000", ["12345", …]], …]: folders, and the pairs in each
    0000000/prompt.json           {"input": caption, "edit": instruction, "output": …}
    0000000/12345_0.jpg, …_1.jpg  before and after

Facts sheet, section 13. A prompt with several pairs becomes as many samples; the authors' readers
pick one of its pairs at each reading.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image

from kosmosg.curation.records import Outcome, Record, RecordSource, one_by_one
from kosmosg.curation.sources import MAX_TEXT, ByteRange, Place, divide_folder, printable, read_file
from kosmosg.data.bad_samples import BadSample
from kosmosg.data.encoding import encodable, encode_sample
from kosmosg.data.options import ImageFormat
from kosmosg.data.schema import EditSample, EncodedImage, decode_image
from kosmosg.errors import CurationError
from kosmosg.prompts.images import MAX_PIXELS

SEEDS_FILE, PROMPT_FILE = "seeds.json", "prompt.json"


def open_edits(path: Path, per_shard: int) -> RecordSource:
    """Open the folder of the CLIP-filtered set.

    Raises:
        CurationError: If its list of seeds is missing or of another form.
    """
    file = path / SEEDS_FILE
    try:
        listed = json.loads(file.read_bytes())
    except OSError as error:
        raise CurationError(
            f"{file} cannot be read ({error.strerror}). Name the folder of the CLIP-filtered set, "
            f"which has a {SEEDS_FILE}."
        ) from error
    except (ValueError, RecursionError) as error:
        raise CurationError(f"{file} is not JSON ({error}). Fetch it again.") from error
    # A pair that is listed twice is one pair.
    names = list(dict.fromkeys(name for entry in _entries(listed, file) for name in entry))
    return divide_folder("edits", path, names, _find_pair, per_shard)


def _find_pair(root: Path, name: str) -> dict[str, Place]:
    """Name the files of a pair, which is a folder and a seed: ``0000000/12345``."""
    return {
        "prompt": ByteRange(root / Path(name).parent / PROMPT_FILE),
        "before": ByteRange(root / f"{name}_0.jpg"),
        "after": ByteRange(root / f"{name}_1.jpg"),
    }


@dataclass(frozen=True, kw_only=True)
class ReadEdits:
    """Reads prompts and pairs of images.

    Attributes:
        side: What the shorter side of the images is scaled to, in pixels.
        image_format: Of their files.
    """

    side: int = 512
    image_format: ImageFormat = "PNG"
    name: str = field(default="read", init=False)
    batch: int = field(default=64, init=False)

    def __call__(self, records: Sequence[Record]) -> list[Outcome]:
        """Finish some records."""
        return one_by_one(self._read, records)

    def _read(self, record: Record) -> Record:
        caption, instruction = read_prompt(read_file(record.places["prompt"], MAX_TEXT))
        sample = EditSample(
            caption=caption,
            instruction=instruction,
            before=self._image(record, "before"),
            after=self._image(record, "after"),
        )
        files = encode_sample(sample, self.image_format, source=record.key)
        return replace(record, caption=caption, files=files)

    def _image(self, record: Record, name: str) -> Image.Image:
        data = read_file(record.places[name])
        image = decode_image(EncodedImage(data=data, name=name))
        scale = self.side / min(image.size)
        size = (round(image.width * scale), round(image.height * scale))
        if size[0] * size[1] > MAX_PIXELS:
            raise BadSample("image", f"{size[0]} × {size[1]} pixels at this size are too many")
        return image if image.size == size else image.resize(size, Image.Resampling.BICUBIC)


def read_prompt(data: bytes) -> tuple[str, str]:
    """Read caption and instruction.

    Raises:
        BadSample: If one is missing.
    """
    try:
        prompt = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadSample("metadata", f"{PROMPT_FILE} does not parse ({error})") from error
    match prompt:
        case {"input": str(caption), "edit": str(instruction)} if instruction.strip():
            return encodable(caption.strip()), encodable(instruction.strip())
    raise BadSample("metadata", f"{PROMPT_FILE} has no 'input' and 'edit', but {prompt!r:.120}")


def _entries(listed: Any, file: Path) -> list[list[str]]:
    if not isinstance(listed, list):
        raise CurationError(f"{file} is no list of folders and seeds, but {listed!r:.80}.")
    return [_names(entry, file) for entry in listed]


def _names(entry: Any, file: Path) -> list[str]:
    match entry:
        case [str(folder), [*seeds]] if _plain(folder) and all(_plain(str(each)) for each in seeds):
            return [f"{folder}/{seed}" for seed in seeds]
    raise CurationError(f"{file}: wanted a folder and its seeds, found {entry!r:.120}.")


def _plain(name: str) -> bool:
    """Tell whether a name can be one, and stays in its folder."""
    return name not in ("", ".", "..") and not set("/\0") & set(name) and printable(name) == name
