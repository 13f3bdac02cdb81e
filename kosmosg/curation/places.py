"""Where the files of a sample lie: on a disk, inside of a tar file, or on the web."""

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from stat import S_ISREG
from typing import NamedTuple

import requests
from requests.exceptions import BaseHTTPError

from kosmosg.checkpoints.wire import BreakError, Policy, RefusalError, Wire
from kosmosg.curation.records import Rejected
from kosmosg.data.schema import read_range
from kosmosg.data.skipping import BadSample, Reason

# A picture, not weights: what does not come within a minute, thrice, is left out.
PICTURE_POLICY = Policy(
    read_timeout=20.0, attempts=3, longest_wait=30.0, window=60.0, largest=50 * 10**6
)
MAX_BYTES = 200 * 10**6  # as much as a picture's file may have where it is opened
MAX_TEXT = 10**6  # bytes of a caption, or of what is noted beside a picture


class Stretch(NamedTuple):
    """A file, or some bytes of it."""

    path: Path
    offset: int = 0
    size: int | None = None


class Address(NamedTuple):
    """A file on the web."""

    url: str


class Lost(NamedTuple):
    """What cannot be had: whatever stood behind the place where an archive is damaged, say."""

    problem: str
    reason: Reason = "broken-shard"


Place = Stretch | Address | Lost


@dataclass(frozen=True, kw_only=True)
class Fetcher:
    """Reads files wherever they lie; threads may share it, each has connections of its own."""

    policy: Policy = PICTURE_POLICY
    _own: threading.local = field(default_factory=threading.local, repr=False, compare=False)

    def read(self, place: Place, largest: int = MAX_BYTES) -> bytes:
        """Read a file.

        Args:
            place: Where it lies.
            largest: How many bytes it may have on a disk.

        Raises:
            Rejected: If it is not there, is too large, or does not come.
            BadSample: If its archive is damaged.
        """
        if isinstance(place, Lost):
            raise BadSample(place.reason, place.problem)
        if isinstance(place, Stretch):
            return _read_stretch(place, largest)
        return self._fetch(place.url)

    def _fetch(self, url: str) -> bytes:
        for attempt in range(self.policy.attempts):
            try:
                return self._download(url)
            except RefusalError as refusal:
                raise Rejected("download", str(refusal)) from None
            except BreakError as broken:
                problem = str(broken)
                backoff = self.policy.first_wait * 2**attempt
                wait = min(max(backoff, broken.retry_after), self.policy.longest_wait)
            if attempt + 1 < self.policy.attempts:
                time.sleep(wait)
        raise Rejected("download", f"given up after {self.policy.attempts} tries: {problem}")

    def _download(self, url: str) -> bytes:
        """Try once, and wait no longer than the policy says, even for headers without end."""
        answer: SimpleQueue[bytes | Exception] = SimpleQueue()
        ask = threading.Thread(target=self._ask, args=(self._wire(), url, answer), daemon=True)
        ask.start()
        try:
            found = answer.get(timeout=self.policy.window)
        except Empty:
            del self._own.wire  # whose connection is still in use
            raise BreakError(f"nothing whole came in {self.policy.window:.0f} s") from None
        if isinstance(found, Exception):
            raise found
        return found

    def _ask(self, wire: Wire, url: str, answer: SimpleQueue[bytes | Exception]) -> None:
        try:
            with wire.get(url, 0, None) as response:
                answer.put(_read_body(response, self.policy))
        except Exception as error:  # noqa: BLE001  raised again where it is waited for
            answer.put(error)

    def _wire(self) -> Wire:
        if not hasattr(self._own, "wire"):
            self._own.wire = Wire(self.policy, token="")
        return self._own.wire


def _read_stretch(place: Stretch, largest: int) -> bytes:
    try:
        status = place.path.stat()
        if not S_ISREG(status.st_mode):  # a pipe would keep its readers waiting
            raise Rejected("unreadable", "not a regular file")
        size = status.st_size if place.size is None else place.size
        if not 0 <= size <= largest:
            raise Rejected("unreadable", f"{size / 1e6:.1f} MB, more than {largest // 10**6}")
        with place.path.open("rb") as file:
            return read_range(file, place.offset, size)
    except (OSError, ValueError) as error:  # a path may hold what no path can
        raise Rejected("unreadable", getattr(error, "strerror", None) or str(error)) from error


def _read_body(response: requests.Response, policy: Policy) -> bytes:
    """Read an answer within the bounds of length, whatever its server says or does."""
    length = response.headers.get("Content-Length", "").strip()
    wanted = int(length) if length.isdecimal() and len(length) < 19 else None
    if wanted is not None and wanted > policy.largest:
        raise RefusalError(f"larger than {policy.largest // 10**6} MB", "")
    end = time.monotonic() + policy.window
    data = bytearray()
    try:
        while chunk := response.raw.read1(policy.chunk, decode_content=False):
            data += chunk
            if len(data) > policy.largest:
                raise RefusalError(f"larger than {policy.largest // 10**6} MB", "")
            if time.monotonic() > end:
                raise BreakError("too slow")  # and nobody waits any more
    except (requests.RequestException, BaseHTTPError, OSError) as error:
        raise BreakError(f"the connection broke ({type(error).__name__})") from None
    if wanted is not None and len(data) < wanted:
        raise BreakError(f"the connection broke after {len(data)} bytes")
    return bytes(data)
