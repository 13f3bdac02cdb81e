"""Files that appear whole or not at all, folders held by one run, and what it was begun with."""

import errno
import json
import os
import re
import secrets
import shutil
import socket
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from tqdm import tqdm

from kosmosg.errors import KosmosGError

LOCK = ".kosmosg.lock"
_UNFINISHED = re.compile(r"\.[0-9a-f]{8}\.part")  # how the name of what is being written ends
_ABSENT = object()


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Write a file beside its place, and move it there when all of it is on the disk.

    Args:
        path: The file; its folder is made if missing, and one that is there is replaced.

    Yields:
        The path to write to. Its name is its own, so that two writers never meet, and ends in
        ``.part`` (name the format of an image explicitly). It is removed on an error; what a kill
        leaves behind is ignored (see ``remove_unfinished``).
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = _unfinished(path)
    try:
        yield unfinished
        flush(unfinished)
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    flush(path.parent)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Write a folder beside its place, and move it there when all of it is on the disk.

    Args:
        path: The folder, which must be absent or empty; those above it are made if missing.

    Yields:
        The folder to write into, as ``atomic_file`` does.

    Raises:
        FileExistsError: If something is there, before anything is written.
    """
    path = Path(path).resolve()  # a link to an empty folder stays one
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise FileExistsError(errno.EEXIST, "there is something already", str(path))
    unfinished = _unfinished(path)
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        for each in (*unfinished.rglob("*"), unfinished):
            flush(each)
        unfinished.rename(path)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    flush(path.parent)


def remove_unfinished(folder: Path) -> None:
    """Remove what killed runs were writing anywhere in a folder, for who holds it."""
    for path in list(folder.rglob("*.part")):
        if not _UNFINISHED.fullmatch("".join(path.suffixes[-2:])):
            continue  # somebody else's
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk, so that a power cut finds them there."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def reason(error: Exception) -> str:
    """Say in one line why something could not be read, written or made."""
    code = getattr(error, "errno", None)
    if code in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error):
        return "the disk is full"
    lines = (getattr(error, "strerror", None) or str(error)).splitlines()
    return next(filter(None, map(str.strip, lines)), type(error).__name__)


def check_space(
    folder: str | Path,
    needed: int,
    *,
    error: type[KosmosGError],
    remedy: str = "Make room, or write elsewhere.",
) -> None:
    """Check that so many further bytes fit on a disk, before the first of them is written.

    Args:
        folder: Where to; it need not be there yet.
        needed: In bytes.
        error: What to raise.
        remedy: What the user can do.

    Raises:
        KosmosGError: As ``error``, with both numbers, if they do not fit.
    """
    folder = Path(folder).resolve()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        has, wants = (tqdm.format_sizeof(number, "B") for number in (free, needed))
        raise error(f"{folder} has {has} free, and {wants} are needed. {remedy}")


@contextmanager
def lock_folder(
    folder: str | Path,
    *,
    work: str,
    error: type[KosmosGError],
    remedy: str = "name another folder",
    reentrant: bool = False,
) -> Iterator[None]:
    """Hold a folder, which is made if need be, for this process.

    The kernel gives the lock back when the process ends, however it ends. Its file stays:
    removing it would let two others hold two different files of that name.

    Args:
        folder: What to hold.
        work: What holds it, in a word, such as "training".
        error: What to raise.
        remedy: What else than waiting the user can do.
        reentrant: A thread that holds the folder may take it again.

    Raises:
        KosmosGError: As ``error``, naming folder and process, if another one holds it; or if the
            folder cannot be written.
    """
    file = Path(folder).resolve() / LOCK
    lock = FileLock(file, timeout=0, is_singleton=reentrant, fallback_to_soft=False)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise error(
            f"{folder}: another {work} (process {_holder(file)}) is at work here. Wait for it or "
            f"end it, or {remedy}."
        ) from None
    except (OSError, NotImplementedError) as failure:
        raise error(
            f"{folder} cannot be written: {reason(failure)}. Mend that, or {remedy}."
        ) from failure
    try:
        with suppress(OSError):  # a full disk: the note is for others, the lock holds without it
            file.write_text(f"{os.getpid()} {socket.gethostname()}\n", encoding="utf-8")
        yield
    finally:
        lock.release()


def _holder(file: Path) -> str:
    """Read which process holds a lock; where it runs if that is elsewhere."""
    with suppress(OSError, ValueError):
        process, host = file.read_text(encoding="utf-8").split()
        return process if host == socket.gethostname() else f"{process} on {host}"
    return "unknown"


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """What a folder was begun with, so that it is not continued with anything else.

    Attributes:
        file: JSON beside what is made, written once.
        error: What to raise.
        remedy: What the user can do instead of using the same settings.
    """

    file: Path
    error: type[KosmosGError]
    remedy: str = "name another folder"

    def read(self) -> dict[str, Any] | None:
        """Read the settings; ``None`` if there is no record.

        Raises:
            KosmosGError: If it is damaged.
        """
        try:
            found = json.loads(self.file.read_text(encoding="utf-8"))
            if not isinstance(found, dict):
                raise ValueError("it holds no settings")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as failure:
            raise self.error(
                f"{self.file} cannot be read ({reason(failure)}), so nobody knows what the files "
                f"beside it were made with. Restore it, or {self.remedy}."
            ) from failure
        return found

    def check(self, settings: Mapping[str, Any]) -> None:
        """Compare with what is noted, if anything is; writes nothing.

        Args:
            settings: All that decides what is made, as JSON can hold it.

        Raises:
            KosmosGError: If settings differ, naming them; or if the record is damaged.
        """
        if (found := self.read()) is not None:
            place, error = self.file.parent, self.error
            check_settings(found, settings, place=place, error=error, remedy=self.remedy)

    def settle(self, settings: Mapping[str, Any], *, anew: bool = False) -> None:
        """Begin here, or go on: note the settings, or compare with those that are noted.

        Args:
            settings: As for ``check``.
            anew: Nothing has been made yet, so that what is noted does not count.

        Raises:
            KosmosGError: As ``check`` does.
            OSError: If the record cannot be written.
        """
        if not anew and self.file.exists():
            return self.check(settings)
        with atomic_file(self.file) as file:
            file.write_text(json.dumps(dict(settings), indent=2) + "\n", encoding="utf-8")


def check_settings(
    found: Mapping[str, Any],
    wanted: Mapping[str, Any],
    *,
    place: Path,
    error: type[KosmosGError],
    remedy: str = "name another folder",
    free: Collection[str] = (),
    changeable: Collection[str] = (),
) -> list[str]:
    """Check that what was begun with some settings may go on with others.

    Args:
        found: Those it was begun with, read from JSON.
        wanted: Those of now, as JSON can hold them.
        place: What was begun, for the message.
        error: What to raise.
        remedy: As for ``RunRecord``.
        free: Names that are not compared.
        changeable: Names that may differ.

    Returns:
        What changed among the changeable ones, in words.

    Raises:
        KosmosGError: If others differ, naming each with what it was and is.
    """
    now = json.loads(json.dumps(dict(wanted)))  # as it was written: tuples are lists
    changes = {
        name: f"{name} was {_show(found, name)} and is {_show(now, name)}"
        for name in {**found, **now}
        if name not in free and found.get(name, _ABSENT) != now.get(name, _ABSENT)
    }
    refused = [words for name, words in changes.items() if name not in changeable]
    if refused:
        raise error(
            f"{place} was begun with other settings: {'; '.join(refused)}. Use the same ones, or "
            f"{remedy}."
        )
    return list(changes.values())


def _show(settings: Mapping[str, Any], name: str) -> str:
    return repr(settings[name]) if name in settings else "not given"


def _unfinished(path: Path) -> Path:
    return path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
