"""A web server on the loopback interface that misbehaves exactly as it is told."""

import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import cast


@dataclass(frozen=True, kw_only=True)
class Reply:
    """How one GET is answered; the defaults are an honest server.

    Attributes:
        status: What to answer; anything but 200 comes without the file.
        body: In place of the page's own body.
        cut: Break the connection after so many bytes of this answer.
        stall: After the cut, keep the connection open in silence instead.
        ranges: Whether a Range is honoured.
        conditions: Whether If-Range is honoured.
        etag: The ETag; None sends none.
        modified: The Last-Modified; None sends none.
        framing: ``length`` states the size, ``chunked`` does not.
        headers: Added to the answer, or put in place of its own.
    """

    status: int = 200
    body: bytes | None = None
    cut: int | None = None
    stall: bool = False
    ranges: bool = True
    conditions: bool = True
    etag: str | None = '"one"'
    modified: str | None = None
    framing: str = "length"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(kw_only=True)
class Seen:
    """One request as it came, and how many bytes of a file went back."""

    path: str
    headers: Mapping[str, str]
    sent: int = 0


class Site(ThreadingHTTPServer):
    """Pages, each with a list of replies: the n-th GET gets the n-th, and the last one stays."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.pages: dict[str, tuple[bytes, list[Reply]]] = {}
        self.seen: list[Seen] = []
        self.closing = threading.Event()

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def add(self, path: str, body: bytes, *replies: Reply) -> str:
        """Put a page on the site and return its address."""
        self.pages[path] = (body, list(replies) or [Reply()])
        return self.origin + path

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing about clients that go away."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # pyright: ignore[reportArgumentType]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _answer(self) -> None:
        site = cast(Site, self.server)
        seen = Seen(path=self.path, headers=dict(self.headers))
        site.seen.append(seen)
        body, replies = site.pages.get(self.path.partition("?")[0], (b"", [Reply(status=404)]))
        reply = replies.pop(0) if len(replies) > 1 else replies[0]
        body = body if reply.body is None else reply.body
        status, headers, body = self._composed(reply, body)
        self.send_response(status)
        for name, value in {**headers, **reply.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        try:
            self._send(site, reply, body, seen)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _composed(self, reply: Reply, body: bytes) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and the stretch of the body that this request is to get."""
        if reply.status != 200:
            return reply.status, {"Content-Length": "0"}, b""
        status, headers, whole = 200, {}, len(body)
        if reply.etag:
            headers["ETag"] = reply.etag
        if reply.modified:
            headers["Last-Modified"] = reply.modified
        condition = self.headers.get("If-Range")
        unchanged = condition in (None, reply.etag, reply.modified) or not reply.conditions
        if reply.ranges and unchanged and "Range" in self.headers:
            start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
            status, body = 206, body[start:]
            headers["Content-Range"] = f"bytes {start}-{whole - 1}/{whole}"
        if reply.framing == "length":
            headers["Content-Length"] = str(len(body))
        else:
            headers["Transfer-Encoding"] = "chunked"
        return status, headers, body

    def _send(self, site: Site, reply: Reply, body: bytes, seen: Seen) -> None:
        step = 16384
        end = len(body) if reply.cut is None else min(reply.cut, len(body))
        for start in range(0, end, step):
            piece = body[start : min(start + step, end)]
            framed = b"%x\r\n%b\r\n" % (len(piece), piece)
            seen.sent += len(piece)  # first, so that whoever has the bytes finds them counted
            self.wfile.write(framed if reply.framing == "chunked" else piece)
        if reply.stall:
            site.closing.wait()
        if end < len(body):
            self.close_connection = True
        elif reply.framing == "chunked":
            self.wfile.write(b"0\r\n\r\n")


@contextmanager
def running() -> Iterator[Site]:
    """Serve until the end of the block."""
    site = Site()
    thread = threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield site
    finally:
        site.closing.set()
        site.shutdown()
        thread.join()
        site.server_close()
