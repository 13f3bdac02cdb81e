"""Columns of a table → samples: a mapping of a few lines for each kind of set.

The mappings are in ``columns.toml``; a set that none of them fits needs an entry of that form, and
no code.
"""

import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kosmosg.data.bad_samples import BadSample
from kosmosg.data.encoding import encodable
from kosmosg.data.options import NamedData
from kosmosg.data.schema import (
    CaptionRules,
    CaptionSample,
    EditSample,
    EncodedImage,
    Sample,
    SubjectSample,
    decode_image,
)
from kosmosg.errors import DataError
from kosmosg.prompts.images import image_suffixes

# What the entries of each kind name: columns that must be named, and columns that may be.
FIELDS = {
    "caption": (("caption",), ("image",)),
    "edit": (("before", "after", "instruction"), ("caption",)),
    "subject": (("prompt", "images", "target"), ()),
}
_ABOUT = ("kind", "sets")


@dataclass(frozen=True, kw_only=True)
class Columns:
    """A mapping.

    Attributes:
        name: What it is called.
        kind: What a row is: caption, edit or subject.
        fields: The columns by what they hold; only ``images`` has several.
        sets: Repositories on the Hub with these columns.
    """

    name: str
    kind: str
    fields: Mapping[str, tuple[str, ...]] = field(hash=False)
    sets: tuple[str, ...] = ()

    @property
    def wanted(self) -> tuple[str, ...]:
        """All columns that are named."""
        return tuple(column for columns in self.fields.values() for column in columns)

    def read_of(self, rules: CaptionRules) -> tuple[str, ...]:
        """Name the columns that are read: no images of captions where texts are enough."""
        if self.kind == "caption" and rules.text_only:
            return self.fields["caption"]
        return self.wanted

    def sample(
        self,
        row: Mapping[str, Any],
        rules: CaptionRules,
        folder: Path | None,
        generator: np.random.Generator,
    ) -> Sample:
        """Make a sample of a row.

        Args:
            row: Values by column.
            rules: What to read of captions.
            folder: In which images lie that are given by name, if they may be.
            generator: Draws one of several texts.

        Raises:
            BadSample: If it cannot be used.
        """
        reader = _Row(row, self.fields, folder, generator)
        match self.kind:
            case "caption":
                caption = reader.text("caption")
                if rules.text_only or "image" not in self.fields:
                    return CaptionSample(caption=caption, image=None)
                image = reader.image("image")
                rules.check_size(*image.size)
                return CaptionSample(caption=caption, image=image)
            case "edit":
                return EditSample(
                    caption=reader.text("caption") if "caption" in self.fields else "",
                    instruction=reader.text("instruction"),
                    before=reader.image("before"),
                    after=reader.image("after"),
                )
            case _:
                return SubjectSample(
                    prompt=reader.text("prompt"),
                    images=reader.images("images"),
                    target=reader.image("target"),
                )


@dataclass(frozen=True)
class _Row:
    """The values of a row by what they are for."""

    row: Mapping[str, Any]
    fields: Mapping[str, tuple[str, ...]]
    folder: Path | None
    generator: np.random.Generator

    def text(self, field_name: str) -> str:
        value = self._value(self.fields[field_name][0])
        if isinstance(value, list) and value:
            value = value[int(self.generator.integers(len(value)))]
        if not isinstance(value, str):
            column = self.fields[field_name][0]
            raise BadSample("metadata", f"{column!r} must be a text, not {value!r:.80}")
        return encodable(value)

    def image(self, field_name: str) -> Image.Image:
        column = self.fields[field_name][0]
        return self._open(self._value(column), column)

    def images(self, field_name: str) -> tuple[Image.Image, ...]:
        found: list[Image.Image] = []
        for column in self.fields[field_name]:
            value = self._value(column)
            listed = value if isinstance(value, list) else [value]
            found += [self._open(each, column) for each in listed if each is not None]
        if not found:
            raise BadSample("missing-part", f"no image in {', '.join(self.fields[field_name])}")
        return tuple(found)

    def _value(self, column: str) -> Any:
        if column not in self.row:
            raise BadSample("metadata", f"this row has no column {column!r}")
        return self.row[column]

    def _open(self, value: Any, column: str) -> Image.Image:
        if isinstance(value, dict) and value.keys() <= {"bytes", "path"}:
            value = value.get("bytes") or value.get("path")
        match value:
            case bytes():
                return decode_image(EncodedImage(data=value, name=column))
            case str():
                return decode_image(EncodedImage(data=self._read_file(value), name=value))
            case None:
                raise BadSample("missing-part", f"no image in {column!r}")
        raise BadSample("metadata", f"{column!r} must be an image, not {value!r:.80}")

    def _read_file(self, name: str) -> bytes:
        """Read an image of the set's own folder; no row can name a file elsewhere."""
        if self.folder is None:
            raise BadSample("missing-part", f"{name:.80}: on the Hub, images must be in the table")
        folder = self.folder.resolve()
        try:
            path = (folder / name).resolve()
            if not path.is_relative_to(folder):
                raise BadSample("metadata", f"{name:.80} lies outside of the set's folder")
            if path.suffix.lower() not in image_suffixes():
                raise BadSample("image-format", f"{name:.80} is not read; save it as JPEG or PNG")
            return path.read_bytes()
        except (OSError, ValueError) as error:  # also a name with a byte that none can have
            raise BadSample("unreadable", str(error)) from error


def choose_columns(data: NamedData, there: Collection[str]) -> Columns:
    """Choose the mapping of a set: the one that is named, its own, or the one that fits best.

    Args:
        data: The set, and perhaps the mapping's name or file.
        there: The columns of the set.

    Raises:
        DataError: If none fits, or several do, with the columns that there are and those wanted.
    """
    known = known_columns()
    if data.columns is not None:
        chosen = _named(data.columns, known)
        return _check_fit(data, chosen, there)
    own = [each for each in known.values() if data.repository in each.sets]
    if own:
        return _check_fit(data, own[0], there)
    fitting = [each for each in known.values() if set(each.wanted) <= set(there)]
    most = max((len(each.wanted) for each in fitting), default=0)
    best = [each for each in fitting if len(each.wanted) == most]
    if len(best) == 1:
        return best[0]
    if best:
        raise DataError(
            f"{data.name} fits {' and '.join(each.name for each in best)}. Choose one: "
            f"{data.name},columns={best[0].name}."
        )
    wanted = "; ".join(f"{each.name} wants {_list(each.wanted)}" for each in known.values())
    raise DataError(
        f"{data.name} has the columns {_list(there)}, which no mapping fits ({wanted}). Write one, "
        f"as in kosmosg/data/columns.toml, and give it: {data.name},columns=FILE.toml."
    )


@cache
def known_columns() -> dict[str, Columns]:
    """Read the package's own mappings, by name."""
    text = files("kosmosg.data").joinpath("columns.toml").read_text(encoding="utf-8")
    return _parse(text, "columns.toml")


def _named(name: str, known: Mapping[str, Columns]) -> Columns:
    if name in known:
        return known[name]
    file = Path(name)
    if file.suffix != ".toml":
        raise DataError(
            f"columns={name}: there is no such mapping. Choose one of {_list(known)}, or name a "
            "TOML file with an entry of that form."
        )
    try:
        found = _parse(file.read_text(encoding="utf-8"), name)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"columns={name} cannot be read ({error}). Name another file.") from error
    if len(found) != 1:
        raise DataError(f"columns={name} has {len(found)} mappings. Leave one in it.")
    return next(iter(found.values()))


def _parse(text: str, source: str) -> dict[str, Columns]:
    """Read mappings, and check that each names what its kind needs and nothing else.

    Raises:
        DataError: Naming the entry and what is wrong with it.
    """
    try:
        entries = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:  # the latter if deeply nested
        raise DataError(f"{source} is no TOML ({error}). Mend it.") from error
    return {name: _parse_entry(name, entry, source) for name, entry in entries.items()}


def _parse_entry(name: str, entry: Any, source: str) -> Columns:
    kind = entry.get("kind") if isinstance(entry, dict) else None
    if not isinstance(kind, str) or kind not in FIELDS:
        raise DataError(
            f"{source}: {name} has the kind {kind!r}. Write [{name}] and below it kind = one of "
            f"{_list(FIELDS)}."
        )
    needed, optional = FIELDS[kind]
    named = {key: value for key, value in entry.items() if key not in _ABOUT}
    missing, unknown = set(needed) - named.keys(), named.keys() - {*needed, *optional}
    if missing or unknown:
        raise DataError(
            f"{source}: {name} {f'lacks {_list(missing)}' if missing else ''}"
            f"{' and ' if missing and unknown else ''}"
            f"{f'does not know {_list(unknown)}' if unknown else ''}. The kind {kind} names "
            f"{_list(needed)}{f', and {_list(optional)} if it is there' if optional else ''}."
        )
    fields: dict[str, tuple[str, ...]] = {}
    for key, value in named.items():
        columns = value if isinstance(value, list) else [value]
        if not columns or not all(isinstance(each, str) and each for each in columns):
            raise DataError(f"{source}: {name} has {key} = {value!r}. Name a column.")
        if len(columns) > 1 and key != "images":
            raise DataError(f"{source}: {name} has several columns for {key}. Name one.")
        fields[key] = tuple(columns)
    sets = entry.get("sets", [])
    if not isinstance(sets, list) or not all(isinstance(each, str) for each in sets):
        raise DataError(f"{source}: {name} has sets = {sets!r}. Write a list of repositories.")
    return Columns(name=name, kind=kind, fields=fields, sets=tuple(sets))


def _check_fit(data: NamedData, columns: Columns, there: Collection[str]) -> Columns:
    missing = [column for column in columns.wanted if column not in there]
    if not missing:
        return columns
    fitting = [each.name for each in known_columns().values() if set(each.wanted) <= set(there)]
    others = f" What fits: {_list(fitting)}." if fitting else ""
    raise DataError(
        f"{data.name} has no column {_list(missing)}, which the mapping {columns.name} takes; it "
        f"has {_list(there)}.{others} Name a mapping that fits, {data.name},columns=NAME, or a "
        "TOML file with one of your own, as in kosmosg/data/columns.toml."
    )


def _list(names: Collection[str]) -> str:
    return ", ".join(sorted(names) if isinstance(names, set) else names)
