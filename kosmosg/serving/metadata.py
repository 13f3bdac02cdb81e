"""Images → files that say how they were made."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from kosmosg.errors import ImageError, SettingError
from kosmosg.utils.files import atomic_file

FORMATS = {"webp": "WEBP", "jpg": "JPEG", "jpeg": "JPEG", "png": "PNG"}
PNG_KEY = "parameters"
EXIF_IFD, USER_COMMENT = 0x8769, 0x9286
COMMENT_PREFIX = b"UNICODE\x00"  # EXIF 2.3, section 4.6.5: the comment's character code
# Characters of a prompt. A JPEG's EXIF block ends at 64 KB, and two texts of this length, at four
# bytes a character, take half of it.
MAX_TEXT = 4_000


def save_image(image: Image.Image, path: Path, *, quality: int, recipe: Mapping[str, Any]) -> Path:
    """Write an image, with the recipe that made it in its metadata.

    Args:
        image: The image.
        path: Where to; the suffix decides the format. The file appears whole or not at all.
        quality: 0 to 100; PNG loses nothing and ignores it.
        recipe: Prompt, seed and so on.

    Raises:
        SettingError: If the format is unknown.
        OSError: If the file cannot be written.
    """
    kind = check_format(path)
    short = {key: _shorten(value) for key, value in recipe.items()} | {"software": "KOSMOS-G"}
    text = json.dumps(short, ensure_ascii=False)
    with atomic_file(path) as unfinished:
        if kind == "PNG":
            info = PngInfo()
            info.add_itxt(PNG_KEY, text)
            image.save(unfinished, format=kind, pnginfo=info)
        else:
            exif = Image.Exif()
            exif.get_ifd(EXIF_IFD)[USER_COMMENT] = COMMENT_PREFIX + text.encode("utf-16-be")
            image.save(unfinished, format=kind, quality=quality, exif=exif)
    return path


def check_format(path: Path) -> str:
    """Find the format that a file name asks for.

    Raises:
        SettingError: If it asks for none that is known.
    """
    kind = FORMATS.get(path.suffix.lower().removeprefix("."))
    if kind is None:
        raise SettingError(f"{path.name}: the suffix must be one of {', '.join(FORMATS)}.")
    return kind


def read_recipe(path: Path) -> dict[str, Any]:
    """Read back the recipe of an image that ``save_image`` wrote.

    Raises:
        ImageError: If it has none.
    """
    with Image.open(path) as image:
        image.load()
        comment = image.getexif().get_ifd(EXIF_IFD).get(USER_COMMENT, b"")
        text = image.info.get(PNG_KEY)
    if text is None and isinstance(comment, bytes) and comment.startswith(COMMENT_PREFIX):
        text = comment.removeprefix(COMMENT_PREFIX).decode("utf-16-be")
    if text is None:
        raise ImageError(f"{path.name} does not say how it was made.")
    return json.loads(text)


def _shorten(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    # Control characters take six bytes each as JSON; a lone surrogate cannot be encoded at all.
    kept = (c if c.isprintable() or c == "\n" else " " for c in value[:MAX_TEXT])
    return "".join(kept).encode("utf-8", "replace").decode("utf-8")
