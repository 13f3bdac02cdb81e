"""The Hugging Face Hub: names of repositories, their files, and what its client's errors mean."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

from kosmosg.errors import WeightsError
from kosmosg.utils.files import reason


def is_repository_id(source: str | Path) -> bool:
    """Tell whether a name is that of a repository (``owner/name``) and not of a folder here."""
    if not isinstance(source, str) or source.count("/") != 1 or Path(source).is_dir():
        return False
    try:
        validate_repo_id(source)
    except HFValidationError:
        return False
    return True


def fetch_repository(repository: str, patterns: Sequence[str], **options: Any) -> Path:
    """Fetch files of a repository into the Hub's cache, and return their folder.

    Args:
        repository: ``owner/name``.
        patterns: Of the files that are wanted; no others are fetched.
        options: As ``huggingface_hub.snapshot_download`` takes them: revision, cache_dir, token, …

    Raises:
        WeightsError: If they cannot be had.
    """
    try:
        return Path(snapshot_download(repository, allow_patterns=list(patterns), **options))
    except Exception as error:
        # The client's own errors, those of its HTTP library and those of the disk.
        raise WeightsError(explain(error, repository)) from error


def explain(error: Exception, repository: str) -> str:
    """Say in one sentence why the Hub's client failed, and what to do about it."""
    if isinstance(error, HFValidationError):
        return (
            f"{repository} is neither a folder here nor a name that repositories can have "
            "(owner/name). Check it."
        )
    if isinstance(error, GatedRepoError):
        return explain_gate(repository)
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"{repository} is neither a folder here nor a repository on {constants.ENDPOINT} that "
            "can be seen without a token of its owner. Check the name, log in (hf auth login), or "
            "give a token."
        )
    if isinstance(error, RevisionNotFoundError):
        return f"{repository} has no such revision. Name a branch, a tag or a whole commit hash."
    if isinstance(error, LocalEntryNotFoundError):
        return (
            f"{repository} is neither a folder here nor in the cache, and {constants.ENDPOINT} "
            "cannot be reached. Check the name, the connection, HF_ENDPOINT and HF_HUB_OFFLINE."
        )
    why = reason(error)
    if isinstance(error, HfHubHTTPError) and error.response.status_code in (401, 403):
        why = f"{constants.ENDPOINT} refuses it: {error.server_message or why}"
        return f"{repository}: {why}. Log in (hf auth login) or give a token that may do this."
    return f"{repository}: {why.rstrip('.')}."


def explain_gate(repository: str) -> str:
    """Say that a repository wants to be asked, and how."""
    return (
        f"{repository} is open only to who has agreed to its terms. Agree on its page, log in "
        "(hf auth login), or give a token."
    )
