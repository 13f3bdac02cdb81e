"""The files of every open tab; they go with it."""

import hashlib
import shutil
import threading
from collections.abc import Iterable
from pathlib import Path


class Sessions:
    """Which files belong to which tab."""

    def __init__(self, root: Path):
        self._root = root
        self._files: dict[str, set[Path]] = {}
        self._lock = threading.Lock()

    def folder(self, session: str) -> Path:
        """The folder of a tab, for what is made for it; made if need be."""
        folder = self._place(session)
        with self._lock:
            self._files.setdefault(session, set())
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    def note(self, session: str, files: Iterable[Path]) -> None:
        """Remember what a tab has uploaded; what two have uploaded is one file."""
        with self._lock:
            self._files.setdefault(session, set()).update(files)

    def close(self, session: str) -> None:
        """Remove the files of a tab that no other one has."""
        with self._lock:
            mine = self._files.pop(session, set())
            others = set[Path]().union(*self._files.values())
            for file in mine - others:
                if self._root in file.parents:  # and nothing else, whatever was noted
                    file.unlink(missing_ok=True)
            shutil.rmtree(self._place(session), ignore_errors=True)

    def _place(self, session: str) -> Path:
        # The name comes from the browser, and could be any text.
        return self._root / "sessions" / hashlib.sha256(session.encode()).hexdigest()[:32]
