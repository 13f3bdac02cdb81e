"""How one file is fetched: resumed after every break, checked, and only then given its name.

Connections, the token and the Hub's answers are huggingface_hub's. Its own downloads are not used:
they begin anew whenever a process ends, and a checkpoint takes hours on a slow line. Here a file
grows as ``NAME.KEY.part``. The key is the SHA-256 that the file must have, or else what the server
calls this version of it, so that no file is ever put together from two.
"""

import glob
import hashlib
import logging
import re
import time
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import httpx2
from huggingface_hub import get_session
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import hf_raise_for_status
from tqdm import tqdm

from kosmosg.checkpoints.manifest import RemoteFile
from kosmosg.errors import DownloadError
from kosmosg.utils.files import check_space, flush, reason

logger = logging.getLogger(__name__)

WAITS = (1.0, 2.0, 4.0, 8.0, 16.0)  # seconds before each further try without a single new byte
LONGEST_WAIT = 60.0  # that a server may ask for
SILENCE = 30.0  # seconds after which a connection counts as broken
ELSEWHERE = "Use another address."


class _BreakError(Exception):
    """Something that may go better at the next try, after so many seconds."""

    def __init__(self, problem: str, wait: float = 0.0):
        super().__init__(problem)
        self.wait = wait


def fetch(file: RemoteFile, target: Path, *, token: str | None, progress: bool = True) -> None:
    """Fetch one file; a later call goes on where this one is stopped.

    Args:
        file: What to fetch. Its address may hold secrets, which no message repeats.
        target: Where to; nothing is there, and nobody else is writing it.
        token: Shown to the server; not to those that it redirects to.
        progress: Draw a bar on stderr.

    Raises:
        DownloadError: If it cannot be had or written, or is not the one that was asked for.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tqdm(
            total=file.size, desc=file.name, unit="B", unit_scale=True, disable=not progress
        ) as bar:
            part, sha256 = _complete(file, target, token, bar)
        _check(file, part, file.sha256 or sha256)
        flush(part)
        part.replace(target)
        flush(target.parent)
    except OSError as error:
        raise DownloadError(
            f"{file.name}: {target} cannot be written ({reason(error)}). Mend that, then run the "
            "command again; what has already come is kept."
        ) from error


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in lower-case hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find_part(file: RemoteFile, target: Path) -> Path | None:
    """Find what an earlier try left of a file; what cannot be gone on with is removed."""
    kept = None
    for part in sorted(target.parent.glob(f"{glob.escape(target.name)}.*.part")):
        key = _key(part, target)
        if kept or not key or key != (file.sha256 or key) or part.is_symlink():
            part.unlink()
        else:
            kept = part
    return kept


def _key(part: Path, target: Path) -> str:
    return unquote(part.name[len(target.name) + 1 : -len(".part")])


def _complete(
    file: RemoteFile, target: Path, token: str | None, bar: tqdm
) -> tuple[Path, str | None]:
    """Try until all is there; give the part and the SHA-256 that the Hub tells of it."""
    failed, furthest = 0, _length(find_part(file, target))
    while True:
        try:
            return _attempt(file, target, token, bar)
        except _BreakError as broken:
            here = _length(find_part(file, target))
            failed, furthest = (0, here) if here > furthest else (failed + 1, furthest)
            if failed > len(WAITS):
                raise _refusal(
                    file,
                    f"given up after {failed} tries, the last with: {broken}",
                    "Run the command again later, or check connection and address"
                    + (f"; it goes on from the {_bytes(here)} that are here." if here else "."),
                ) from None
            wait = min(max(WAITS[failed - 1] if failed else 0.0, broken.wait), LONGEST_WAIT)
            logger.warning("%s: %s; trying again in %.0f s", file.name, broken, wait)
            time.sleep(wait)


def _attempt(
    file: RemoteFile, target: Path, token: str | None, bar: tqdm
) -> tuple[Path, str | None]:
    """Ask for what is missing and append it; return only if all is there."""
    part = find_part(file, target)
    headers = {"Accept-Encoding": "identity"}  # a size must be that of the file
    if token:
        headers["Authorization"] = f"Bearer {token}"
    if part and _length(part):
        headers["Range"] = f"bytes={_length(part)}-"
        if not file.sha256:
            headers["If-Range"] = _key(part, target)
    try:
        with get_session().stream("GET", file.url, headers=headers, timeout=SILENCE) as response:
            _judge(file, response)
            return _append(file, target, response, part, bar), _linked_sha256(response)
    except OfflineModeIsEnabled:
        raise _refusal(
            file, "HF_HUB_OFFLINE is set", f"Unset it, or put the file at {target}."
        ) from None
    # The text of these may repeat the address with its secrets.
    except httpx2.UnsupportedProtocol:
        raise _refusal(file, "no address of the web", "Only http and https are fetched.") from None
    except (httpx2.InvalidURL, httpx2.TooManyRedirects) as error:
        raise _refusal(file, f"no usable address ({type(error).__name__})", ELSEWHERE) from None
    except httpx2.TransportError as error:
        raise _BreakError(f"the connection failed ({error or type(error).__name__})") from None


def _judge(file: RemoteFile, response: httpx2.Response) -> None:
    """Let an answer pass that can be used; sort every other into a break or a refusal."""
    status = response.status_code
    if status in (408, 425, 429) or status >= 500:
        wait = response.headers.get("Retry-After", "")
        raise _BreakError(f"status {status}", float(wait) if wait.isdecimal() else 0.0)
    if status in (200, 206, 416):
        if response.headers.get("Content-Type", "").startswith("text/html"):
            raise _refusal(
                file, "the server sends a web page", "Use the address of the file, not of its page."
            )
        return
    remedy = "The server does not offer this as a plain file: use another address."
    try:
        hf_raise_for_status(response)
    except GatedRepoError:
        remedy = (
            "Accept the terms on the repository's page, then log in with `hf auth login` or set "
            "HF_TOKEN."
        )
    except RepositoryNotFoundError:
        remedy = (
            "There is no such repository, or it is private: check the address, or set HF_TOKEN to "
            "a token that may read it."
        )
    except HfHubHTTPError:
        if status in (401, 403):
            remedy = "The address is private or no longer public: use another address."
        elif status in (404, 410):
            remedy = "There is no such file: check the address."
    raise _refusal(file, f"status {status}", remedy)


def _append(
    file: RemoteFile, target: Path, response: httpx2.Response, part: Path | None, bar: tqdm
) -> Path:
    """Write the body behind what is there, or in its place where the server begins anew."""
    offset, version = _length(part), _version(response)
    length = response.headers.get("Content-Length")
    if response.status_code == 200:
        if part:
            part.unlink()  # now, so that its space counts as free
        key = quote(file.sha256 or version or "", safe="")[:100]
        part, offset = target.with_name(f"{target.name}.{key}.part"), 0
    else:
        ranged = re.fullmatch(
            r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", response.headers.get("Content-Range", "")
        )
        if part and ranged and response.status_code == 416 and ranged[2] == str(offset):
            return part  # all of it was there
        same = part and _key(part, target) in (file.sha256, version)
        if not part or not same or not ranged or ranged[1] != str(offset):
            if part:
                part.unlink()
            raise _BreakError("the file changed on the server, starting over")
        length = ranged[2]
    total = int(length) if length and length.isdecimal() else file.size
    if total is not None and file.size not in (None, total):
        part.unlink(missing_ok=True)
        raise _refusal(
            file, f"the server offers {total} bytes, not the {file.size} of the file", ELSEWHERE
        )
    check_space(target.parent, (total or offset) - offset, error=DownloadError)
    bar.reset(total)
    bar.update(offset)
    with part.open("ab", buffering=0) as opened:  # a kill leaves every byte that has come
        for chunk in response.iter_raw():
            opened.write(chunk)
            bar.update(len(chunk))
            if total is not None and opened.tell() > total:
                raise _refusal(file, f"the server sends more than {total} bytes", ELSEWHERE)
    if total is not None and _length(part) < total:
        raise _BreakError(f"the connection broke after {_bytes(_length(part))}")
    return part


def _version(response: httpx2.Response) -> str | None:
    """What the server calls these very bytes; a weak ETag does not promise the same ones."""
    etag = response.headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")


def _linked_sha256(response: httpx2.Response) -> str | None:
    """What the Hub says of a large file before it redirects to where that lies."""
    for each in (*response.history, response):
        etag = each.headers.get("X-Linked-Etag", "").strip('"')
        if re.fullmatch("[0-9a-f]{64}", etag):
            return etag
    return None


def _check(file: RemoteFile, part: Path, sha256: str | None) -> None:
    """Compare a complete part with what is known of the file."""
    for what, found, known in (
        ("bytes", _length(part), file.size),
        ("as SHA-256", sha256_of(part), sha256),
    ):
        if known not in (None, found):
            part.unlink()
            raise _refusal(
                file,
                f"what came has {found} {what}, not {known}",
                "It was thrown away. Run the command again; if this repeats, the address offers "
                "another file.",
            )


def _refusal(file: RemoteFile, problem: str, remedy: str) -> DownloadError:
    return DownloadError(f"{file.name}: {problem} ({_place(file.url)}). {remedy}")


def _place(url: str) -> str:
    """Shorten an address to what may be shown: no user, password, query or fragment."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "an address that cannot be read"
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def _length(part: Path | None) -> int:
    return part.stat().st_size if part else 0


def _bytes(count: int) -> str:
    return tqdm.format_sizeof(count, "B")
