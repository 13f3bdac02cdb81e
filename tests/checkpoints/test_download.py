"""Filling a weights folder, from a real server on the loopback interface."""

import hashlib
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

import kosmosg
from kosmosg.checkpoints import download as module
from kosmosg.checkpoints.download import download
from kosmosg.checkpoints.manifest import Manifest, RemoteFile, read_manifest
from kosmosg.cli import main as cli
from kosmosg.errors import DownloadError
from kosmosg.utils.files import LOCK
from tests.checkpoints.loopback import Reply, Site, running
from tests.hub import TOKEN, Fault, Hub
from tests.hub import running as hub_running

ROOT = Path(kosmosg.__file__).parents[1]
BODY = random.Random(0).randbytes(200_000)
OTHER = random.Random(1).randbytes(200_000)
SHA = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def site() -> Iterator[Site]:
    with running() as site:
        yield site


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the user's environment reaches a test, and no test reaches beyond loopback."""
    for name in ("TOKEN", "ENDPOINT", "HUB_OFFLINE"):
        monkeypatch.delenv(f"HF_{name}", raising=False)
    for name in ("WEIGHTS", "TOKENIZER"):
        monkeypatch.delenv(f"KOSMOSG_{name}_URL", raising=False)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr("kosmosg.checkpoints.fetch.WAITS", ())
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


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
        source="manifest.toml",
        default=("model",),
        groups={"model": tuple(RemoteFile(**entry) for entry in entries)},
    )


def found(weights: Path) -> set[str]:
    return {path.name for path in weights.rglob("*") if path.is_file()} - {LOCK}


def test_what_is_there_is_not_fetched_again(site: Site, weights: Path) -> None:
    files = manifest(
        one={"url": site.add("/one", BODY), "size": 200_000, "sha256": SHA},
        two={"url": site.add("/two", OTHER), "path": PurePosixPath("deep/er/two.bin")},
    )
    paths = download(files, weights, progress=False)
    assert paths == [weights / "one.bin", weights / "deep" / "er" / "two.bin"]
    assert [path.read_bytes() for path in paths] == [BODY, OTHER]
    assert found(weights) == {"one.bin", "two.bin"}
    site.seen.clear()
    assert download(files, weights, progress=False) == paths
    assert site.seen == []
    assert paths[0].stat().st_mode & 0o444 == 0o444  # a container has other users


@pytest.mark.parametrize("known", [{"size": 200_000}, {"sha256": SHA}], ids=str)
def test_a_file_that_does_not_match_is_an_error_and_stays(
    weights: Path, known: dict[str, Any]
) -> None:
    files = manifest(model={"url": "http://127.0.0.1:1/"} | known)
    weights.mkdir()
    path = weights / "model.bin"
    path.write_bytes(BODY)
    assert download(files, weights, progress=False) == [path]
    path.write_bytes(BODY[:-1])
    with pytest.raises(DownloadError, match=re.escape(f"model: {path} is there, but")) as caught:
        download(files, weights, progress=False)
    assert "of manifest.toml. Move it away or delete it" in str(caught.value)
    assert path.read_bytes() == BODY[:-1]


@pytest.mark.parametrize("linked", [False, True], ids=["file", "link"])
def test_a_file_put_there_by_hand_is_taken(weights: Path, tmp_path: Path, linked: bool) -> None:
    weights.mkdir()
    elsewhere = tmp_path / "elsewhere.bin"
    (elsewhere if linked else weights / "model.bin").write_bytes(BODY)
    if linked:
        (weights / "model.bin").symlink_to(elsewhere)
    (path,) = download(manifest(model="${KOSMOSG_WEIGHTS_URL}"), weights, progress=False)
    assert path.read_bytes() == BODY


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.symlink_to("nowhere")])
def test_something_else_in_the_place_of_a_file_is_an_error(
    weights: Path, make: Callable[[Path], None]
) -> None:
    weights.mkdir()
    make(weights / "model.bin")
    with pytest.raises(DownloadError, match=r"model\.bin: is not a file"):
        download(manifest(model="http://127.0.0.1:1/"), weights, progress=False)


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "weights").write_text("a file")
    with pytest.raises(DownloadError, match="weights cannot be written: File exists"):
        download(manifest(model="http://127.0.0.1:1/"), tmp_path / "weights")


def test_folders_may_lie_on_other_disks(site: Site, weights: Path, tmp_path: Path) -> None:
    weights.mkdir()
    (tmp_path / "disk").mkdir()
    (weights / "checkpoints").symlink_to(tmp_path / "disk")
    file = {"url": site.add("/model", BODY), "path": PurePosixPath("checkpoints/model.bin")}
    download(manifest(model=file), weights, progress=False)
    assert (tmp_path / "disk" / "model.bin").read_bytes() == BODY


def test_the_disk_must_hold_all_that_is_to_come(
    site: Site, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Less what is there of a part."""
    one = {"url": site.add("/one", BODY, Reply(cut=50_000), Reply(status=404)), "size": 200_000}
    with pytest.raises(DownloadError, match="status 404"):
        download(manifest(one=one), weights, progress=False)
    site.add("/one", BODY)
    files = manifest(one=one, two={"url": site.add("/two", OTHER), "size": 200_000})
    site.seen.clear()
    usage = shutil.disk_usage(weights)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=349_999))
    with pytest.raises(DownloadError, match="weights has 350kB free, and 350kB are needed"):
        download(files, weights, progress=False)
    assert site.seen == []
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=350_000))
    assert len(download(files, weights, progress=False)) == 2


CHILD = """
import sys
from pathlib import Path
from kosmosg.checkpoints.download import download
from kosmosg.checkpoints.manifest import read_manifest
download(read_manifest(Path(sys.argv[1])), Path(sys.argv[2]))
"""


def test_two_at_once_and_a_kill_in_the_middle(site: Site, weights: Path, tmp_path: Path) -> None:
    url = site.add("/model", BODY, Reply(cut=3_000, stall=True), Reply())
    written = tmp_path / "manifest.toml"
    written.write_text(f'[[model]]\nname = "model"\nurl = "{url}"\npath = "model.bin"\n')
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(written), str(weights)],
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
    )
    try:
        until = time.monotonic() + 60
        while [path.stat().st_size for path in weights.glob("*.part")] != [3_000]:
            assert child.poll() is None and time.monotonic() < until
            time.sleep(0.01)
        with pytest.raises(DownloadError, match=rf"another download \(process {child.pid}\)"):
            download(read_manifest(written), weights, progress=False)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    (path,) = download(read_manifest(written), weights, progress=False)
    assert path.read_bytes() == BODY
    assert [get.sent for get in site.seen] == [3_000, 197_000]
    assert found(weights) == {"model.bin"}


@pytest.mark.parametrize("way", ["argument", "environment", "both"])
def test_a_mirror_stands_in_for_the_hub_and_sees_no_token(
    site: Site, weights: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    site.add("/mirror/some/model", BODY)
    mirror = f"{site.origin}/mirror/"
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    if way != "argument":
        monkeypatch.setenv("HF_ENDPOINT", mirror if way == "environment" else "http://127.0.0.1:1")
    files = manifest(hub="https://huggingface.co/some/model", plain=site.add("/some/other", OTHER))
    (hub, plain) = download(
        files, weights, None, None if way == "environment" else mirror, progress=False
    )
    assert hub.read_bytes() == BODY
    assert plain.read_bytes() == OTHER
    assert [get.path for get in site.seen] == ["/mirror/some/model", "/some/other"]
    assert not any("Authorization" in seen.headers for seen in site.seen)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hub_running() as hub:
        monkeypatch.setattr(module, "HUB", hub.origin)
        yield hub


def of_hub(hub: Hub, file: str, name: str = "someone/model", revision: str = "main") -> Manifest:
    return manifest(model=f"{hub.origin}/{name}/resolve/{revision}/{file}")


def test_files_of_the_hub(hub: Hub, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The token does not follow to where large files lie; their hash counts unasked."""
    repository = hub.add("someone/model", {"a.safetensors": BODY}, gated=True)
    old = repository.branches["main"]
    repository.commit({"a.safetensors": OTHER})
    files = of_hub(hub, "a.safetensors", revision=old)
    with pytest.raises(DownloadError, match=r"status 403.*Accept the terms.*hf auth login"):
        download(files, weights, progress=False)
    monkeypatch.setenv("HF_TOKEN", f" {TOKEN}\n")
    hub.faults["a.safetensors"] = [Fault(body=OTHER)]
    with pytest.raises(DownloadError, match=f"as SHA-256, not {SHA}"):
        download(files, weights, progress=False)
    hub.faults["a.safetensors"] = [Fault(cut=50_000)]
    (path,) = download(files, weights, progress=False)
    assert path.read_bytes() == BODY
    seen = [each.headers for each in hub.seen if each.path.startswith("/lfs/")]
    assert len(seen) == 3
    assert seen[-1]["Range"] == "bytes=50000-"
    assert not any("Authorization" in headers for headers in seen)


@pytest.mark.parametrize(
    ("name", "revision", "file", "message"),
    [
        ("someone/nothing", "main", "a.json", "status 401.*no such repository, or it is private"),
        ("someone/secret", "main", "a.json", "status 401.*no such repository, or it is private"),
        ("someone/model", "old", "a.json", "status 404.*check the address"),
        ("someone/model", "main", "b.json", "status 404.*check the address"),
    ],
)
def test_what_the_hub_does_not_have(
    hub: Hub, weights: Path, name: str, revision: str, file: str, message: str
) -> None:
    hub.add("someone/model", {"a.json": b"{}"})
    hub.add("someone/secret", {"a.json": b"{}"}, private=True)
    with pytest.raises(DownloadError, match=message):
        download(of_hub(hub, file, name, revision), weights, progress=False)


def test_an_unset_address_says_what_to_do(site: Site, weights: Path) -> None:
    """With the package's own manifest, and before anything else is fetched."""
    with pytest.raises(DownloadError) as caught:
        download(read_manifest(), weights, mirror=site.origin, progress=False)
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
        ("${PLACE}", "{site}/set?sig=a/", {}, "/set?sig=a/"),
        ("${PLACE:-{site}/default}/model", None, {}, "/default/model"),
        ("${PLACE:-{site}/default}/model", "{site}/set/", {}, "/set/model"),
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
    (path,) = download(manifest(model=here(url)), weights, progress=False, urls=given)
    assert path.read_bytes() == BODY
    assert [get.path for get in site.seen] == [expected]


def test_a_name_that_is_none(weights: Path) -> None:
    with pytest.raises(DownloadError, match="no file named other"):
        download(manifest(model="http://x/"), weights, urls={"other": "http://127.0.0.1:1/"})


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
        return code, {path.name for path in folder.glob("[a-z]*")}

    assert fetch("controlnet", "canny", "depth") == (0, {"canny", "depth"})
    assert fetch("other", "controlnet", "depth") == (0, {"other", "depth"})
    assert fetch("controlnet", "canny", "other") == (0, {"canny", "other"})
    assert fetch("controlnet")[0] == 1
    assert "Name the kinds after controlnet: canny, depth" in capsys.readouterr().err
