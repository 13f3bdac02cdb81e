"""Downloads against a real server on the loopback interface, honest and otherwise."""

import hashlib
import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import requests

import kosmosg
from kosmosg.checkpoints.download import Manifest, RemoteFile, download, read_manifest
from kosmosg.checkpoints.transfer import sha256_of
from kosmosg.checkpoints.wire import Policy
from kosmosg.cli import main as cli
from kosmosg.diffusion.settings import CONTROL_TYPES
from kosmosg.errors import DownloadError
from tests.checkpoints.loopback import Reply, Site, running

ROOT = Path(kosmosg.__file__).parents[1]
BODY = random.Random(0).randbytes(200_000)
OTHER = random.Random(1).randbytes(200_000)
SHA = hashlib.sha256(BODY).hexdigest()
DAY = "Mon, 02 Oct 2023 10:00:00 GMT"

BRISK = Policy(
    connect_timeout=2, read_timeout=5, attempts=4, first_wait=0.001, longest_wait=0.01, chunk=8192
)
IMPATIENT = Policy(read_timeout=0.15, attempts=4, first_wait=0.001, longest_wait=0.01)


@pytest.fixture
def site() -> Iterator[Site]:
    with running() as site:
        yield site


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of the user's environment reaches a test, and no test reaches beyond loopback."""
    for name in ("HF_TOKEN", "HF_ENDPOINT", "KOSMOSG_WEIGHTS_URL", "KOSMOSG_TOKENIZER_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return tmp_path / "weights"


def manifest(**files: str | dict[str, Any]) -> Manifest:
    """A manifest of one group, each file with its own name as its path unless it says otherwise."""
    entries = [
        {"name": name, "path": PurePosixPath(f"{name}.bin")}
        | ({"url": file} if isinstance(file, str) else file)
        for name, file in files.items()
    ]
    return Manifest(
        source=Path("manifest.toml"),
        default=("model",),
        groups={"model": tuple(RemoteFile(**entry) for entry in entries)},
    )


def leftovers(weights: Path) -> set[str]:
    return {path.name for path in weights.rglob("*") if path.is_file()} - {
        ".download.lock",
        "manifest.lock",
    }


def recorded(weights: Path) -> dict[str, dict[str, Any]]:
    return json.loads((weights / "manifest.lock").read_text())["files"]


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
    "changes the size": (
        [
            Reply(cut=7, body=OTHER + b"x", etag=None, modified=DAY),
            Reply(modified=DAY, cut=9),
            Reply(),
        ],
        [(None, None), ("bytes=7-", DAY), (None, None)],
        200_016,
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
    "sends chunks": ([Reply(framing="chunked")], [(None, None)], 200_000),
    "breaks off between chunks": (
        [Reply(framing="chunked", cut=70_000), Reply(framing="chunked")],
        [(None, None), ("bytes=70000-", '"one"')],
        200_000,
    ),
}


@pytest.mark.parametrize(("replies", "asked", "sent"), RECOVERIES.values(), ids=RECOVERIES)
def test_the_file_comes_whole_from_a_server_that(
    site: Site,
    weights: Path,
    replies: list[Reply],
    asked: list[tuple[str | None, str | None]],
    sent: int,
) -> None:
    url = site.add("/model", BODY, *replies)
    (path,) = download(manifest(model=url), weights, progress=False, policy=BRISK)
    assert path == weights / "model.bin"
    assert path.read_bytes() == BODY
    assert leftovers(weights) == {"model.bin"}
    gets = site.gets()
    assert [(get.headers.get("Range"), get.headers.get("If-Range")) for get in gets] == asked
    assert sum(get.sent for get in gets) == sent
    assert recorded(weights)["model.bin"]["sha256"] == SHA


def test_a_stall_counts_as_a_break(site: Site, weights: Path) -> None:
    url = site.add("/model", BODY, Reply(cut=70_000, stall=True), Reply())
    (path,) = download(manifest(model=url), weights, progress=False, policy=IMPATIENT)
    assert path.read_bytes() == BODY
    assert [get.sent for get in site.gets()] == [70_000, 130_000]


def test_a_known_hash_allows_to_resume_without_a_validator(site: Site, weights: Path) -> None:
    url = site.add("/model", BODY, Reply(cut=70_000, etag=None), Reply(etag=None))
    files = manifest(model={"url": url, "sha256": SHA})
    (path,) = download(files, weights, progress=False, policy=BRISK)
    assert path.read_bytes() == BODY
    assert [get.sent for get in site.gets()] == [70_000, 130_000]


def test_real_progress_forgives_earlier_breaks(site: Site, weights: Path) -> None:
    url = site.add("/model", BODY, *[Reply(cut=20_000)] * 9, Reply())
    steady = Policy(attempts=2, progress=20_000, first_wait=0.001)
    (path,) = download(manifest(model=url), weights, progress=False, policy=steady)
    assert path.read_bytes() == BODY
    assert len(site.gets()) == 10


def test_a_complete_part_is_only_checked(site: Site, weights: Path) -> None:
    """As after a kill between the last byte and the rename."""
    url = site.add("/model", BODY, Reply(cut=199_999))
    once = Policy(attempts=1)
    with pytest.raises(DownloadError, match="given up"):
        download(manifest(model=url), weights, progress=False, policy=once)
    with (weights / "model.bin.part").open("ab") as part:
        part.write(BODY[-1:])
    (path,) = download(manifest(model=url), weights, progress=False, policy=once)
    assert path.read_bytes() == BODY
    assert len(site.gets()) == 1


# What the server does, what the manifest knows, what the message says, requests, bytes kept.
REFUSALS = {
    "no access": ([Reply(status=403)], {}, "status 403.*private.*HF_TOKEN", 1, 0),
    "no login": ([Reply(status=401)], {}, "status 401.*HF_TOKEN", 1, 0),
    "nothing there": ([Reply(status=404)], {}, "status 404.*check the address", 1, 0),
    "another success": ([Reply(status=204)], {}, "status 204.*another address", 1, 0),
    "failing for good": (
        [Reply(status=500)],
        {},
        "after 4 failed tries.*status 500.*check conn",
        4,
        0,
    ),
    "breaking for good": (
        [Reply(cut=50_000)] * 3 + [Reply(cut=0)],
        {},
        r"after 4 failed tries.*goes on from the 150\.00 kB",
        4,
        150_000,
    ),
    "size unlike the manifest": (
        [Reply()],
        {"size": 1234},
        "offers 200000 bytes, but the file must have 1234.*another address",
        1,
        0,
    ),
    "size as little promised as kept": (
        [Reply(framing="chunked")],
        {"size": 200_001},
        "what came has 200000 bytes, not 200001.*Run the command again",
        1,
        0,
    ),
    "more than the size": (
        [Reply(framing="chunked")],
        {"size": 70_000},
        "sends more than the 70000 bytes",
        1,
        0,
    ),
    "wrong hash": (
        [Reply(body=OTHER)],
        {"sha256": SHA},
        f"what came has {hashlib.sha256(OTHER).hexdigest()} as SHA-256, not {SHA}.*thrown away",
        1,
        0,
    ),
    "no end to tell": ([Reply(framing="close")], {}, "does not say how long", 1, 0),
    "web page": (
        [Reply(headers={"Content-Type": "text/html; charset=utf-8"})],
        {},
        "web page.*address of the file itself",
        1,
        0,
    ),
    "compressed": ([Reply(headers={"Content-Encoding": "gzip"})], {}, "plain file", 1, 0),
    "redirect to a file": (
        [Reply(status=302, headers={"Location": "file:///etc/hostname"})],
        {},
        "not an address of the web.*Only http and https",
        1,
        0,
    ),
    "redirect to nonsense": (
        [Reply(status=302, headers={"Location": "http://[::1/"})],
        {},
        "address that cannot be read",
        1,
        0,
    ),
    "redirect in a circle": (
        [Reply(status=302, headers={"Location": "/model"})],
        {},
        "redirected without end",
        9,
        0,
    ),
}


@pytest.mark.parametrize(
    ("replies", "known", "message", "gets", "kept"), REFUSALS.values(), ids=REFUSALS
)
def test_an_error_names_file_place_and_remedy_for(
    site: Site,
    weights: Path,
    replies: list[Reply],
    known: dict[str, Any],
    message: str,
    gets: int,
    kept: int,
) -> None:
    url = site.add("/model", BODY, *replies)
    files = manifest(model={"url": url.replace("//", "//me:pa55@") + "?sig=s3cret"} | known)
    with pytest.raises(DownloadError, match=message) as caught:
        download(files, weights, progress=False, policy=BRISK)
    assert str(caught.value).startswith("model: ")
    assert f"({url})" in str(caught.value)
    assert "pa55" not in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert len(site.gets()) == gets
    assert leftovers(weights) == ({"model.bin.part", "model.bin.part.json"} if kept else set())
    assert not kept or (weights / "model.bin.part").stat().st_size == kept


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://me:pa55@127.0.0.1:1/model?sig=s3cret", "no answer"),
        ("http://me:pa55@[::1/model?sig=s3cret", "cannot be read"),
        ("http://me:pa55@127.0.0.1:port/model?sig=s3cret", "cannot be read"),
        ("ftp://me:pa55@127.0.0.1/model?sig=s3cret", "Only http and https"),
        ("http://127.0.0.1\x00/?sig=s3cret", "cannot be"),
        ("model.bin?sig=s3cret", "Only http and https"),
    ],
)
def test_no_secret_of_an_address_is_told(weights: Path, url: str, message: str) -> None:
    with pytest.raises(DownloadError, match=message) as caught:
        download(manifest(model=url), weights, progress=False, policy=BRISK)
    assert not re.search("pa55|s3cret", str(caught.value))
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_trickle_is_stopped(site: Site, weights: Path) -> None:
    url = site.add("/model", BODY, Reply(drip=0.01))
    hasty = Policy(attempts=2, first_wait=0.001, window=0.1, slowest=10_000)
    start = time.monotonic()
    with pytest.raises(DownloadError, match=r"after 2 failed tries.*only \d+ bytes came in 0 s"):
        download(manifest(model=url), weights, progress=False, policy=hasty)
    assert time.monotonic() - start < 3
    assert len(site.gets()) == 2


def test_a_body_without_end_is_stopped(site: Site, weights: Path) -> None:
    url = site.add("/model", BODY, Reply(framing="chunked"))
    modest = Policy(largest=100_000, chunk=8192)
    with pytest.raises(DownloadError, match="sends more than the 100000 bytes"):
        download(manifest(model=url), weights, progress=False, policy=modest)


@pytest.mark.parametrize(
    ("retry_after", "expected"),
    [
        ("3", (3, 3)),
        ("7200", (60, 60)),
        ("Mon, 02 Oct 2023 10:00:00 GMT", (0.5, 1)),
        ("Sat, 02 Oct 9999 10:00:00 GMT", (60, 60)),
        ("Sat, 02 Oct 99999999999999999999 10:00:00 GMT", (0.5, 1)),
        ("soon", (0.5, 1)),
    ],
)
def test_the_server_may_ask_for_a_bounded_wait(
    site: Site,
    weights: Path,
    monkeypatch: pytest.MonkeyPatch,
    retry_after: str,
    expected: tuple[float, float],
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("kosmosg.checkpoints.transfer.time.sleep", waits.append)
    url = site.add("/model", BODY, Reply(status=503, headers={"Retry-After": retry_after}), Reply())
    policy = Policy(first_wait=1, longest_wait=60)
    download(manifest(model=url), weights, progress=False, policy=policy)
    assert len(waits) == 1
    assert expected[0] <= waits[0] <= expected[1]


def test_waits_grow(site: Site, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("kosmosg.checkpoints.transfer.time.sleep", waits.append)
    url = site.add("/model", BODY, *[Reply(status=500)] * 4, Reply())
    policy = Policy(first_wait=1, longest_wait=4, attempts=5)
    download(manifest(model=url), weights, progress=False, policy=policy)
    for wait, full in zip(waits, [1, 2, 4, 8], strict=True):
        assert min(full / 2, 4) <= wait <= min(full, 4)


def test_what_is_there_and_recorded_is_not_fetched_again(
    site: Site, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = manifest(
        one=site.add("/one", BODY),
        two={"url": site.add("/two", OTHER), "path": PurePosixPath("deep/er/two.bin")},
    )
    paths = download(files, weights, progress=False, policy=BRISK)
    assert [path.read_bytes() for path in paths] == [BODY, OTHER]
    assert {name: entry["size"] for name, entry in recorded(weights).items()} == {
        "deep/er/two.bin": 200_000,
        "one.bin": 200_000,
    }
    site.seen.clear()
    os.utime(paths[0])
    hashed: list[Path] = []
    monkeypatch.setattr(
        "kosmosg.checkpoints.download.sha256_of",
        lambda path: hashed.append(path) or sha256_of(path),
    )
    for _ in range(2):
        assert download(files, weights, progress=False, policy=BRISK) == paths
    assert hashed == [paths[0]]  # once, for its new time stamp
    assert site.seen == []
    assert recorded(weights)["one.bin"]["mtime_ns"] == paths[0].stat().st_mtime_ns


@pytest.mark.parametrize("known", [{}, {"size": 200_000}, {"sha256": SHA}], ids=str)
@pytest.mark.parametrize("spoiled", [OTHER, BODY[:-1]], ids=["other bytes", "a byte short"])
def test_a_file_that_does_not_match_is_an_error_and_stays(
    site: Site, weights: Path, known: dict[str, Any], spoiled: bytes
) -> None:
    files = manifest(model={"url": site.add("/model", BODY)} | known)
    (path,) = download(files, weights, progress=False, policy=BRISK)
    path.write_bytes(spoiled)
    site.seen.clear()
    with pytest.raises(DownloadError, match=re.escape(f"model: {path} is there, but")) as caught:
        download(files, weights, progress=False, policy=BRISK)
    assert "Move it away or delete it" in str(caught.value)
    assert ("manifest.toml" if known else "manifest.lock") in str(caught.value)
    assert path.read_bytes() == spoiled
    assert site.seen == []


def test_a_fresh_copy_must_be_the_recorded_file(site: Site, weights: Path) -> None:
    files = manifest(model=site.add("/model", BODY, Reply(), Reply(body=OTHER)))
    (path,) = download(files, weights, progress=False, policy=BRISK)
    path.unlink()
    with pytest.raises(DownloadError, match=f"not {SHA}"):
        download(files, weights, progress=False, policy=BRISK)
    assert not path.exists()


def test_a_newer_manifest_overrules_the_lock(site: Site, weights: Path) -> None:
    url = site.add("/model", OTHER)
    (path,) = download(manifest(model=url), weights, progress=False, policy=BRISK)
    newer = manifest(model={"url": site.add("/newer", BODY), "sha256": SHA})
    with pytest.raises(DownloadError, match=r"is there, but.*manifest\.toml"):
        download(newer, weights, progress=False, policy=BRISK)
    path.unlink()
    (path,) = download(newer, weights, progress=False, policy=BRISK)
    assert path.read_bytes() == BODY


@pytest.mark.parametrize("linked", [False, True], ids=["file", "link"])
def test_a_file_put_there_by_hand_is_taken_and_recorded(
    weights: Path, tmp_path: Path, linked: bool
) -> None:
    weights.mkdir()
    elsewhere = tmp_path / "elsewhere.bin"
    (elsewhere if linked else weights / "model.bin").write_bytes(BODY)
    if linked:
        (weights / "model.bin").symlink_to(elsewhere)
    download(manifest(model="${KOSMOSG_WEIGHTS_URL}"), weights, progress=False, policy=BRISK)
    assert recorded(weights)["model.bin"]["sha256"] == SHA


def test_a_file_put_there_by_hand_must_have_the_known_size(weights: Path) -> None:
    weights.mkdir()
    (weights / "model.bin").write_bytes(BODY)
    files = manifest(model={"url": "http://127.0.0.1:1/", "size": 200_001})
    with pytest.raises(DownloadError, match=r"with 200000 bytes it is not .* 200001 bytes"):
        download(files, weights, progress=False, policy=BRISK)


@pytest.mark.parametrize("text", ["", "[]", '{"files": {"model.bin": {"size": 3}}}'])
def test_a_damaged_lock_file_is_an_error(weights: Path, text: str) -> None:
    weights.mkdir()
    (weights / "manifest.lock").write_text(text)
    with pytest.raises(DownloadError, match=r"manifest\.lock cannot be read.*delete it"):
        download(manifest(model="http://127.0.0.1:1/"), weights, progress=False, policy=BRISK)


def test_the_disk_must_hold_all_that_is_to_come(
    site: Site, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = manifest(
        small={"url": site.add("/small", BODY), "size": 200_000}, large=site.add("/large", OTHER)
    )
    usage = shutil.disk_usage(weights.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=399_999))
    with pytest.raises(DownloadError, match=r"needs 400\.00 kB, but only 400\.00 kB are free"):
        download(files, weights, progress=False, policy=BRISK)
    assert [(seen.method, seen.path) for seen in site.seen] == [("HEAD", "/large")]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=400_000))
    assert len(download(files, weights, progress=False, policy=BRISK)) == 2


def test_the_disk_is_checked_again_if_head_told_nothing(
    site: Site, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = manifest(model=site.add("/model", BODY, Reply(head=403)))
    usage = shutil.disk_usage(weights.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=199_999))
    with pytest.raises(DownloadError, match=r"needs 200\.00 kB"):
        download(files, weights, progress=False, policy=BRISK)
    assert [seen.method for seen in site.seen] == ["HEAD", "GET"]
    assert leftovers(weights) == set()


def test_what_is_already_there_needs_no_space(
    site: Site, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the bytes of a part that goes on, nor those of a part that is thrown away."""
    part = weights / "model.bin.part"
    usage = shutil.disk_usage(weights.parent)
    full = Reply(cut=150_000)

    def usage_of_a_small_disk(_: Path) -> object:
        return usage._replace(free=200_000 - (part.stat().st_size if part.exists() else 0))

    monkeypatch.setattr(shutil, "disk_usage", usage_of_a_small_disk)
    files = manifest(model={"url": site.add("/model", BODY, full, Reply()), "size": 200_000})
    with pytest.raises(DownloadError, match="given up"):
        download(files, weights, progress=False, policy=Policy(attempts=1))
    assert download(files, weights, progress=False, policy=Policy(attempts=1))
    shutil.rmtree(weights)
    site.add("/model", BODY, full, Reply(etag='"two"'))
    assert download(files, weights, progress=False, policy=BRISK)


CHILD = """
import sys
from pathlib import Path
from kosmosg.checkpoints.download import download, read_manifest
download(read_manifest(Path(sys.argv[1])), Path(sys.argv[2]))
"""


def test_two_at_once_and_a_kill_in_the_middle(site: Site, weights: Path, tmp_path: Path) -> None:
    url = site.add("/model", BODY, Reply(cut=3_000, stall=True), Reply())
    written = tmp_path / "manifest.toml"
    written.write_text(f'[[model]]\nname = "model"\nurl = "{url}"\npath = "model.bin"\n')
    part = weights / "model.bin.part"
    weights.mkdir()
    (weights / ".download.lock").write_text("an earlier owner with a long name\n")
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(written), str(weights)],
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
    )
    try:
        until = time.monotonic() + 20
        while not (part.exists() and part.stat().st_size == 3_000):
            assert child.poll() is None and time.monotonic() < until
            time.sleep(0.01)
        with pytest.raises(DownloadError, match=rf"another download \(process {child.pid}\)"):
            download(read_manifest(written), weights, progress=False, policy=BRISK)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    (path,) = download(read_manifest(written), weights, progress=False, policy=BRISK)
    assert path.read_bytes() == BODY
    assert [get.sent for get in site.gets()] == [3_000, 197_000]
    assert leftovers(weights) == {"model.bin"}


def test_a_redirect_does_not_step_down_from_https(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def moved(*_: object, **__: object) -> requests.Response:
        response = requests.Response()
        response.status_code, response.raw = 302, io.BytesIO()
        response.headers["Location"] = "http://127.0.0.1:1/model?sig=s3cret"
        return response

    monkeypatch.setattr(requests.Session, "request", moved)
    with pytest.raises(DownloadError, match=r"unprotected http://127\.0\.0\.1:1/model \("):
        download(manifest(model="https://example.org/"), weights, progress=False, policy=BRISK)


@pytest.mark.parametrize("known", [True, False])
def test_the_token_goes_to_its_origin_only(
    site: Site, weights: Path, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    monkeypatch.setenv("HF_TOKEN", " hf_secret\n")
    away = f"http://localhost:{site.server_port}/away"
    site.add("/away", BODY)
    site.add("/gate", b"", Reply(status=307, headers={"Location": away}))
    url = site.add("/model", b"", Reply(status=302, headers={"Location": "/gate"}))
    policy = Policy(token_origins=(site.origin,) if known else ("https://huggingface.co",))
    (path,) = download(manifest(model=url), weights, progress=False, policy=policy)
    assert path.read_bytes() == BODY
    token = "Bearer hf_secret" if known else None
    assert [(get.path, get.headers.get("Authorization")) for get in site.gets()] == [
        ("/model", token),
        ("/gate", token),
        ("/away", None),
    ]


def test_a_netrc_entry_does_not_replace_the_token(
    site: Site, weights: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password pa55\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    policy = Policy(token_origins=(site.origin,))
    files = manifest(model=site.add("/model", BODY))
    download(files, weights, progress=False, policy=policy)
    assert site.gets()[0].headers["Authorization"] == "Bearer hf_secret"


@pytest.mark.parametrize("way", ["argument", "environment", "both"])
def test_a_mirror_stands_in_for_the_hub(
    site: Site, weights: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    site.add("/mirror/some/model", BODY)
    mirror = f"{site.origin}/mirror/"
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    if way != "argument":
        monkeypatch.setenv("HF_ENDPOINT", mirror if way == "environment" else "http://127.0.0.1:1")
    files = manifest(hub="https://huggingface.co/some/model", plain=site.add("/some/other", OTHER))
    (hub, plain) = download(
        files, weights, None, None if way == "environment" else mirror, False, policy=BRISK
    )
    assert hub.read_bytes() == BODY
    assert plain.read_bytes() == OTHER
    assert [get.path for get in site.gets()] == ["/mirror/some/model", "/some/other"]
    assert not any("Authorization" in seen.headers for seen in site.seen)


def test_an_unset_address_says_what_to_do(site: Site, weights: Path) -> None:
    """With the manifest that is committed, and before anything else is fetched."""
    committed = read_manifest(ROOT / "weights" / "manifest.toml")
    with pytest.raises(DownloadError) as caught:
        download(committed, weights, mirror=site.origin, progress=False, policy=BRISK)
    message = str(caught.value)
    assert message.startswith("kosmos-g: KOSMOSG_WEIGHTS_URL is not set")
    assert "The authors' own links answer 403" in message
    assert "Set KOSMOSG_WEIGHTS_URL to a copy you have access to" in message
    assert f"put the file at {weights / 'checkpoints' / 'kosmos-g.pt'} yourself" in message
    assert "kosmosg convert" in message
    assert site.seen == []


@pytest.mark.parametrize(
    ("url", "variable", "urls", "expected"),
    [
        ("${PLACE}", "{site}/set", {}, "/set"),
        ("${PLACE}", "{site}/set?sig=a/", {}, "/set?sig=a/"),
        ("${PLACE:-{site}/default}/model", None, {}, "/default/model"),
        ("${PLACE:-{site}/default}/model", "{site}/set/", {}, "/set/model"),
        ("${PLACE}", None, {"model": "{site}/given"}, "/given"),
        ("${PLACE}", "{site}/set", {"model": "{site}/given"}, "/given"),
    ],
)
def test_where_an_address_comes_from(
    site: Site,
    weights: Path,
    monkeypatch: pytest.MonkeyPatch,
    url: str,
    variable: str | None,
    urls: dict[str, str],
    expected: str,
) -> None:
    def here(text: str) -> str:
        return text.replace("{site}", site.origin)

    if variable is not None:
        monkeypatch.setenv("PLACE", here(variable))
    site.add(expected.partition("?")[0], BODY)
    given = {name: here(value) for name, value in urls.items()}
    files = manifest(model=here(url))
    (path,) = download(files, weights, progress=False, urls=given, policy=BRISK)
    assert path.read_bytes() == BODY
    assert [get.path for get in site.gets()] == [expected]


def test_groups_are_chosen_by_name(site: Site, weights: Path, tmp_path: Path) -> None:
    written = tmp_path / "manifest.toml"
    written.write_text(
        'default = ["usual"]\n'
        + "".join(
            f'[[{group}]]\nname = "{group}"\nurl = "{site.add("/" + group, BODY)}"\n'
            f'path = "{group}.bin"\n'
            for group in ("usual", "extra")
        )
    )
    files = read_manifest(written)
    assert download(files, weights, progress=False) == [weights / "usual.bin"]
    assert download(files, weights, ["extra", "extra"], progress=False) == [weights / "extra.bin"]
    with pytest.raises(DownloadError, match="no group 'all'; there are usual, extra"):
        download(files, weights, ["all"])
    with pytest.raises(DownloadError, match="no file named other"):
        download(files, weights, urls={"other": "http://127.0.0.1:1/"})


FILE = 'name = "a"\nurl = "http://127.0.0.1/a"\n'
BAD_MANIFESTS = {
    "not TOML": ("[[", "is not TOML"),
    "no path": (f"[[g]]\n{FILE}", "file a: lacks path"),
    "unknown field": (f'[[g]]\n{FILE}path = "a"\nmd5 = "1"', "unknown field md5"),
    "wrong kind": (f'[[g]]\n{FILE}path = "a"\nsize = "1"', "size is '1', not a int"),
    "short hash": (f'[[g]]\n{FILE}path = "a"\nsha256 = "abc"', "64 lower-case"),
    "number": ("g = 3", r"write each file as \[\[group\]\]"),
    "unknown default": (f'default = ["h"]\n[[g]]\n{FILE}path = "a"', "no group 'h'"),
    "name twice": (
        f'[[g]]\n{FILE}path = "a"\n[[h]]\n{FILE}path = "b"',
        "name used twice: a",
    ),
    "path twice": (
        f'[[g]]\n{FILE}path = "a"\n[[h]]\nname = "b"\nurl = "http://x/"\npath = "./a"',
        "path used twice: a",
    ),
    **{
        f"path {path}": (f"[[g]]\n{FILE}path = '{path}'", "leaves the weights directory")
        for path in ("../a", "a/../../b", "/etc/a", ".", r"..\a")
    },
    **{
        f"path {path}": (f"[[g]]\n{FILE}path = '{path}'", "used by the download itself")
        for path in ("manifest.lock", ".download.lock", "a.part", "a.part.json")
    },
}


@pytest.mark.parametrize(("text", "message"), BAD_MANIFESTS.values(), ids=BAD_MANIFESTS)
def test_a_bad_manifest_is_refused(tmp_path: Path, text: str, message: str) -> None:
    written = tmp_path / "manifest.toml"
    written.write_text(text)
    with pytest.raises(DownloadError, match=message):
        read_manifest(written)


def test_a_missing_manifest_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"nowhere\.toml: cannot be read"):
        read_manifest(tmp_path / "nowhere.toml")


def test_a_link_does_not_lead_out_of_the_directory(
    site: Site, weights: Path, tmp_path: Path
) -> None:
    weights.mkdir()
    (tmp_path / "outside").mkdir()
    (weights / "deep").symlink_to(tmp_path / "outside")
    files = manifest(
        model={"url": site.add("/model", BODY), "path": PurePosixPath("deep/er/model.bin")}
    )
    with pytest.raises(DownloadError, match="symbolic link leads out of"):
        download(files, weights, progress=False, policy=BRISK)
    assert list((tmp_path / "outside").iterdir()) == []
    assert site.seen == []


def test_a_part_that_is_a_link_is_not_written_through(
    site: Site, weights: Path, tmp_path: Path
) -> None:
    files = manifest(model=site.add("/model", BODY, Reply(cut=7), Reply()))
    with pytest.raises(DownloadError, match="given up"):
        download(files, weights, progress=False, policy=Policy(attempts=1))
    outside = (weights / "model.bin.part").rename(tmp_path / "outside")
    (weights / "model.bin.part").symlink_to(outside)
    (path,) = download(files, weights, progress=False, policy=BRISK)
    assert path.read_bytes() == BODY
    assert not path.is_symlink()
    assert outside.read_bytes() == BODY[:7]


@pytest.mark.parametrize("text", ["", "[]", '{"size": 200000, "etag":'])
def test_a_part_of_unknown_origin_is_not_gone_on_with(site: Site, weights: Path, text: str) -> None:
    weights.mkdir()
    (weights / "model.bin.part").write_bytes(OTHER[:7])
    (weights / "model.bin.part.json").write_text(text)
    (path,) = download(manifest(model=site.add("/model", BODY)), weights, progress=False)
    assert path.read_bytes() == BODY
    assert leftovers(weights) == {"model.bin"}


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.symlink_to("nowhere")])
def test_something_else_in_the_place_of_a_file_is_an_error(
    weights: Path, make: Callable[[Path], None]
) -> None:
    weights.mkdir()
    make(weights / "model.bin")
    with pytest.raises(DownloadError, match=r"model\.bin: is not a file"):
        download(manifest(model="http://127.0.0.1:1/"), weights, progress=False, policy=BRISK)


def test_a_directory_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "weights").write_text("a file")
    with pytest.raises(DownloadError, match="weights: cannot be read or written"):
        download(manifest(model="http://127.0.0.1:1/"), tmp_path / "weights", policy=BRISK)


def test_progress_goes_to_stderr_and_nothing_to_stdout(
    site: Site, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = manifest(one=site.add("/one", BODY, Reply(cut=9), Reply()), two=site.add("/two", OTHER))
    download(files, weights, policy=BRISK)
    out, err = capsys.readouterr()
    assert out == ""
    assert re.search(r"one: 100%.*200k/200k", err)
    assert re.search(r"two: 100%.*200k/200k", err)
    shutil.rmtree(weights)
    download(files, weights, progress=False, policy=BRISK)
    assert capsys.readouterr() == ("", "")


def test_the_committed_manifest() -> None:
    committed = read_manifest(ROOT / "weights" / "manifest.toml")
    controlnets = {f"controlnet {kind}" for kind in CONTROL_TYPES}
    assert set(committed.default) == {"stable-diffusion", "tokenizer", "checkpoint"}
    others = {"text-encoder", "inception", *controlnets}
    assert set(committed.groups) - set(committed.default) == others
    for file in (file for files in committed.groups.values() for file in files):
        assert file.url.startswith(("https://", "${"))
        assert "${" in file.url or PurePosixPath(file.url).suffix == file.path.suffix
    paths = {str(file.path) for file in committed.groups["stable-diffusion"]}
    for folder, weight in (
        ("unet", "diffusion_pytorch_model"),
        ("vae", "diffusion_pytorch_model"),
        ("safety_checker", "model"),
    ):
        assert f"stable-diffusion-v1-5/{folder}/{weight}.safetensors" in paths
        assert f"stable-diffusion-v1-5/{folder}/config.json" in paths
    for kind in CONTROL_TYPES:
        paths = {str(file.path) for file in committed.groups[f"controlnet {kind}"]}
        assert f"controlnet/{kind}/config.json" in paths
        assert f"controlnet/{kind}/diffusion_pytorch_model.safetensors" in paths
        rest = {path for path in paths if not path.startswith(f"controlnet/{kind}/")}
        assert all(path.startswith(f"annotators/{kind}/") for path in rest)
        assert bool(rest) == (kind not in ("canny", "shuffle", "ip2p"))


def test_kinds_of_controlnets_are_named_after_the_word(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    urls = {name: site.add(f"/{name}", name.encode()) for name in ("canny", "depth", "other")}
    entries = "".join(
        f'[["{group}"]]\nname = "{name}"\nurl = "{urls[name]}"\npath = "{name}"\n'
        for group, name in (
            ("controlnet canny", "canny"),
            ("controlnet depth", "depth"),
            ("other", "other"),
        )
    )
    manifest = tmp_path / "manifest.toml"
    manifest.write_text(entries, encoding="utf-8")

    def fetch(*words: str) -> tuple[int, set[str]]:
        folder = tmp_path / "-".join(words)
        code = cli.main(["download", *words, "--manifest", str(manifest), "--weights", str(folder)])
        return code, {path.name for path in folder.glob("[a-z]*") if path.suffix != ".lock"}

    assert fetch("controlnet", "canny", "depth") == (0, {"canny", "depth"})
    assert fetch("other", "controlnet", "depth") == (0, {"other", "depth"})
    assert fetch("controlnet", "canny", "other") == (0, {"canny", "other"})
    assert fetch("controlnet")[0] == 1
    assert "Name the kinds after controlnet: canny, depth" in capsys.readouterr().err
