"""Fill a weights folder from the manifest.

A file is fetched only if it is not there; one that is there must be what the manifest says. Nothing
that already has its final name is ever overwritten or deleted: it may have cost somebody a night.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from huggingface_hub import get_token

from kosmosg.checkpoints.fetch import fetch, find_part, sha256_of
from kosmosg.checkpoints.manifest import Manifest, RemoteFile
from kosmosg.errors import DownloadError
from kosmosg.utils.files import check_space, lock_folder, reason

HUB = "https://huggingface.co"
# ${NAME} must be set; ${NAME:-default} need not be. An empty value counts as unset.
_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")


def download(
    manifest: Manifest,
    weights: Path,
    groups: Sequence[str] | None = None,
    mirror: str | None = None,
    progress: bool = True,
    *,
    urls: Mapping[str, str] | None = None,
) -> list[Path]:
    """Fetch what is missing of the chosen groups, and check what is there.

    Addresses and free disk space are settled before the first byte. The environment is read here:
    variables that the manifest names; ``HF_ENDPOINT``, a mirror; and ``HF_TOKEN``, or else what
    ``hf auth login`` noted, which goes to huggingface.co and nowhere else.

    Args:
        manifest: What there is.
        weights: The folder to fill; it is made if need be.
        groups: Names of groups; None for the manifest's own choice.
        mirror: Replaces ``https://huggingface.co`` in addresses, before ``HF_ENDPOINT``.
        progress: Draw a bar per file on stderr.
        urls: Addresses that replace the manifest's, by the name of the file.

    Returns:
        The files of the chosen groups, in the order of the manifest. A file of which nothing is
        known is taken as it is if it is there.

    Raises:
        DownloadError: A group or name is unknown, an address is not set, another download works in
            the same folder, a file is not what it should be, cannot be fetched or does not fit.
    """
    urls = urls or {}
    chosen = manifest.choose(groups)
    known = {file.name for file in manifest.choose(list(manifest.groups))}
    if unknown := sorted(set(urls) - known):
        raise DownloadError(f"{manifest.source}: no file named {', '.join(unknown)}.")
    endpoint = (mirror or os.environ.get("HF_ENDPOINT") or HUB).rstrip("/")
    with lock_folder(weights, work="download", error=DownloadError):
        missing = [
            (_settle(file, urls.get(file.name, file.url), weights / file.path, endpoint))
            for file in chosen
            if not _is_there(file, weights / file.path, manifest.source)
        ]
        to_come = 0
        for file, _ in missing:
            part = find_part(file, weights / file.path)
            to_come += max(0, (file.size or 0) - (part.stat().st_size if part else 0))
        check_space(weights, to_come, error=DownloadError)
        for file, token in missing:
            fetch(file, weights / file.path, token=token, progress=progress)
    return [weights / file.path for file in chosen]


def _is_there(file: RemoteFile, target: Path, source: str) -> bool:
    """Tell whether a file is there and right.

    Raises:
        DownloadError: If there is something else in its place.
    """
    try:
        if not target.exists() and not target.is_symlink():
            return False
        if not target.is_file():
            raise DownloadError(f"{target}: is not a file. Move it away, then download again.")
        size, sha256 = target.stat().st_size, None
        if file.size in (None, size) and file.sha256:
            sha256 = sha256_of(target)
    except OSError as error:
        raise DownloadError(f"{target}: cannot be read ({reason(error)}).") from error
    if file.size in (None, size) and file.sha256 == sha256:
        return True
    raise DownloadError(
        f"{file.name}: {target} is there, but with {size} bytes"
        f"{f' and SHA-256 {sha256}' if sha256 else ''} it is not the file with "
        f"{file.size or 'any'} bytes and SHA-256 {file.sha256 or 'any'} of {source}. "
        "Move it away or delete it, then download again."
    )


def _settle(
    file: RemoteFile, url: str, target: Path, endpoint: str
) -> tuple[RemoteFile, str | None]:
    """Settle a file's address, and the token to show there."""

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
    if not url.startswith(f"{HUB}/"):
        return replace(file, url=url), None
    url = endpoint + url.removeprefix(HUB)
    return replace(file, url=url), get_token() if endpoint == HUB else None
