"""Which commits of sets and weights on the Hub a run reads: those that it began with."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from filelock import FileLock
from huggingface_hub import HfApi

from kosmosg.data.options import NamedData
from kosmosg.errors import DataError
from kosmosg.utils.files import atomic_file, reason
from kosmosg.utils.hub import explain

RECORD = "revisions.json"  # in the run's folder: the commits by repository and revision
_COMMIT = re.compile("[0-9a-f]{40}")


def fix_revisions(data: tuple[NamedData, ...], run: Path) -> tuple[NamedData, ...]:
    """Put the commits in place of what a user names, a branch or nothing.

    The run notes them when it first meets a set, and goes on with them: what is pushed to the Hub
    meanwhile changes nothing. All processes of a run get the same ones.

    Args:
        data: Sets as they are named; folders stay as they are.
        run: The run's folder, which is made if need be.

    Raises:
        DataError: If the Hub does not know a set, or the record cannot be read or written.
    """
    if not any(each.repository and not is_commit(each.revision) for each in data):
        return data
    with _record(run) as known:
        return tuple(
            each
            if not each.repository or is_commit(each.revision)
            else replace(each, revision=_fix(known, "dataset", each.repository, each.revision))
            for each in data
        )


def fix_weights(repository: str, run: Path) -> str:
    """Find the commit of the weights that a run begins with, as ``fix_revisions`` does of sets."""
    with _record(run) as known:
        return _fix(known, "model", repository, None)


def is_commit(revision: str | None) -> bool:
    """Tell whether a revision can never be another one."""
    return revision is not None and _COMMIT.fullmatch(revision) is not None


@contextmanager
def _record(run: Path) -> Iterator[dict[str, str]]:
    """Open a run's record, and keep what is added to it; one process at a time."""
    try:
        run.mkdir(parents=True, exist_ok=True)
        with FileLock(run / f".{RECORD}.lock"):
            file = run / RECORD
            known = _read(file)
            before = dict(known)
            yield known
            if known != before:
                with atomic_file(file) as unfinished:
                    unfinished.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise DataError(f"{run / RECORD} cannot be written ({reason(error)}).") from error


def _fix(known: dict[str, str], kind: str, repository: str, revision: str | None) -> str:
    key = f"{kind}s/{repository}@{revision or 'main'}"
    if key not in known:
        known[key] = _ask(kind, repository, revision)
    return known[key]


def _ask(kind: str, repository: str, revision: str | None) -> str:
    try:
        commit = HfApi().repo_info(repository, repo_type=kind, revision=revision).sha
    except Exception as error:
        # The client's own errors and those of its HTTP library.
        raise DataError(explain(error, repository)) from error
    if not is_commit(commit):
        raise DataError(f"{repository}: the Hub names no commit of it ({commit!r}).")
    assert commit is not None
    return commit


def _read(file: Path) -> dict[str, str]:
    if not file.exists():
        return {}
    try:
        noted = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        noted = error
    if not isinstance(noted, dict) or not all(map(is_commit, noted.values())):
        raise DataError(
            f"{file} does not say which commits this run reads ({noted!r:.80}). Put back what it "
            "was, or begin a run in another folder."
        )
    return noted
