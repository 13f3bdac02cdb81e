"""One file from a real server on the loopback interface, honest and otherwise."""

import hashlib
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from kosmosg.checkpoints import fetch as module
from kosmosg.checkpoints.fetch import fetch
from kosmosg.checkpoints.manifest import RemoteFile
from kosmosg.errors import DownloadError
from tests.checkpoints.loopback import Reply, Site, running

BODY = random.Random(0).randbytes(200_000)
OTHER = random.Random(1).randbytes(200_000)
SHA = hashlib.sha256(BODY).hexdigest()
DAY = "Mon, 02 Oct 2023 10:00:00 GMT"


@pytest.fixture
def site() -> Iterator[Site]:
    with running() as site:
        yield site


@pytest.fixture(autouse=True)
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITS", (0.0, 0.0, 0.0))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "weights" / "model.bin"


def get(url: str, target: Path, **known: Any) -> bytes:
    file = RemoteFile(name="model", url=url, path=PurePosixPath("model.bin"), **known)
    fetch(file, target, token=None, progress=False)
    assert [path.name for path in target.parent.iterdir()] == ["model.bin"]
    return target.read_bytes()


def parts(target: Path) -> list[int]:
    return [path.stat().st_size for path in target.parent.iterdir()]


# What the server does, which Range and If-Range the requests carry, and how much is sent in all.
RECOVERIES = {
    "honest": ([Reply()], [(None, None)], 200_000),
    "breaks twice": (
        [Reply(cut=70_000), Reply(cut=50_000), Reply()],
        [(None, None), ("bytes=70000-", '"one"'), ("bytes=120000-", '"one"')],
        200_000,
    ),
    "breaks before the first byte": (
        [Reply(cut=0), Reply()],
        [(None, None), (None, None)],
        200_000,
    ),
    "breaks more often than it may without a new byte": (
        [Reply(cut=20_000)] * 9 + [Reply()],
        [(None, None)] + [(f"bytes={at}0000-", '"one"') for at in range(2, 20, 2)],
        200_000,
    ),
    "ignores Range": (
        [Reply(cut=70_000), Reply(ranges=False)],
        [(None, None), ("bytes=70000-", '"one"')],
        270_000,
    ),
    "fails twice": ([Reply(status=500), Reply(status=503), Reply()], [(None, None)] * 3, 200_000),
    "says too many requests": ([Reply(status=429), Reply()], [(None, None)] * 2, 200_000),
    "changes the file": (
        [Reply(cut=70_000, body=OTHER, etag='"zero"'), Reply()],
        [(None, None), ("bytes=70000-", '"zero"')],
        270_000,
    ),
    "changes the file and ignores If-Range": (
        [Reply(cut=70_000, body=OTHER, etag='"zero"'), Reply(conditions=False, cut=9), Reply()],
        [(None, None), ("bytes=70000-", '"zero"'), (None, None)],
        270_009,
    ),
    "has only a weak ETag and a date": (
        [Reply(cut=7, etag='W/"one"', modified=DAY), Reply(etag='W/"one"', modified=DAY)],
        [(None, None), ("bytes=7-", DAY)],
        200_000,
    ),
    "has nothing to compare": (
        [Reply(cut=7, etag=None), Reply(etag=None)],
        [(None, None), (None, None)],
        200_007,
    ),
    "refuses the range": (
        [Reply(cut=7), Reply(status=416), Reply()],
        [(None, None), ("bytes=7-", '"one"'), (None, None)],
        200_007,
    ),
    "answers another range": (
        [Reply(cut=7), Reply(headers={"Content-Range": "bytes 0-199999/200000"}, cut=9), Reply()],
        [(None, None), ("bytes=7-", '"one"'), (None, None)],
        200_016,
    ),
    "leaves the size open in the range": (
        [Reply(cut=7), Reply(headers={"Content-Range": "bytes 7-199999/*"})],
        [(None, None), ("bytes=7-", '"one"')],
        200_000,
    ),
    "sends less than the range": (
        [
            Reply(cut=7),
            Reply(
                cut=50,
                headers={"Content-Range": "bytes 7-199999/200000", "Content-Length": "50"},
            ),
            Reply(),
        ],
        [(None, None), ("bytes=7-", '"one"'), ("bytes=57-", '"one"')],
        200_000,
    ),
    "breaks off between chunks": (
        [Reply(framing="chunked", cut=70_000), Reply(framing="chunked")],
        [(None, None), ("bytes=70000-", '"one"')],
        200_000,
    ),
}


@pytest.mark.parametrize(("replies", "asked", "sent"), RECOVERIES.values(), ids=RECOVERIES)
def test_the_file_comes_whole_from_a_server_that(
    site: Site,
    target: Path,
    replies: list[Reply],
    asked: list[tuple[str | None, str | None]],
    sent: int,
) -> None:
    assert get(site.add("/model", BODY, *replies), target) == BODY
    gets = site.seen
    assert [(each.headers.get("Range"), each.headers.get("If-Range")) for each in gets] == asked
    assert sum(each.sent for each in gets) == sent


def test_a_stall_counts_as_a_break(
    site: Site, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SILENCE", 0.2)
    url = site.add("/model", BODY, Reply(cut=70_000, stall=True), Reply())
    assert get(url, target) == BODY
    assert [each.sent for each in site.seen] == [70_000, 130_000]


def test_a_known_hash_allows_to_resume_anywhere(site: Site, target: Path) -> None:
    """Also from another address that says nothing of versions, and where all was there."""
    for cut in (70_000, 200_000):
        broken = site.add("/model", BODY, Reply(cut=min(cut, 199_999)), Reply(status=404))
        with pytest.raises(DownloadError, match="status 404"):
            get(broken, target, sha256=SHA)
        if cut == 200_000:
            (part,) = target.parent.iterdir()
            part.write_bytes(BODY)
        other = site.add("/other", BODY, Reply(etag=None))
        if cut == 200_000:
            site.add("/other", BODY, Reply(status=416, headers={"Content-Range": "bytes */200000"}))
        site.seen.clear()
        assert get(other, target, sha256=SHA) == BODY
        assert [each.sent for each in site.seen] == [200_000 - cut]
        target.unlink()


def test_another_file_does_not_go_on_with_a_part(site: Site, target: Path) -> None:
    url = site.add("/model", OTHER, Reply(cut=70_000), Reply(status=404))
    with pytest.raises(DownloadError):
        get(url, target)
    assert parts(target) == [70_000]
    (target.parent / "model.bin..part").write_bytes(OTHER)  # of nobody knows what
    site.add("/model", BODY, Reply())
    assert get(url, target, sha256=SHA) == BODY
    assert "Range" not in site.seen[-1].headers


def test_a_part_that_is_a_link_is_not_written_through(
    site: Site, target: Path, tmp_path: Path
) -> None:
    url = site.add("/model", BODY, Reply(cut=7), Reply(status=404))
    with pytest.raises(DownloadError):
        get(url, target)
    (part,) = target.parent.iterdir()
    outside = part.rename(tmp_path / "outside")
    part.symlink_to(outside)
    site.add("/model", BODY, Reply())
    assert get(url, target) == BODY
    assert outside.read_bytes() == BODY[:7]


# What the server does, what is known beforehand, what the message says, requests, bytes kept.
MOVED = {"Location": "file:///etc/hostname"}
REFUSALS: dict[str, tuple[list[Reply], dict[str, Any], str, int, list[int]]] = {
    "no access": ([Reply(status=403)], {}, "status 403.*private or no longer public", 1, []),
    "a gate": (
        [Reply(status=403, headers={"X-Error-Code": "GatedRepo"})],
        {},
        "status 403.*Accept the terms.*hf auth login",
        1,
        [],
    ),
    "a wrong repository": (
        [Reply(status=401, headers={"X-Error-Code": "RepoNotFound"})],
        {},
        "status 401.*no such repository, or it is private.*HF_TOKEN",
        1,
        [],
    ),
    "a wrong revision": (
        [Reply(status=404, headers={"X-Error-Code": "RevisionNotFound"})],
        {},
        "status 404.*check the address",
        1,
        [],
    ),
    "nothing there": ([Reply(status=404)], {}, "status 404.*check the address", 1, []),
    "another success": ([Reply(status=204)], {}, "status 204.*another address", 1, []),
    "failing for good": (
        [Reply(status=500)],
        {},
        "given up after 4 tries.*status 500.*check connection and address",
        4,
        [],
    ),
    "breaking for good": (
        [Reply(cut=50_000)] * 3 + [Reply(cut=0)],
        {},
        r"given up after 4 tries.*goes on from the 150kB",
        7,
        [150_000],
    ),
    "size unlike the manifest": (
        [Reply()],
        {"size": 1234},
        "offers 200000 bytes, not the 1234.*another address",
        1,
        [],
    ),
    "less than the size": (
        [Reply(framing="chunked")],
        {"size": 200_001},
        "offers 200000 bytes, not the 200001",
        2,
        [],
    ),
    "more than the size": (
        [Reply(framing="chunked")],
        {"size": 70_000},
        "sends more than 70000 bytes",
        1,
        [81_920],
    ),
    "wrong hash": (
        [Reply(body=OTHER)],
        {"sha256": SHA},
        f"what came has {hashlib.sha256(OTHER).hexdigest()} as SHA-256, not {SHA}.*thrown away",
        1,
        [],
    ),
    "another hash than the Hub tells": (
        [Reply(body=OTHER, headers={"X-Linked-Etag": f'"{SHA}"'})],
        {},
        f"as SHA-256, not {SHA}.*thrown away",
        1,
        [],
    ),
    "web page": (
        [Reply(headers={"Content-Type": "text/html; charset=utf-8"})],
        {},
        "web page.*address of the file",
        1,
        [],
    ),
    "redirect to a file": ([Reply(status=302, headers=MOVED)], {}, "Only http and https", 1, []),
    "redirect in a circle": (
        [Reply(status=302, headers={"Location": "/model"})],
        {},
        "TooManyRedirects",
        21,
        [],
    ),
}


@pytest.mark.parametrize(
    ("replies", "known", "message", "gets", "kept"), REFUSALS.values(), ids=REFUSALS
)
def test_an_error_names_file_place_and_remedy_for(
    site: Site,
    target: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    replies: list[Reply],
    known: dict[str, Any],
    message: str,
    gets: int,
    kept: list[int],
) -> None:
    url = site.add("/model", BODY, *replies)
    with pytest.raises(DownloadError, match=message) as caught:
        get(url.replace("//", "//me:pa55@") + "?sig=s3cret", target, **known)
    assert str(caught.value).startswith("model: ")
    assert f"({url})" in str(caught.value)
    assert not re.search("pa55|s3cret", str(caught.value) + caplog.text)
    assert len(site.seen) == gets
    assert parts(target) == kept


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://me:pa55@127.0.0.1:1/model?sig=s3cret", "connection failed .*refused"),
        ("http://me:pa55@nowhere.invalid/model?sig=s3cret", "connection failed"),
        ("http://me:pa55@[::1/model?sig=s3cret", "cannot be read"),
        ("http://me:pa55@127.0.0.1:port/model?sig=s3cret", "no usable address"),
        ("ftp://me:pa55@127.0.0.1/model?sig=s3cret", "Only http and https"),
        ("http://127.0.0.1\x00/?sig=s3cret", "no usable address"),
        ("model.bin?sig=s3cret", "Only http and https"),
    ],
)
def test_no_secret_of_an_address_is_told(target: Path, url: str, message: str) -> None:
    with pytest.raises(DownloadError, match=message) as caught:
        get(url, target)
    assert not re.search("pa55|s3cret", str(caught.value))
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_machine_that_is_offline(
    site: Site, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        DownloadError, match=r"HF_HUB_OFFLINE is set .*put the file at .*model\.bin"
    ):
        get(site.add("/model", BODY), target)


@pytest.mark.parametrize(
    ("retry_after", "failures", "waits"),
    [
        ("3", 1, [3]),
        ("7200", 1, [60]),
        ("soon", 1, [1]),
        (None, 4, [1, 2, 4, 8]),
    ],
)
def test_waits_grow_and_the_server_may_ask_for_more(
    site: Site,
    target: Path,
    monkeypatch: pytest.MonkeyPatch,
    retry_after: str | None,
    failures: int,
    waits: list[float],
) -> None:
    found: list[float] = []
    monkeypatch.setattr(module, "WAITS", (1.0, 2.0, 4.0, 8.0))
    monkeypatch.setattr(module.time, "sleep", found.append)
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    failure = Reply(status=503, headers=headers)
    assert get(site.add("/model", BODY, *[failure] * failures, Reply()), target) == BODY
    assert found == waits


def test_a_full_disk(site: Site, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The size is only known from the answer; a part that goes on needs no space again."""
    url = site.add("/model", BODY, Reply(cut=150_000), Reply(status=404))
    with pytest.raises(DownloadError):
        get(url, target)
    site.add("/model", BODY, Reply())
    usage = shutil.disk_usage(target.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=49_999))
    with pytest.raises(DownloadError, match=r"weights has 50\.0kB free, and 50\.0kB are needed"):
        get(url, target)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=50_000))
    assert get(url, target) == BODY


def test_a_folder_that_cannot_be_written(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DownloadError, match=r"model\.bin cannot be written \(Not a directory\)"):
        get(site.add("/model", BODY), tmp_path / "file" / "weights" / "model.bin")


def test_a_disk_that_is_full_on_the_way(site: Site, tmp_path: Path) -> None:
    """/dev/full takes no byte."""
    file = RemoteFile(
        name="model", url=site.add("/model", BODY), path=PurePosixPath("m"), sha256=SHA
    )
    (tmp_path / f"model.bin.{SHA}.part").symlink_to("/dev/full")
    monkeypatch = pytest.MonkeyPatch()
    with monkeypatch.context() as patch:
        patch.setattr(module, "find_part", lambda *_: None)
        with pytest.raises(DownloadError, match=r"cannot be written \(the disk is full\)"):
            fetch(file, tmp_path / "model.bin", token=None, progress=False)


def test_progress_goes_to_stderr(
    site: Site, target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = site.add("/model", BODY, Reply(cut=9), Reply())
    fetch(RemoteFile(name="one", url=url, path=PurePosixPath("m")), target, token=None)
    out, err = capsys.readouterr()
    assert out == ""
    assert re.search(r"one: 100%.*200k/200k", err)
