"""Files on a disk, in archives and on the web, where servers do what they like."""

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from kosmosg.checkpoints.wire import Policy
from kosmosg.curation.places import Address, Fetcher, Lost, Stretch
from kosmosg.curation.records import Rejected
from kosmosg.data.skipping import BadSample
from tests.checkpoints.loopback import Reply, Site, running

BODY = bytes(range(256)) * 40
BRISK = Policy(
    connect_timeout=2,
    read_timeout=5,
    attempts=3,
    first_wait=0.001,
    longest_wait=0.01,
    largest=20_000,
)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("NO_PROXY", "*")
    with running() as site:
        yield site


def test_a_file_and_a_part_of_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(BODY)
    fetcher = Fetcher()
    assert fetcher.read(Stretch(tmp_path / "file")) == BODY
    assert fetcher.read(Stretch(tmp_path / "file", 3, 5)) == BODY[3:8]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    fetcher = Fetcher()
    with pytest.raises(Rejected, match="unreadable: No such file"):
        fetcher.read(Stretch(tmp_path / "none"))
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(Rejected, match="unreadable: not a regular file"):
            fetcher.read(Stretch(path))
    (tmp_path / "file").write_bytes(BODY)
    with pytest.raises(BadSample, match="ends 1 bytes too early"):
        fetcher.read(Stretch(tmp_path / "file", len(BODY) - 4, 5))
    with pytest.raises(Rejected, match=r"unreadable: .* MB, more than"):
        fetcher.read(Stretch(tmp_path / "file"), largest=1000)
    with pytest.raises(Rejected, match="unreadable"):
        fetcher.read(Stretch(tmp_path / "file", 0, -1))


def test_a_download_and_its_second_try(site: Site) -> None:
    url = site.add("/a.jpg", BODY, Reply(status=503), Reply(cut=100), Reply())
    assert Fetcher(policy=BRISK).read(Address(url)) == BODY
    assert len(site.gets()) == 3


def test_threads_share_a_fetcher(site: Site) -> None:
    url, fetcher = site.add("/a.jpg", BODY), Fetcher(policy=BRISK)
    found: list[bytes] = []
    threads = [Thread(target=lambda: found.append(fetcher.read(Address(url)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [BODY] * 4


@pytest.mark.parametrize(
    ("replies", "problem", "gets"),
    [
        ([Reply(status=404)], "status 404", 1),
        ([Reply(status=503)], "given up after 3 tries: status 503", 3),
        ([Reply(body=bytes(20_001))], "larger than 0 MB", 1),
        ([Reply(body=bytes(20_001), framing="chunked")], "larger than 0 MB", 1),
        ([Reply(headers={"Content-Type": "text/html"})], "the server sends a web page", 1),
        ([Reply(cut=50)], "given up after 3 tries: the connection broke", 3),
        ([Reply(status=302, headers={"Location": "file:///etc/passwd"})], "not an address", 1),
    ],
)
def test_downloads_that_fail(site: Site, replies: list[Reply], problem: str, gets: int) -> None:
    url = site.add("/a.jpg", BODY, *replies)
    with pytest.raises(Rejected, match=f"download: {problem}"):
        Fetcher(policy=BRISK).read(Address(url))
    assert len(site.gets()) == gets


HURRIED = Policy(read_timeout=5, attempts=1, window=0.2)


def test_a_server_that_trickles(site: Site) -> None:
    """Every byte comes before the connection times out, and yet the whole takes too long."""
    url = site.add("/a.jpg", BODY, Reply(drip=0.05))
    fetcher = Fetcher(policy=HURRIED)
    with pytest.raises(Rejected, match="nothing whole came in 0 s"):
        fetcher.read(Address(url))
    # Whoever comes next does not get the connection that is still in use.
    assert fetcher.read(Address(site.add("/b.jpg", BODY))) == BODY


def test_headers_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = Thread(target=say_headers, args=(server,))
        thread.start()
        begun = time.monotonic()
        with pytest.raises(Rejected, match="nothing whole came in 0 s"):
            Fetcher(policy=HURRIED).read(Address(f"http://127.0.0.1:{server.getsockname()[1]}/"))
        assert time.monotonic() - begun < 3
        thread.join()


def say_headers(server: socket.socket) -> None:
    """Answer with one header after the other, for longer than anybody should listen."""
    connection, _ = server.accept()
    with connection:
        connection.sendall(b"HTTP/1.1 200 OK\r\n")
        for number in range(60):
            connection.sendall(f"X-{number}: y\r\n".encode())
            time.sleep(0.02)


def test_what_an_archive_has_lost() -> None:
    with pytest.raises(BadSample, match="broken-shard: cut off at byte 9"):
        Fetcher().read(Lost("cut off at byte 9"))


@pytest.mark.parametrize("url", ["ftp://host/a.jpg", "file:///etc/passwd", "http://[/a.jpg", "://"])
def test_only_addresses_of_the_web(url: str) -> None:
    with pytest.raises(Rejected, match=r"download: (not an address of the web|.*cannot be read)"):
        Fetcher(policy=BRISK).read(Address(url))
