"""Requests for files over http and https, from addresses and servers that are not trusted.

Redirects are followed by hand: the token stays with the origins it belongs to, other schemes and
the step down from https to http are refused, and the body of a redirect is never read. Every
answer is one that can be used, a break, which may go better at the next try, or a refusal, which
stays. No message repeats the secrets that an address may hold.
"""

import email.utils
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from urllib.parse import urljoin, urlsplit

import requests
from requests.exceptions import BaseHTTPError

HUB = "https://huggingface.co"
_ELSEWHERE = "Use another address."
# Besides every 5xx; no other 4xx changes by asking again.
_RETRIED = frozenset({408, 425, 429})
_MOST_REDIRECTS = 8


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How patient a transfer is, what it bounds, and who may see the token.

    Attributes:
        connect_timeout: Seconds to wait for a connection.
        read_timeout: Seconds without a single byte after which the connection counts as broken.
        attempts: Breaks allowed one after another before a file is given up.
        progress: Bytes of new content after which earlier breaks are forgiven, so that a large
            file can come over a poor line; the number of tries stays finite.
        first_wait: Seconds to wait after the first break; doubled, with jitter, after each further.
        longest_wait: Upper bound in seconds for any wait, also one the server asks for.
        window: Seconds over which the speed is measured.
        slowest: Bytes per second below which a window counts as a break.
        chunk: Bytes read at most at once.
        largest: Bytes accepted for a file whose size nobody states.
        token_origins: Scheme, host and port of the only places that get the token.
    """

    connect_timeout: float = 10.0
    read_timeout: float = 30.0
    attempts: int = 6
    progress: int = 64 * 2**20
    first_wait: float = 1.0
    longest_wait: float = 60.0
    window: float = 60.0
    slowest: float = 2048.0
    chunk: int = 2**20
    largest: int = 64 * 2**30
    token_origins: tuple[str, ...] = (HUB,)


class BreakError(Exception):
    """Something that may go better at the next try."""

    def __init__(self, problem: str, retry_after: float = 0.0) -> None:
        super().__init__(problem)
        self.retry_after = retry_after


class RefusalError(Exception):
    """Something that stays as it is until somebody does what the remedy says."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.remedy = remedy


def place(url: str) -> str:
    """Shorten an address to what may be shown: no user, password, query or fragment."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "an address that cannot be read"
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=host, query="", fragment="").geturl()


class Wire:
    """The connections, kept open between requests, and the token, empty if there is none."""

    def __init__(self, policy: Policy, token: str) -> None:
        self.policy = policy
        self._token = token
        self._session = _Session()
        # A compressed answer would make sizes and ranges speak of other bytes than the file's.
        self._session.headers.update({"Accept-Encoding": "identity", "User-Agent": "kosmosg"})

    def close(self) -> None:
        """Close the connections that are kept open between requests."""
        self._session.close()

    def size(self, url: str) -> int | None:
        """Ask once for the size of a file; None if the server does not tell.

        A server may refuse HEAD and yet serve the file (a signed link often does), so whatever
        goes wrong here is left for the real request to report.
        """
        try:
            with self._ask("HEAD", url, {}) as response:
                return Remote.of(response).size
        except (BreakError, RefusalError):
            return None

    def get(self, url: str, offset: int, validator: str | None) -> requests.Response:
        """Open a file for reading, from ``offset`` on if it is still what ``validator`` stands for.

        The status is 200, 206 or 416; the body is not read yet.
        """
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        if offset and validator:
            headers["If-Range"] = validator
        return self._ask("GET", url, headers)

    def _ask(self, method: str, url: str, headers: Mapping[str, str]) -> requests.Response:
        for _ in range(_MOST_REDIRECTS + 1):
            response = self._send(method, url, headers)
            if not response.is_redirect:
                return _judged(response)
            response.close()
            url = _redirected(url, response.headers["Location"])
        raise RefusalError("redirected without end", _ELSEWHERE)

    def _send(self, method: str, url: str, headers: Mapping[str, str]) -> requests.Response:
        known = _origin(url) in self.policy.token_origins
        try:
            return self._session.request(
                method,
                url,
                headers=dict(headers),
                auth=self._signed if self._token and known else None,
                timeout=(self.policy.connect_timeout, self.policy.read_timeout),
                allow_redirects=False,
                stream=True,
            )
        # The text of these errors repeats the address with its secrets: only their kind is told.
        except (requests.ConnectionError, requests.Timeout) as error:
            raise BreakError(f"no answer ({type(error).__name__})") from None
        except (requests.RequestException, BaseHTTPError) as error:
            raise RefusalError(
                f"the request cannot be made ({type(error).__name__})", "Check the address."
            ) from None

    def _signed(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Add the token; given as ``auth`` it also wins over an entry in the user's ``.netrc``."""
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


class _Session(requests.Session):
    """A session that leaves redirects alone, even their bodies."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        return None


def _origin(url: str) -> str:
    """Scheme, host and port of an address that may be asked."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # reading it checks it
    except ValueError:
        raise RefusalError("an address that cannot be read", "Check the address.") from None
    if parts.scheme not in ("http", "https"):
        raise RefusalError("not an address of the web", "Only http and https are fetched.")
    return f"{parts.scheme}://{parts.netloc}"


def _redirected(url: str, location: str) -> str:
    try:
        target = urljoin(url, location)
    except ValueError:
        raise RefusalError("redirected to an address that cannot be read", _ELSEWHERE) from None
    if _origin(url).startswith("https:") and not _origin(target).startswith("https:"):
        raise RefusalError(f"redirected from https to unprotected {place(target)}", _ELSEWHERE)
    return target


def _judged(response: requests.Response) -> requests.Response:
    """Pass on an answer that can be used; sort every other into a break or a refusal."""
    status, headers = response.status_code, response.headers
    if status in (200, 206, 416) and headers.get("Content-Encoding", "identity") == "identity":
        if not headers.get("Content-Type", "").startswith("text/html"):
            return response
        response.close()
        raise RefusalError(
            "the server sends a web page", "Use the address of the file itself, not of its page."
        )
    response.close()
    if status in _RETRIED or status >= 500:
        raise BreakError(f"status {status}", _retry_after(headers.get("Retry-After")))
    if status in (401, 403):
        remedy = (
            "The address is private or no longer public: set HF_TOKEN if it is a Hugging Face "
            "repository you may read, or use another address."
        )
    elif status in (404, 410):
        remedy = "There is no such file: check the address."
    else:
        remedy = "The server does not offer this as a plain file: use another address."
    raise RefusalError(f"status {status}", remedy)


def _retry_after(value: str | None) -> float:
    """Read a Retry-After header, seconds or a date, as seconds from now."""
    if value is None:
        return 0.0
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0


@dataclass(frozen=True, kw_only=True)
class Remote:
    """What the server said about the whole file; a later answer must not contradict it."""

    size: int | None
    etag: str | None
    modified: str | None

    @classmethod
    def of(cls, response: requests.Response) -> "Remote":
        """Read the headers of an answer that can be used."""
        headers = response.headers
        length = headers.get("Content-Length", "").strip()
        if response.status_code == 206:
            length = headers.get("Content-Range", "").rpartition("/")[2].strip()
        size = int(length) if re.fullmatch(r"[0-9]{1,18}", length) else None
        return cls(size=size, etag=headers.get("ETag"), modified=headers.get("Last-Modified"))

    @property
    def validator(self) -> str | None:
        """What goes into If-Range: a weak ETag does not promise the same bytes."""
        if self.etag and not self.etag.startswith("W/"):
            return self.etag
        return self.modified

    def agrees(self, other: "Remote") -> bool:
        """Whether both may be the same file: nothing that both tell differs."""
        return all(
            here is None or there is None or here == there
            for here, there in zip(asdict(self).values(), asdict(other).values(), strict=True)
        )
