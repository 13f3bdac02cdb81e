"""The two lock files of a weights directory: what has been fetched, and who is fetching.

``manifest.lock`` keeps size and SHA-256 of everything that was fetched or found, so that a file
without a published hash cannot change unnoticed between two machines or two days. It also keeps
the time stamp of the file that was hashed: as long as size and time stamp stay, gigabytes are not
hashed again. ``.download.lock`` lets one process at a time work in the directory; the folders of
training runs are held in the same way.
"""

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from kosmosg.errors import DownloadError, KosmosGError

LOCK = "manifest.lock"
OWNER = ".download.lock"


@dataclass(frozen=True, kw_only=True)
class _Entry:
    size: int
    sha256: str
    mtime_ns: int


@dataclass(kw_only=True)
class LockFile:
    """``manifest.lock``, written anew after every change; one entry per path in the directory."""

    path: Path
    files: dict[str, _Entry]

    @classmethod
    def read(cls, weights: Path) -> "LockFile":
        """Read the lock file of a weights directory; without one nothing is known.

        Raises:
            DownloadError: It is damaged.
        """
        path = weights / LOCK
        if not path.exists():
            return cls(path=path, files={})
        try:
            entries = json.loads(path.read_text(encoding="utf-8"))["files"]
            files = {name: _Entry(**entry) for name, entry in entries.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise DownloadError(
                f"{path} cannot be read as a lock file. Restore it, or delete it: what is in the "
                "directory is then hashed and recorded anew."
            ) from None
        return cls(path=path, files=files)

    def known(
        self, target: Path, size: int | None, sha256: str | None
    ) -> tuple[int | None, str | None]:
        """Complete what the manifest says of a file, size and hash, with what is recorded."""
        entry = self.files.get(self._key(target))
        if entry is None or sha256 not in (None, entry.sha256):
            return size, sha256  # an older manifest's entry says nothing about this file
        return entry.size if size is None else size, entry.sha256

    def remembered(self, target: Path) -> str | None:
        """Return the hash of a file that size and time stamp show to be the recorded one."""
        entry, stat = self.files.get(self._key(target)), target.stat()
        if entry and (entry.size, entry.mtime_ns) == (stat.st_size, stat.st_mtime_ns):
            return entry.sha256
        return None

    def record(self, target: Path, sha256: str) -> None:
        """Record the file at ``target``; a crash leaves the old lock file or the new one."""
        stat = target.stat()
        entry = _Entry(size=stat.st_size, sha256=sha256, mtime_ns=stat.st_mtime_ns)
        self.files[self._key(target)] = entry
        entries = {name: asdict(self.files[name]) for name in sorted(self.files)}
        scratch = self.path.with_name(self.path.name + ".new")
        with scratch.open("w", encoding="utf-8") as file:
            file.write(json.dumps({"files": entries}, indent=2) + "\n")
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(self.path)

    def _key(self, target: Path) -> str:
        return target.relative_to(self.path.parent).as_posix()


@contextmanager
def only_one(directory: Path, owner: str, explain: Callable[[str], KosmosGError]) -> Iterator[None]:
    """Hold a directory, which is made if need be, for this process.

    The kernel gives the lock back when the process ends, however it ends; the file that carries
    it stays, since removing it would let two others hold two different files of that name.

    Args:
        directory: What to hold.
        owner: Name of the file that carries the lock.
        explain: Makes an error of the number of the process that holds it.

    Raises:
        KosmosGError: Made by ``explain``, if another process holds it.
        OSError: If it cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    carrier = os.open(directory / owner, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(carrier, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(carrier, 20, 0).decode(errors="replace").strip() or "unknown"
            raise explain(pid) from None
        os.truncate(carrier, 0)
        os.pwrite(carrier, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(carrier)


@contextmanager
def only_download(weights: Path) -> Iterator[None]:
    """Hold the weights directory, which is made if need be, for the downloads of this process.

    Raises:
        DownloadError: Another process holds it, or something in it cannot be read or written.
    """

    def explain(process: str) -> DownloadError:
        return DownloadError(
            f"{weights}: another download (process {process}) is at work here. Wait for it, or "
            "end it; what it has fetched is kept."
        )

    try:
        with only_one(weights, OWNER, explain):
            yield
    except OSError as error:
        raise DownloadError(
            f"{error.filename or weights}: cannot be read or written ({error.strerror or error}). "
            "Mend that or choose another directory, then run the command again."
        ) from error
