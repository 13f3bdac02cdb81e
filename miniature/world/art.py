"""The artwork that the world is made of: public emoji sets, or a folder of anybody's own.

A folder of art has transparent PNGs, named by nouns:

    clay/fox.png, clay/car.png, …  a set that entities come from; its name is a word of captions
    flat/fox.png, flat/car.png, …  another one, of the same nouns
    accessories/hat.png, …         what a figure can wear; may be missing
    unseen/fox.png, …              a set that no training sees, for evaluation; may be missing

PNGs at the top of a folder are its only set, which captions have no word for.
"""

import base64
import hashlib
import json
import re
import subprocess
import tarfile
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from kosmosg.errors import DataError
from kosmosg.utils.files import atomic_folder, reason

ART = Path("outputs/art")  # where the public art is kept
LIST = Path(__file__).with_name("art.toml")
CLAY, FLAT, UNSEEN, ACCESSORIES = "clay", "flat", "unseen", "accessories"
SPRITE = 224  # longest side of a sprite in a folder that is made here, in pixels
MAX_PIXELS = 16_000_000
NAME = re.compile(r"[a-z]+([ -][a-z]+){0,2}")  # at most three words: CLIP reads 32 tokens
OWN = "--art FOLDER takes transparent PNGs of your own instead."


@dataclass(frozen=True)
class Package:
    """A published npm package; the hash is the one that the registry gives for this version."""

    name: str
    version: str
    integrity: str


@dataclass(frozen=True)
class Art:
    """Sprites: RGBA images, cut to what is not transparent.

    Attributes:
        sets: By name and noun; all have the same nouns in the same order.
        accessories: By name.
        unseen: By noun, some of the nouns of the sets.
    """

    sets: Mapping[str, Mapping[str, Image.Image]]
    accessories: Mapping[str, Image.Image]
    unseen: Mapping[str, Image.Image]

    @cached_property
    def nouns(self) -> tuple[str, ...]:
        """All nouns, in fixed order."""
        return tuple(next(iter(self.sets.values())))


def load_art(folder: str | Path) -> Art:
    """Open a folder of art.

    Raises:
        DataError: If there are no sets, their nouns differ, or a file is no transparent image or
            has a name that captions cannot hold.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(
            f"{folder} is no folder. Name one with transparent PNGs: fox.png, car.png, …"
        )
    parts = {each.name: each for each in sorted(folder.iterdir()) if each.is_dir()}
    accessories, unseen = parts.pop(ACCESSORIES, None), parts.pop(UNSEEN, None)
    top = _load_folder(folder)
    sets = {"": top} if top else {_name(each): _load_folder(each) for each in parts.values()}
    sets = {name: sprites for name, sprites in sets.items() if sprites}
    if not sets:
        raise DataError(f"{folder} has no PNGs. Put some with transparent ground there: fox.png, …")
    first, *others = sets.items()
    if len(first[1]) < 2:
        raise DataError(f"{folder} has one noun only. Captions need at least two to tell apart.")
    for name, sprites in others:
        if differing := sorted(sprites.keys() ^ first[1].keys()):
            raise DataError(
                f"{folder}: {differing[0]}.png is in one of the sets {first[0]} and {name} alone. "
                "Give every set the same nouns."
            )
    found = {} if unseen is None else _load_folder(unseen)
    return Art(
        sets=sets,
        accessories={} if accessories is None else _load_folder(accessories),
        unseen={noun: image for noun, image in found.items() if noun in first[1]},
    )


def open_art(folder: str | Path | None) -> Path:
    """Give the folder of art that is named, or the public one, which is fetched if need be."""
    return fetch_art(ART) if folder is None else Path(folder)


def fetch_art(folder: str | Path) -> Path:
    """Make the folder of the public art, unless it is there.

    Args:
        folder: Where to; appears when everything is in it.

    Raises:
        DataError: If a package cannot be had as it was published, or a renderer is missing.
    """
    folder = Path(folder)
    if folder.is_dir():
        return folder
    try:
        with atomic_folder(folder) as unfinished:
            _unpack(tomllib.loads(LIST.read_text(encoding="utf-8")), unfinished)
    except OSError as error:
        raise DataError(f"{folder} cannot be written ({reason(error)}). Name another.") from error
    return folder


def _unpack(art: dict[str, Any], folder: Path) -> None:
    """Fetch the packages, and write what is needed of them."""
    nouns, worn, unseen = art["nouns"], art["accessories"], art["unseen"]
    with tarfile.open(fileobj=BytesIO(_download(Package(**art["fluent"])))) as fluent:
        for noun, code in nouns.items():
            _write(_webp(fluent, code), folder / CLAY / f"{noun}.png")
        for name, code in worn.items():
            _write(_webp(fluent, code), folder / ACCESSORIES / f"{name}.png")
    icons, names = _icons(Package(**art["noto"]))
    for noun, code in nouns.items():
        _write(_render(icons, names[code]), folder / FLAT / f"{noun}.png")
    icons, _ = _icons(Package(**art["firefox"]))
    for noun, name in unseen.items():
        _write(_render(icons, name), folder / UNSEEN / f"{noun}.png")


def _download(package: Package) -> bytes:
    """Let npm fetch a package, and compare it with what was published."""
    wanted = f"{package.name}@{package.version}"
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", wanted, "--silent", "--pack-destination", folder]
        try:
            subprocess.run(  # noqa: S603  # all of it stands in our list
                command, check=True, capture_output=True, text=True, timeout=600
            )
            content = next(Path(folder).glob("*.tgz")).read_bytes()
        except FileNotFoundError as error:
            raise DataError(f"{wanted}: there is no npm. Install Node.js; or {OWN}") from error
        except subprocess.SubprocessError as error:
            told = (getattr(error, "stderr", None) or str(error)).strip().splitlines()[-1:]
            raise DataError(
                f"{wanted} cannot be fetched ({' '.join(told) or 'npm failed'}). Look whether npm "
                f"reaches its registry; or {OWN}"
            ) from error
    found = f"sha512-{base64.b64encode(hashlib.sha512(content).digest()).decode()}"
    if found != package.integrity:
        raise DataError(
            f"{wanted} is not what was published under this version ({found} instead of "
            f"{package.integrity}). Use npm's own registry; or {OWN}"
        )
    return content


def _webp(package: tarfile.TarFile, code: str) -> Image.Image:
    member = package.extractfile(f"package/assets/{code}.webp")
    assert member is not None, code
    return Image.open(BytesIO(member.read())).convert("RGBA")


def _icons(package: Package) -> tuple[dict, dict[str, str]]:
    """Read the icons of a package and their names by code point."""
    with tarfile.open(fileobj=BytesIO(_download(package))) as opened:
        icons, names = (
            json.load(opened.extractfile(f"package/{name}.json"))  # type: ignore[arg-type]
            for name in ("icons", "chars")
        )
    return icons, names


def _render(icons: dict, name: str) -> Image.Image:
    try:
        import resvg_py
    except ModuleNotFoundError as error:
        raise DataError(
            f"There is no resvg_py, which renders the art: pip install -e '.[miniature]'; or {OWN}"
        ) from error
    icon = icons["icons"][name]
    width, height = (icon.get(key, icons[key]) for key in ("width", "height"))
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {width} {height}">{icon["body"]}</svg>'
    )
    png = resvg_py.svg_to_bytes(svg_string=svg, width=256, height=256, skip_system_fonts=True)
    return Image.open(BytesIO(bytes(png))).convert("RGBA")


def _write(image: Image.Image, file: Path) -> None:
    file.parent.mkdir(exist_ok=True)
    image = image.crop(image.getchannel("A").getbbox())
    image.thumbnail((SPRITE, SPRITE), Image.Resampling.LANCZOS)
    image.save(file)


def _load_folder(folder: Path) -> dict[str, Image.Image]:
    return {_name(file): _load(file) for file in sorted(folder.glob("*.png"))}


def _name(file: Path) -> str:
    if not NAME.fullmatch(file.stem):
        raise DataError(
            f"{file}: the name becomes part of captions, whose tokenizers hold small letters from "
            "a to z alone. Rename it to one to three such words, as in fox.png or teddy-bear.png."
        )
    return file.stem.replace("-", " ")


def _load(file: Path) -> Image.Image:
    try:
        with Image.open(file, formats=["PNG"]) as image:
            if image.width * image.height > MAX_PIXELS:
                raise DataError(f"{file} has more than {MAX_PIXELS:,} pixels. Scale it down.")
            has_alpha = image.has_transparency_data
            image = image.convert("RGBA")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{file} is no PNG that can be read ({error}). Save it again.") from error
    darkest, brightest = image.getchannel("A").getextrema()
    if not has_alpha or darkest == 255 or brightest == 0:
        raise DataError(
            f"{file} has no transparent ground around what it shows. Cut its subject out and save "
            "it as PNG with alpha."
        )
    visible = image.getchannel("A").point([0] * 9 + [255] * 247)  # not what is all but clear
    image = image.crop(visible.getbbox())
    image.thumbnail((SPRITE, SPRITE), Image.Resampling.LANCZOS)
    return image
