"""The list of what can be fetched: the package's own, and others."""

from pathlib import Path, PurePosixPath

import pytest

from kosmosg.checkpoints.manifest import read_manifest
from kosmosg.diffusion.settings import CONTROL_TYPES
from kosmosg.errors import DownloadError

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
        f"path {path}": (f"[[g]]\n{FILE}path = '{path}'", "leaves the weights folder")
        for path in ("../a", "a/../../b", "/etc/a", ".", r"..\a")
    },
}


@pytest.mark.parametrize(("text", "message"), BAD_MANIFESTS.values(), ids=BAD_MANIFESTS)
def test_a_bad_manifest_is_refused(tmp_path: Path, text: str, message: str) -> None:
    written = tmp_path / "manifest.toml"
    written.write_text(text)
    with pytest.raises(DownloadError, match=message):
        read_manifest(written)


def test_a_missing_manifest_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"nowhere\.toml: cannot be read \(No such file"):
        read_manifest(tmp_path / "nowhere.toml")


def test_groups_are_chosen_by_name(tmp_path: Path) -> None:
    written = tmp_path / "manifest.toml"
    written.write_text(
        'default = ["usual"]\n'
        + "".join(
            f'[[{group}]]\nname = "{group}"\nurl = "http://127.0.0.1/"\npath = "{group}.bin"\n'
            for group in ("usual", "extra")
        )
    )
    manifest = read_manifest(written)
    assert [file.name for file in manifest.choose(None)] == ["usual"]
    assert [file.name for file in manifest.choose(["extra", "extra"])] == ["extra"]
    with pytest.raises(DownloadError, match="no group 'all'; there are usual, extra"):
        manifest.choose(["all"])


def test_the_packages_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # it is found from anywhere
    manifest = read_manifest()
    assert set(manifest.default) == {"stable-diffusion", "tokenizer", "checkpoint"}
    others = {"text-encoder", "inception", *(f"controlnet {kind}" for kind in CONTROL_TYPES)}
    assert set(manifest.groups) - set(manifest.default) == others
    for file in manifest.choose(list(manifest.groups)):
        assert file.url.startswith(("https://", "${"))
        assert "/main/" not in file.url and "/master/" not in file.url, "what moves is not pinned"
        assert "${" in file.url or PurePosixPath(file.url).suffix == file.path.suffix
    paths = {str(file.path) for file in manifest.choose(["stable-diffusion"])}
    for folder, weight in (
        ("unet", "diffusion_pytorch_model"),
        ("vae", "diffusion_pytorch_model"),
        ("safety_checker", "model"),
    ):
        assert f"stable-diffusion-v1-5/{folder}/{weight}.safetensors" in paths
        assert f"stable-diffusion-v1-5/{folder}/config.json" in paths
    for kind in CONTROL_TYPES:
        paths = {str(file.path) for file in manifest.choose([f"controlnet {kind}"])}
        assert f"controlnet/{kind}/config.json" in paths
        assert f"controlnet/{kind}/diffusion_pytorch_model.safetensors" in paths
        rest = {path for path in paths if not path.startswith(f"controlnet/{kind}/")}
        assert all(path.startswith(f"annotators/{kind}/") for path in rest)
        assert bool(rest) == (kind not in ("canny", "shuffle", "ip2p"))
