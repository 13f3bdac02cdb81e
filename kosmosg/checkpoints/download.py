"""What to fetch, and where it goes: the manifest and the weights directory.

``weights/manifest.toml`` names the files in groups. A file is fetched only if it is not there;
one that is there must be what the manifest, or else ``manifest.lock``, says it is.

Nothing that already has its final name is ever overwritten or deleted: it may have cost somebody
a night. A file that does not match is an error that says so.
"""

import logging
import os
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from kosmosg.checkpoints.lockfile import LOCK, OWNER, LockFile, only_download
from kosmosg.checkpoints.transfer import Wanted, fetch, part_length, require_space, sha256_of
from kosmosg.checkpoints.wire import HUB, Policy, Wire
from kosmosg.errors import DownloadError

logger = logging.getLogger(__name__)

# ${NAME} must be set; ${NAME:-default} need not be. An empty value counts as unset.
_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")
_FIELDS = {"name": str, "url": str, "path": str, "size": int, "sha256": str, "note": str}


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """One file of the manifest.

    Attributes:
        name: What the file is called in messages and on the command line; unique.
        url: An http or https address; may hold ``${VARIABLE}`` or ``${VARIABLE:-default}``.
        path: Where it goes, relative to the weights directory.
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

    source: Path
    default: tuple[str, ...]
    groups: Mapping[str, tuple[RemoteFile, ...]]


def read_manifest(path: Path) -> Manifest:
    """Read a manifest.

    Raises:
        DownloadError: It is missing or not TOML; a file lacks a field, has one too many or one of
            the wrong kind; two files share a name or a path; a path leaves the weights directory.
    """
    try:
        groups = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DownloadError(f"{path}: cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise DownloadError(f"{path}: is not TOML: {error}.") from error
    default = groups.pop("default", list(groups))
    manifest = Manifest(
        source=path,
        default=tuple(_listed(default)),
        groups={
            group: tuple(
                _remote_file(entry, f"{path}, group {group}") for entry in _listed(entries)
            )
            for group, entries in groups.items()
        },
    )
    _chosen(manifest, manifest.default)
    every = [file for files in manifest.groups.values() for file in files]
    for attribute in ("name", "path"):
        values = [getattr(file, attribute) for file in every]
        if twice := sorted({str(value) for value in values if values.count(value) > 1}):
            raise DownloadError(f"{path}: {attribute} used twice: {', '.join(twice)}.")
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
            f"{where}: path {entry['path']!r} leaves the weights directory; write a plain relative "
            "path."
        )
    if str(path) in (LOCK, OWNER) or ".part" in path.suffixes:
        raise DownloadError(f"{where}: path {entry['path']!r} is used by the download itself.")
    return RemoteFile(**{**entry, "path": path})


def download(
    manifest: Manifest,
    weights: Path,
    groups: Sequence[str] | None = None,
    mirror: str | None = None,
    progress: bool = True,
    *,
    urls: Mapping[str, str] | None = None,
    policy: Policy | None = None,
) -> list[Path]:
    """Fetch what is missing of the chosen groups, and check what is there.

    Addresses and free disk space are settled before the first byte. The environment is read here:
    variables that the manifest names; ``HF_ENDPOINT``, a mirror; and ``HF_TOKEN``, which goes to
    huggingface.co and nowhere else.

    Args:
        manifest: What there is.
        weights: The directory to fill; it is made if need be.
        groups: Names of groups; None for the manifest's own choice.
        mirror: Replaces ``https://huggingface.co`` in addresses, before ``HF_ENDPOINT``.
        progress: Whether to draw a bar per file on stderr.
        urls: Addresses that replace the manifest's, by the name of the file.
        policy: Patience and bounds of the transfers; None for the usual ones.

    Returns:
        The files of the chosen groups, in the order of the manifest. A file that somebody else
        put there is taken as it is if nothing is known about it, and recorded in the lock file.

    Raises:
        DownloadError: A group or name is unknown, an address is not set, another download works in
            the same directory, a file is not what it should be, cannot be fetched or does not fit.
    """
    files = _chosen(manifest, manifest.default if groups is None else groups)
    urls = urls or {}
    _require_named(manifest, urls)
    endpoint = (mirror or os.environ.get("HF_ENDPOINT") or HUB).rstrip("/")
    targets = {file: weights / file.path for file in files}
    with only_download(weights):
        lock = LockFile.read(weights)
        for target in targets.values():
            _require_inside(target, weights)
        wanted = [
            _wanted(file, target, lock, urls.get(file.name, file.url), endpoint)
            for file, target in targets.items()
            if not _is_settled(manifest, file, target, lock)
        ]
        with closing(Wire(policy or Policy(), os.environ.get("HF_TOKEN", "").strip())) as wire:
            _fetch_all(wire, wanted, weights, lock, progress)
    return list(targets.values())


def _chosen(manifest: Manifest, groups: Sequence[str]) -> list[RemoteFile]:
    for group in groups:
        if group not in manifest.groups:
            raise DownloadError(
                f"{manifest.source}: no group {group!r}; there are {', '.join(manifest.groups)}."
            )
    return [file for group in dict.fromkeys(groups) for file in manifest.groups[group]]


def _require_named(manifest: Manifest, names: Iterable[str]) -> None:
    if unknown := set(names) - {file.name for file in _chosen(manifest, list(manifest.groups))}:
        raise DownloadError(f"{manifest.source}: no file named {', '.join(sorted(unknown))}.")


def _require_inside(target: Path, weights: Path) -> None:
    """Refuse a folder that a symbolic link leads out of the weights directory.

    A link in the place of the file itself may be read, as a way to put a file there; it is
    never written through.
    """
    if not target.parent.resolve().is_relative_to(weights.resolve()):
        raise DownloadError(
            f"{target}: a symbolic link leads out of {weights}. Remove the link, or make "
            f"{weights} itself the link."
        )


def _is_settled(manifest: Manifest, file: RemoteFile, target: Path, lock: LockFile) -> bool:
    """Whether the file is there and right; False if there is none.

    Raises:
        DownloadError: There is something else in its place.
    """
    if not target.exists() and not target.is_symlink():
        return False
    if not target.is_file():
        raise DownloadError(f"{target}: is not a file. Move it away, then download again.")
    here = target.stat().st_size
    size, sha256 = lock.known(target, file.size, file.sha256)
    found = None
    if size in (None, here):
        if sha256 and sha256 == lock.remembered(target):
            return True
        found = sha256_of(target)
        if sha256 in (None, found):
            if sha256 is None:
                logger.info("%s: %s was put there by hand, taken as it is", file.name, target)
            lock.record(target, found)
            return True
    raise DownloadError(
        f"{file.name}: {target} is there, but with {here} bytes"
        f"{f' and SHA-256 {found}' if found else ''} it is not the file with {size or 'any'} bytes "
        f"and SHA-256 {sha256 or 'any'} of "
        f"{manifest.source if file.sha256 or file.size else lock.path}. "
        "Move it away or delete it, then download again."
    )


def _wanted(file: RemoteFile, target: Path, lock: LockFile, url: str, endpoint: str) -> Wanted:
    def value(match: re.Match[str]) -> str:
        found = os.environ.get(match[1]) or match[2]
        if found is None:
            raise DownloadError(
                f"{file.name}: {match[1]} is not set, so there is no address to fetch it from. "
                f"{file.note + ' ' if file.note else ''}Set {match[1]} to a copy you have access "
                f"to, or put the file at {target} yourself; then run `python -m kosmosg "
                "convert`. Name the groups to fetch the others first."
            )
        # What follows brings its own slash; a whole address may end in a signature's.
        return found if match.end() == len(match.string) else found.rstrip("/")

    url = _VARIABLE.sub(value, url)
    if url.startswith(f"{HUB}/"):
        url = endpoint + url.removeprefix(HUB)
    size, sha256 = lock.known(target, file.size, file.sha256)
    return Wanted(name=file.name, url=url, target=target, size=size, sha256=sha256)


def _fetch_all(
    wire: Wire, wanted: Sequence[Wanted], weights: Path, lock: LockFile, progress: bool
) -> None:
    require_space(weights, sum(_outstanding(wire, item) for item in wanted))
    for item in wanted:
        item.target.parent.mkdir(parents=True, exist_ok=True)
        lock.record(item.target, fetch(wire, item, progress))


def _outstanding(wire: Wire, item: Wanted) -> int:
    """Bytes still to come, as far as anybody says beforehand."""
    size = item.size if item.size is not None else wire.size(item.url)
    return 0 if size is None else max(0, size - part_length(item.target))
