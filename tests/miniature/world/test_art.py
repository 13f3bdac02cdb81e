"""Art: folders of anybody's own, and packages that npm fetches from a registry of this test."""

import base64
import hashlib
import io
import json
import shutil
import tarfile
import tomllib
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from PIL import Image

from kosmosg.errors import DataError
from miniature.world import art as module
from miniature.world.art import LIST, fetch_art, load_art
from tests.miniature.art import ACCESSORIES, NOUNS, SETS, UNSEEN, star, write_art

NEEDS_NPM = pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
SVG = '<circle cx="16" cy="16" r="12" fill="#c33"/>'


class Quiet(SimpleHTTPRequestHandler):
    """Serves files as they are, and says nothing of it."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def translate_path(self, path: str) -> str:
        """Let a scoped name, which npm asks for as @scope%2fname, be a file."""
        return super().translate_path(path.replace("%2f", "+").replace("%2F", "+"))


def pack(files: dict[str, bytes]) -> bytes:
    """Put files into a package as npm has it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as opened:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(content)
            opened.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def webp() -> bytes:
    buffer = io.BytesIO()
    star(5, 0.5, (200, 60, 60)).save(buffer, format="WEBP", lossless=True)
    return buffer.getvalue()


def make_packages() -> dict[str, bytes]:
    """Make the three packages with what is needed of them, by the names of our list."""
    listed = tomllib.loads(LIST.read_text())
    codes = {**listed["nouns"], **listed["accessories"]}
    about = {"icons": {}, "width": 32, "height": 32}
    packages = {"fluent": {f"assets/{code}.webp": webp() for code in codes.values()}}
    for name, icons, chars in (
        ("noto", codes.values(), {code: f"icon-{code}" for code in codes.values()}),
        ("firefox", listed["unseen"].values(), {}),
    ):
        names = chars.values() if chars else icons
        content = {**about, "icons": {icon: {"body": SVG} for icon in names}}
        packages[name] = {
            "icons.json": json.dumps(content).encode(),
            "chars.json": json.dumps(chars).encode(),
        }
    manifest = {
        key: json.dumps({"name": listed[key]["name"], "version": listed[key]["version"]}).encode()
        for key in packages
    }
    return {key: pack({"package.json": manifest[key], **files}) for key, files in packages.items()}


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A registry of packages that are as our list says, and that list."""
    root, listed = tmp_path / "registry", tomllib.loads(LIST.read_text())
    root.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=root))
    address = f"http://127.0.0.1:{server.server_port}"
    lines = LIST.read_text()
    for key, content in make_packages().items():
        name, version = listed[key]["name"], listed[key]["version"]
        integrity = f"sha512-{base64.b64encode(hashlib.sha512(content).digest()).decode()}"
        lines = lines.replace(listed[key]["integrity"], integrity)
        (root / f"{key}.tgz").write_bytes(content)
        dist = {"tarball": f"{address}/{key}.tgz", "integrity": integrity}
        told = {"name": name, "version": version, "dist": dist}
        document = {
            "name": name,
            "dist-tags": {"latest": version},
            "versions": {version: told},
        }
        (root / name.replace("/", "+")).write_text(json.dumps(document))
    list_file = tmp_path / "art.toml"
    list_file.write_text(lines)
    monkeypatch.setattr(module, "LIST", list_file)
    monkeypatch.setenv("npm_config_registry", address)
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "cache"))
    monkeypatch.setenv("npm_config_fetch_retries", "0")
    Thread(target=server.serve_forever, daemon=True).start()
    yield root
    server.shutdown()
    server.server_close()


# ------------------------------------------------------------------ the public art


@NEEDS_NPM
def test_the_public_art_is_fetched_once(registry: Path, tmp_path: Path) -> None:
    folder = fetch_art(tmp_path / "outputs" / "art")
    art, listed = load_art(folder), tomllib.loads(LIST.read_text())
    assert [*art.sets] == ["clay", "flat"]
    assert art.nouns == tuple(sorted(listed["nouns"]))
    assert set(art.unseen) == set(listed["unseen"]) <= set(art.nouns)
    assert set(art.accessories) == set(listed["accessories"])
    assert [path.name for path in folder.parent.iterdir()] == ["art"]  # nothing half-written
    shutil.rmtree(registry)
    assert fetch_art(folder) == folder


@NEEDS_NPM
def test_a_package_that_is_not_what_was_published_is_refused(
    registry: Path, tmp_path: Path
) -> None:
    text = module.LIST.read_text()
    module.LIST.write_text(text.replace("sha512-", "sha512-A", 1))
    with pytest.raises(DataError, match=r"fluent-emoji-3d@1\.1\.0 is not what was published"):
        fetch_art(tmp_path / "art")
    assert not (tmp_path / "art").exists()


@NEEDS_NPM
@pytest.mark.parametrize("loss", ["version", "network"])
def test_what_cannot_be_fetched_is_told_with_a_way_out(
    registry: Path, tmp_path: Path, loss: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if loss == "version":
        module.LIST.write_text(module.LIST.read_text().replace('"1.1.0"', '"7.7.7"'))
    else:
        monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9")
    with pytest.raises(DataError, match=r"cannot be fetched \(.+\).*--art FOLDER takes"):
        fetch_art(tmp_path / "art")
    assert not [*tmp_path.glob("art*/")]


def test_without_npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match=r"there is no npm\. Install Node\.js; or --art FOLDER"):
        fetch_art(tmp_path / "art")


# ------------------------------------------------------------------ folders of one's own


def test_a_folder_with_sets(art: Path) -> None:
    found = load_art(art)
    assert ([*found.sets], found.nouns) == ([*SETS], NOUNS)
    assert ({*found.accessories}, {*found.unseen}) == ({*ACCESSORIES}, {*UNSEEN})
    for sprites in (*found.sets.values(), found.accessories, found.unseen):
        for sprite in sprites.values():
            assert sprite.mode == "RGBA"
            assert sprite.getbbox() == (0, 0, *sprite.size)


def test_images_at_the_top_are_the_only_set(tmp_path: Path) -> None:
    for name in ("teddy-bear", "fox"):
        star(5, 0.5, (90, 160, 60), side=900).save(tmp_path / f"{name}.png")
    found = load_art(tmp_path)
    assert [*found.sets] == [""]
    assert found.nouns == ("fox", "teddy bear")
    assert max(found.sets[""]["fox"].size) <= 224


def spoil(folder: Path, how: str) -> None:
    """Make one thing wrong with a folder of art."""
    fox = folder / "clay" / "fox.png"
    if how == "no alpha":
        Image.new("RGB", (64, 64), "red").save(fox)
    elif how == "nothing transparent":
        Image.new("RGBA", (64, 64), "red").save(fox)
    elif how == "nothing to see":
        Image.new("RGBA", (64, 64)).save(fox)
    elif how == "no image":
        fox.write_bytes(b"GIF89a")
    elif how == "cut off":
        fox.write_bytes(fox.read_bytes()[:200])
    elif how == "no word":
        fox.rename(fox.with_name("füchs.png"))
    elif how == "many words":
        fox.rename(fox.with_name("a-fox-on-the-run.png"))
    elif how == "other nouns":
        fox.unlink()
    elif how == "empty":
        shutil.rmtree(folder)
        folder.mkdir()
    elif how == "one noun":
        shutil.rmtree(folder / "flat")
        for file in (folder / "clay").iterdir():
            if file.name != "fox.png":
                file.unlink()
    elif how == "missing":
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("no alpha", r"fox\.png has no transparent ground"),
        ("nothing transparent", r"fox\.png has no transparent ground"),
        ("nothing to see", r"fox\.png has no transparent ground"),
        ("no image", r"fox\.png is no PNG that can be read"),
        ("cut off", r"fox\.png is no PNG that can be read"),
        ("no word", r"hold small letters from a to z alone\. Rename it"),
        ("many words", r"Rename it to one to three such words"),
        ("other nouns", r"fox\.png is in one of the sets clay and flat alone"),
        ("empty", "has no PNGs"),
        ("one noun", "has one noun only"),
        ("missing", "is no folder"),
    ],
)
def test_what_is_wrong_with_a_folder_is_told(tmp_path: Path, how: str, told: str) -> None:
    folder = write_art(tmp_path / "art")
    spoil(folder, how)
    with pytest.raises(DataError, match=told):
        load_art(folder)
