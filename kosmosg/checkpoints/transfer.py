"""How one file is fetched: resumed after every break, checked, and only then given its name.

A file grows as ``NAME.part``; ``NAME.part.json`` beside it keeps what the server said the whole
file is (ETag, Last-Modified, size), so that a later try, in this process or the next, goes on only
if the server still offers the same file. The final name appears by a rename, after size and SHA-256
have been checked and the bytes are on the disk: a file that has its name is complete.

The server is not trusted: what it sends is bounded in length and in slowness.
"""

import hashlib
import json
import logging
import os
import random
import re
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import requests
from requests.exceptions import BaseHTTPError
from tqdm import tqdm

from kosmosg.checkpoints.wire import BreakError, Policy, RefusalError, Remote, Wire, place
from kosmosg.errors import DownloadError

logger = logging.getLogger(__name__)

_AGAIN = "Run the command again"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """One file to fetch; ``size`` and ``sha256`` are None where they are not known beforehand."""

    name: str
    url: str
    target: Path
    size: int | None
    sha256: str | None


def readable(count: float) -> str:
    """Write a number of bytes for people: ``1_720_000_000`` becomes ``1.72 GB``."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.{0 if unit == 'bytes' else 2}f} {unit}"
        count /= 1000
    return f"{count:.2f} TB"


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in lower-case hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require_space(folder: Path, needed: int) -> None:
    """Check that ``needed`` further bytes fit on the disk of ``folder``.

    Raises:
        DownloadError: They do not.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DownloadError(
            f"{folder}: what is still to come needs {readable(needed)}, but only {readable(free)} "
            "are free. Free some space, or choose another directory or fewer groups."
        )


class _Part:
    """The unfinished file, and beside it what the server said about the whole."""

    def __init__(self, target: Path) -> None:
        self.path = target.with_name(target.name + ".part")
        self._sidecar = target.with_name(target.name + ".part.json")

    def length(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    def remembered(self) -> Remote | None:
        """Return what is known about the whole file; None if the part cannot be trusted."""
        try:
            remote = Remote(**json.loads(self._sidecar.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        return None if self.path.is_symlink() else remote

    def begin(self, remote: Remote) -> None:
        """Start over with an empty part; no byte of another file is ever left in front.

        If a crash damages what is written here, the part is not trusted and starts over.
        """
        self.discard()
        self._sidecar.write_text(json.dumps(asdict(remote)), encoding="utf-8")

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self._sidecar.unlink(missing_ok=True)

    def promote(self, target: Path) -> None:
        """Give the part its final name, once its bytes are on the disk."""
        with self.path.open("rb") as file:
            os.fsync(file.fileno())
        self.path.replace(target)
        self._sidecar.unlink(missing_ok=True)
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # without it a power cut may undo the rename
        finally:
            os.close(folder)


def part_length(target: Path) -> int:
    """Return how many bytes of an unfinished file are already there."""
    return _Part(target).length()


def fetch(wire: Wire, wanted: Wanted, progress: bool = True) -> str:
    """Fetch one file, go on where an earlier try broke off, and check it before it gets its name.

    Args:
        wire: The open connection pool, with its policy.
        wanted: The file; its folder must exist, and nobody else may be writing it.
        progress: Whether to draw a bar on stderr.

    Returns:
        The SHA-256 of the file, in lower-case hexadecimal.

    Raises:
        DownloadError: The file cannot be had, or is not the one that was asked for.
    """
    part = _Part(wanted.target)
    try:
        with tqdm(
            total=wanted.size, desc=wanted.name, unit="B", unit_scale=True, disable=not progress
        ) as bar:
            _complete(wire, wanted, part, bar)
        return _checked(wanted, part)
    except RefusalError as refusal:
        raise DownloadError(
            f"{wanted.name}: {refusal} ({place(wanted.url)}). {refusal.remedy}"
        ) from None
    except OSError as error:
        raise DownloadError(
            f"{wanted.name}: {wanted.target} cannot be written ({error.strerror or error}). Mend "
            "that, then run the command again; what has already come is kept."
        ) from error


def _complete(wire: Wire, wanted: Wanted, part: _Part, bar: tqdm) -> None:
    """Try until the part is complete, or until the policy says that it is enough."""
    policy = wire.policy
    breaks, furthest = 0, part.length()
    while True:
        try:
            return _attempt(wire, wanted, part, bar)
        except BreakError as broken:
            if part.length() >= furthest + policy.progress:
                breaks, furthest = 0, part.length()
            breaks += 1
            if breaks >= policy.attempts:
                here = part.length()
                raise RefusalError(
                    f"given up after {breaks} failed tries, the last with: {broken}",
                    f"{_AGAIN} later; it goes on from the {readable(here)} that are here."
                    if here
                    else f"{_AGAIN} later, or check connection and address.",
                ) from None
            backoff = policy.first_wait * 2 ** (breaks - 1) * random.uniform(0.5, 1)  # noqa: S311
            wait = min(max(backoff, broken.retry_after), policy.longest_wait)
            logger.warning("%s: %s; trying again in %.1f s", wanted.name, broken, wait)
            time.sleep(wait)


def _attempt(wire: Wire, wanted: Wanted, part: _Part, bar: tqdm) -> None:
    """Ask for what is missing and append it; return only if the part is then complete."""
    remote = part.remembered()
    # Without a validator only the hash at the end could tell a mixture of two files.
    if remote is None or not (remote.validator or wanted.sha256):
        part.discard()
        remote = None
    offset = part.length()
    if remote and offset == remote.size:
        return
    with wire.get(wanted.url, offset, remote and remote.validator) as response:
        offered = Remote.of(response)
        total = offered.size
        if response.status_code == 200:
            part.discard()  # now, so that its space counts as free
            offset = 0
        elif remote and _continues(response, offset) and remote.agrees(offered):
            total = remote.size if total is None else total  # "bytes 5-9/*" leaves it open
        else:
            part.discard()
            raise BreakError("the file changed on the server, starting over")
        _require_usable(response, total, wanted, part)
        bound = wanted.size if total is None else total
        require_space(part.path.parent, (bound or offset) - offset)
        if offset == 0:
            part.begin(offered)
        bar.reset(bound)
        bar.initial = bar.n = bar.last_print_n = offset
        _append(wire.policy, response, part, bound, bar)
    if total is not None and part.length() < total:
        raise BreakError(f"the connection broke after {readable(part.length())}")


def _require_usable(
    response: requests.Response, total: int | None, wanted: Wanted, part: _Part
) -> None:
    """Refuse a file of another size than the wanted one, or one whose end cannot be told."""
    if total is None and response.headers.get("Transfer-Encoding") != "chunked":
        problem = "the server does not say how long the file is, so a break would pass for its end"
    elif total is not None and wanted.size is not None and total != wanted.size:
        problem = f"the server offers {total} bytes, but the file must have {wanted.size}"
    else:
        return
    part.discard()
    raise RefusalError(problem, "Use another address.")


def _continues(response: requests.Response, offset: int) -> bool:
    """Whether a partial answer starts exactly where the part ends."""
    if response.status_code != 206:
        return False
    start = re.match(r"bytes ([0-9]{1,18})-", response.headers.get("Content-Range", ""))
    return start is not None and int(start[1]) == offset


def _append(
    policy: Policy, response: requests.Response, part: _Part, bound: int | None, bar: tqdm
) -> None:
    """Write the body behind what is there, within the bounds of length and slowness."""
    received, bound = part.length(), policy.largest if bound is None else bound
    since, counted = time.monotonic(), 0
    with part.path.open("ab") as file:
        while True:
            try:
                # read1 returns what is there; read would wait for a whole chunk, and a server
                # that trickles could hold it for days.
                chunk = response.raw.read1(policy.chunk, decode_content=False)
            except (requests.RequestException, BaseHTTPError, OSError) as error:
                raise BreakError(
                    f"the connection broke ({type(error).__name__}) after {readable(received)}"
                ) from None
            if not chunk:
                return
            received, counted = received + len(chunk), counted + len(chunk)
            if received > bound:
                part.discard()
                raise RefusalError(
                    f"the server sends more than the {bound} bytes the file may have",
                    "It is not the file that was asked for: use another address.",
                )
            file.write(chunk)
            file.flush()  # a killed process leaves every byte it has received
            bar.update(len(chunk))
            if (elapsed := time.monotonic() - since) >= policy.window:
                if counted < policy.slowest * elapsed:
                    raise BreakError(f"only {readable(counted)} came in {elapsed:.0f} s")
                since, counted = time.monotonic(), 0


def _checked(wanted: Wanted, part: _Part) -> str:
    """Check a complete part against what is known, and give it its name."""
    sha256 = sha256_of(part.path)
    for what, found, known in (
        ("bytes", part.length(), wanted.size),
        ("as SHA-256", sha256, wanted.sha256),
    ):
        if known is not None and found != known:
            part.discard()
            raise RefusalError(
                f"what came has {found} {what}, not {known}",
                f"It was thrown away. {_AGAIN}; if this repeats, the address offers another file.",
            )
    part.promote(wanted.target)
    return sha256
