"""The list of what can be fetched: ``manifest.toml`` beside this module, or another of its form."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import Any

from kosmosg.errors import DownloadError
from kosmosg.utils.files import reason

_FIELDS = {"name": str, "url": str, "path": str, "size": int, "sha256": str, "note": str}


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """One file that can be fetched.

    Attributes:
        name: What it is called in messages and on the command line; unique.
        url: An http or https address; may hold ``${VARIABLE}`` or ``${VARIABLE:-default}``.
        path: Where it goes, relative to the weights folder.
        size: Bytes, if known.
        sha256: Lower-case hexadecimal, if known.
        note: What somebody who lacks the variable should know.
    """

    name: str
    url: str
    path: PurePosixPath
    size: int | None = None
    sha256: str | None = None
    note: str | None = None


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The groups of files that can be fetched, and the groups that are fetched unasked."""

    source: str
    default: tuple[str, ...]
    groups: Mapping[str, tuple[RemoteFile, ...]]

    def choose(self, groups: Sequence[str] | None) -> list[RemoteFile]:
        """List the files of groups, or of those that are fetched unasked.

        Raises:
            DownloadError: If there is no such group.
        """
        names = dict.fromkeys(self.default if groups is None else groups)
        for name in names:
            if name not in self.groups:
                raise DownloadError(
                    f"{self.source}: no group {name!r}; there are {', '.join(self.groups)}."
                )
        return [file for name in names for file in self.groups[name]]


def read_manifest(path: Path | None = None) -> Manifest:
    """Read a manifest, the package's own by default.

    Raises:
        DownloadError: It is missing or not TOML; a file lacks a field, has one too many or one of
            the wrong kind; two files share a name or a path; a path leaves the weights folder.
    """
    source = path or files("kosmosg.checkpoints") / "manifest.toml"
    try:
        groups = tomllib.loads(source.read_text(encoding="utf-8"))
    except OSError as error:
        raise DownloadError(f"{source}: cannot be read ({reason(error)}).") from error
    except ValueError as error:
        raise DownloadError(f"{source}: is not TOML: {error}.") from error
    default = groups.pop("default", list(groups))
    manifest = Manifest(
        source=str(source),
        default=tuple(_listed(default)),
        groups={
            group: tuple(
                _remote_file(entry, f"{source}, group {group}") for entry in _listed(entries)
            )
            for group, entries in groups.items()
        },
    )
    manifest.choose(None)
    every = [file for files in manifest.groups.values() for file in files]
    for attribute in ("name", "path"):
        values = [getattr(file, attribute) for file in every]
        if twice := sorted({str(value) for value in values if values.count(value) > 1}):
            raise DownloadError(f"{source}: {attribute} used twice: {', '.join(twice)}.")
    return manifest


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _remote_file(entry: Any, where: str) -> RemoteFile:
    if not isinstance(entry, dict):
        raise DownloadError(f"{where}: write each file as [[group]], with name, url and path.")
    where = f"{where}, file {entry.get('name', '?')}"
    if missing := {"name", "url", "path"} - set(entry):
        raise DownloadError(f"{where}: lacks {', '.join(sorted(missing))}.")
    for key, value in entry.items():
        if key not in _FIELDS:
            raise DownloadError(f"{where}: unknown field {key}; known: {', '.join(_FIELDS)}.")
        if type(value) is not _FIELDS[key] or not value:
            raise DownloadError(f"{where}: {key} is {value!r}, not a {_FIELDS[key].__name__}.")
    if not re.fullmatch(r"[0-9a-f]{64}", entry.get("sha256", "0" * 64)):
        raise DownloadError(f"{where}: sha256 must be 64 lower-case hexadecimal digits.")
    path = PurePosixPath(entry["path"])
    if path.is_absolute() or ".." in path.parts or "\\" in entry["path"] or not path.name:
        raise DownloadError(
            f"{where}: path {entry['path']!r} leaves the weights folder; write a plain relative "
            "path."
        )
    return RemoteFile(**{**entry, "path": path})
