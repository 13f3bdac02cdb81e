"""Weights on the Hub: opened, pushed, and what is said if that does not work."""

import errno
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from huggingface_hub import constants
from PIL import Image

from kosmosg import KosmosGPipeline, KosmosGTokenizer
from kosmosg.checkpoints.folder import fetch_weights
from kosmosg.errors import WeightsError
from kosmosg.utils.hub import is_repository_id
from tests.hub import TOKEN, Fault, Hub, connect, environment, running

NAME = "someone/kosmos-g"
RED = Image.new("RGB", (64, 64), "red")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running() as found:
        connect(found, tmp_path / "cache", monkeypatch)
        yield found


def pixels(pipe: KosmosGPipeline) -> np.ndarray:
    images = pipe("<i> on the beach", RED, num_inference_steps=1, seed=5).images
    return np.asarray(images[0], dtype=int)


# ------------------------------------------------------------------ opening


@pytest.mark.parametrize("open_weights", [KosmosGPipeline.from_pretrained, fetch_weights])
def test_a_repository_of_pickles(hub: Hub, open_weights: Any) -> None:
    hub.add(NAME, {"pytorch_model.bin": b"pickle", "unet/diffusion_pytorch_model.bin": b"pickle"})
    with pytest.raises(
        WeightsError, match=rf"^{NAME} is not a weights directory: it lacks kosmosg"
    ):
        open_weights(NAME)
    assert not hub.downloads()


def test_opening_and_what_is_fetched(hub: Hub, tiny_weights: Path, tmp_path: Path) -> None:
    repository = hub.add(NAME, tiny_weights)
    first = repository.branches["main"]
    files = repository.files
    repository.commit(
        files | {"unet/diffusion_pytorch_model.bin": b"pickle", "run.py": b"raise SystemExit"}
    )
    wanted = pixels(KosmosGPipeline.from_pretrained(tiny_weights))
    assert (pixels(KosmosGPipeline.from_pretrained(NAME)) == wanted).all()
    assert set(hub.downloads()) == set(files)

    count = len(hub.downloads())
    KosmosGPipeline.from_pretrained(NAME, local_files_only=True)
    KosmosGPipeline.from_pretrained(NAME, revision=first)
    assert len(hub.downloads()) == count, "all of it is in the cache"
    KosmosGPipeline.from_pretrained(NAME, cache_dir=tmp_path / "other")
    assert len(hub.downloads()) == 2 * count
    assert list((tmp_path / "other").glob("models--*"))


def test_a_repository_of_ones_own(hub: Hub, tiny_weights: Path) -> None:
    hub.add(NAME, tiny_weights, private=True)
    assert KosmosGPipeline.from_pretrained(NAME, token=TOKEN).kosmosg
    shown = {
        seen.headers.get("authorization", seen.headers.get("Authorization"))
        for seen in hub.seen
        if "/lfs/" in seen.path
    }
    assert shown == {None}, "the storage is another host, which gets no token"


def test_with_nothing_but_the_address_in_the_environment(
    hub: Hub, tiny_weights: Path, tmp_path: Path
) -> None:
    """Diffusers knows the pipeline although kosmosg was imported first, and alone."""
    hub.add(NAME, tiny_weights)
    program = f"""
import sys, kosmosg
assert "torch" not in sys.modules
import diffusers
theirs = diffusers.DiffusionPipeline.from_pretrained({NAME!r}, use_safetensors=True)
ours = kosmosg.KosmosGPipeline.from_pretrained({NAME!r})
assert type(ours) is type(theirs) is diffusers.KosmosGPipeline
assert (ours.unet.conv_in.weight == theirs.unet.conv_in.weight).all()
assert not hasattr(diffusers, "KosmosH")
"""
    surroundings = {"PATH": "/usr/bin:/bin", **environment(hub, tmp_path / "home")}
    found = subprocess.run(
        [sys.executable, "-c", program], env=surroundings, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr


def test_parts_that_are_damaged_or_missing(hub: Hub, tiny_weights: Path) -> None:
    repository = hub.add(NAME, tiny_weights)
    files = repository.files
    repository.commit(files | {"vae/config.json": b"{"})
    with pytest.raises(WeightsError, match="is no JSON"):
        KosmosGPipeline.from_pretrained(NAME)
    repository.commit({name: data for name, data in files.items() if not name.startswith("vae/")})
    with pytest.raises(WeightsError, match="lacks vae"):
        KosmosGPipeline.from_pretrained(NAME)


def gone(hub: Hub) -> None:
    hub.shutdown()
    hub.server_close()


@pytest.mark.parametrize(
    ("source", "options", "spoil", "message"),
    [
        ("someone/typo", {}, None, "neither a folder here nor a repository on http://127.0.0.1"),
        (
            "someone/secret",
            {},
            None,
            "without a token of its owner.*log in .* or give",
        ),
        ("someone/secret", {"token": "wrong"}, None, "Check the name, log in"),
        (NAME, {"revision": "v2"}, None, "has no such revision. Name a branch"),
        ("someone/gated", {}, None, "agreed to its terms. Agree on its page"),
        (NAME, {"local_files_only": True}, None, "nor in the cache"),
        (NAME, {}, gone, "cannot be reached. Check the name, the connection, HF_ENDPOINT"),
        ("someone/../x", {}, None, "lacks kosmosg"),
    ],
)
def test_what_is_said(hub: Hub, source: str, options: dict, spoil: Any, message: str) -> None:
    properties: dict[str, Any]
    for name, properties in (
        (NAME, {}),
        ("someone/secret", {"private": True}),
        ("someone/gated", {"gated": True}),
    ):
        hub.add(name, {"model_index.json": b"{}", "unet/config.json": b"{}"}, **properties)
    if spoil:
        spoil(hub)
    with pytest.raises(WeightsError, match=message):
        KosmosGPipeline.from_pretrained(source, **options)


def test_a_server_out_of_order(hub: Hub, tiny_weights: Path) -> None:
    hub.add(NAME, tiny_weights)
    hub.faults["vae/config.json"] = [Fault(status=500)] * 9
    with pytest.raises(WeightsError, match=r"someone/kosmos-g: .*500"):
        KosmosGPipeline.from_pretrained(NAME)
    hub.faults.clear()
    assert KosmosGPipeline.from_pretrained(NAME).vae


def test_a_full_disk(hub: Hub, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(NAME, tiny_weights)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("huggingface_hub.file_download.http_get", full)
    with pytest.raises(WeightsError, match="someone/kosmos-g: the disk is full"):
        KosmosGPipeline.from_pretrained(NAME)


def test_offline(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match=r"nor in the cache.* HF_HUB_OFFLINE"):
        KosmosGPipeline.from_pretrained(NAME)
    assert not hub.seen


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ("someone/model", True),
        ("weights/kosmos-g/", False),
        ("weights/a/b", False),
        ("./model", False),
        ("nowhere", False),
        ("/model", False),
        (Path("someone/model"), False),
    ],
)
def test_which_names_are_repositories(source: str | Path, wanted: bool) -> None:
    assert is_repository_id(source) == wanted


def test_a_folder_comes_first(
    hub: Hub, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "someone").mkdir()
    (tmp_path / NAME).symlink_to(tiny_weights)
    monkeypatch.chdir(tmp_path)
    assert KosmosGPipeline.from_pretrained(NAME)
    assert not hub.seen


# ------------------------------------------------------------------ pushing


def test_pushing_and_opening_again(hub: Hub, tiny_weights: Path, tmp_path: Path) -> None:
    pipe = KosmosGPipeline.from_pretrained(tiny_weights)
    address = pipe.push_to_hub("mine", private=True, token=TOKEN, commit_message="First")
    assert address.startswith(f"{hub.origin}/someone/mine/commit/")
    repository = hub.repositories["models/someone/mine"]
    assert repository.private
    index = json.loads(repository.files["model_index.json"])
    assert index["_class_name"] == "KosmosGPipeline"
    for opened in (KosmosGPipeline, DiffusionPipeline):
        found: Any = opened.from_pretrained("someone/mine", token=TOKEN)
        assert (pixels(found) == pixels(pipe)).all()
    assert not [name for name in repository.files if name.endswith((".bin", ".py", ".pt"))]

    card = repository.files["README.md"].decode()
    for part in (
        "library_name: diffusers",
        "- diffusers:KosmosGPipeline",
        "pipeline_tag: text-to-image",
        'KosmosGPipeline.from_pretrained("someone/mine")',
        "| language model | 2 layers, 64 wide, 320 symbols |",
        "| images | 64 × 64 pixels |",
        "| safety checker | no |",
        "| precision | float32 |",
    ):
        assert part in card

    # Whoever has written a card keeps it.
    repository.commit(repository.files | {"README.md": b"# Mine\n"})
    pipe.save_pretrained(tmp_path / "mine", push_to_hub=True, repo_id="someone/mine", token=TOKEN)
    assert repository.files["README.md"] == b"# Mine\n"
    before = repository.branches["main"]
    pipe.to(dtype=torch.bfloat16).push_to_hub("someone/mine", token=TOKEN, create_pr=True)
    assert repository.branches["main"] == before
    assert any(name.startswith("refs/pr/") for name in repository.branches)


@pytest.mark.parametrize(
    ("name", "token", "message"),
    [
        ("mine", None, "Log in"),
        ("mine", "wrong", "refuses it: .*Log in .* or give a token that may do this"),
        ("another/model", TOKEN, "rights to create a model under another"),
        ("not a name", TOKEN, "not a name is neither .* nor a name that repositories can have"),
    ],
)
def test_pushes_that_are_refused(
    hub: Hub, tiny_weights: Path, name: str, token: str | None, message: str
) -> None:
    pipe = KosmosGPipeline.from_pretrained(tiny_weights)
    with pytest.raises(WeightsError, match=message):
        pipe.push_to_hub(name, token=token)
    assert not hub.repositories


def test_a_tokenizer_on_its_own(hub: Hub, tiny_weights: Path) -> None:
    hub.add(NAME, tiny_weights)
    assert len(KosmosGTokenizer.from_pretrained(NAME, subfolder="tokenizer")) == 320
    with pytest.raises(WeightsError, match="tokenizer in someone/typo cannot be read"):
        KosmosGTokenizer.from_pretrained("someone/typo")
    pipe = KosmosGPipeline.from_pretrained(NAME)
    pipe.tokenizer.push_to_hub("words", token=TOKEN)
    assert len(KosmosGTokenizer.from_pretrained("someone/words")) == 320
