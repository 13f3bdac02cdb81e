"""``upload`` and ``--weights`` by name: what goes to the Hub comes back, and says what it is."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kosmosg.checkpoints.folder import fetch_weights
from kosmosg.checkpoints.history import HISTORY, add_history, read_history
from kosmosg.cli import main as cli
from kosmosg.data.revisions import fix_weights
from kosmosg.errors import WeightsError
from tests.hub import TOKEN, Hub, connect, running

COMMIT = "a" * 40
ALIGN: dict[str, Any] = {
    "stage": "align",
    "data": [f"Geonmo/gcc12m_caption_only@{COMMIT}", "my | captions"],
    "updates": 30,
    "batch_size": 8,
    "learning_rate": 0.001,
    "loss": 0.25,
}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running() as found:
        connect(found, tmp_path / "cache", monkeypatch)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield found


@pytest.fixture
def folder(tiny_weights: Path, tmp_path: Path) -> Path:
    """Weights with a history, and with what must not go along."""
    found = shutil.copytree(tiny_weights, tmp_path / "weights")
    add_history(found, None, ALIGN)
    add_history(found, found, ALIGN | {"stage": "instruct", "loss": float("nan")})
    (found / "notes.txt").write_text("mine")
    (found / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"pickle")
    (found / "text_encoder").mkdir()
    (found / "text_encoder" / "config.json").write_text("{}")
    return found


def test_weights_with_a_card(
    hub: Hub, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    table = tmp_path / "table.md"
    table.write_text("| DINO |\n|---|\n| 0.5 |\n")
    words = ["upload", str(folder), "mine", "--private", "--table", str(table)]
    assert cli.main(words) == 0
    assert capsys.readouterr().out.startswith(f"{hub.origin}/someone/mine/commit/")
    repository = hub.repositories["models/someone/mine"]
    assert repository.private
    files = repository.files
    assert {HISTORY, "text_encoder/config.json", "kosmosg/config.json"} < files.keys()
    assert not {"notes.txt", "unet/diffusion_pytorch_model.bin"} & files.keys()
    card = files["README.md"].decode()
    for part in (
        "license: creativeml-openrail-m",
        "datasets:\n- Geonmo/gcc12m_caption_only\n",
        f"| align | Geonmo/gcc12m_caption_only@{COMMIT}<br>my \\| captions | 30 × 8 | 0.001 "
        "| 0.25 |",
        "| instruct | ",
        "## Evaluation\n\n| DINO |\n|---|\n| 0.5 |",
        "| precision | float32 |",
    ):
        assert part in card
    assert not (folder / "README.md").exists()

    words = ["generate", "--weights", "someone/mine", "--prompt", "a dog", "--steps", "1"]
    assert cli.main([*words, "--output", str(tmp_path / "dog.png")]) == 0
    assert (tmp_path / "dog.png").is_file()
    assert "text_encoder/config.json" not in hub.downloads()
    found = fetch_weights("someone/mine", training=True)
    assert read_history(found) == read_history(folder)
    assert (found / "text_encoder" / "config.json").is_file()


def test_a_card_of_ones_own_and_a_request(hub: Hub, folder: Path) -> None:
    (folder / "README.md").write_text("# Mine\n")
    assert cli.main(["upload", str(folder), "mine", "--license", "mit", "--pull-request"]) == 0
    repository = hub.repositories["models/someone/mine"]
    assert "README.md" not in repository.files
    (request,) = (name for name in repository.branches if name.startswith("refs/pr/"))
    assert repository.commits[repository.branches[request]]["README.md"] == b"# Mine\n"


def test_uploads_that_are_refused(
    hub: Hub, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    def refused(*words: object) -> str:
        assert cli.main(["upload", *map(str, words)]) == 1
        return capsys.readouterr().err

    (tmp_path / "empty").mkdir()
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    assert "is not a weights directory: it lacks kosmosg" in refused(tmp_path / "empty", "mine")
    assert "is not a weights directory" in refused(tmp_path / "nowhere", "mine")
    assert "is no text in UTF-8" in refused(folder, "mine", "--table", tmp_path / "binary")
    assert "No such file" in refused(folder, "mine", "--table", tmp_path / "nothing")
    assert "rights to create a model under another" in refused(folder, "another/mine")
    assert "not a name is neither a folder" in refused(folder, "not a name")
    (folder / HISTORY).write_text('[{"stage": 3}]')
    assert "does not say what these weights were trained on" in refused(folder, "mine")
    (folder / HISTORY).write_text("[" * 100_000)
    assert "Remove it, or put back what it was" in refused(folder, "mine")
    (folder / HISTORY).unlink()
    (folder / "vae" / "config.json").write_text("{")
    assert "is no JSON" in refused(folder, "mine")
    assert not hub.repositories, "nothing is made before the weights have been opened"


def test_names_that_are_folders_here_and_those_that_are_not(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").mkdir()
    with pytest.raises(WeightsError, match=r"There are no weights in weights/typo \(as asked\)"):
        fetch_weights("weights/typo")
    assert not hub.seen
    with pytest.raises(WeightsError, match="someone/typo is neither a folder here nor a repos"):
        fetch_weights("someone/typo")
    with pytest.raises(WeightsError, match="There are no weights in weights/kosmos-g"):
        fetch_weights(None)
    hub.add("someone/half", {"model_index.json": b"{}", "unet/config.json": b"{}"})
    with pytest.raises(WeightsError, match="is not a weights directory: it lacks kosmosg"):
        fetch_weights("someone/half")


def test_a_run_keeps_the_weights_it_began_with(hub: Hub, tmp_path: Path) -> None:
    repository = hub.add("someone/kosmos-g", {"model_index.json": b"{}"})
    first = fix_weights("someone/kosmos-g", tmp_path / "run")
    repository.commit({"model_index.json": b"{ }"})
    assert fix_weights("someone/kosmos-g", tmp_path / "run") == first
    assert fix_weights("someone/kosmos-g", tmp_path / "other") != first
    noted = json.loads((tmp_path / "run" / "revisions.json").read_text())
    assert noted == {"models/someone/kosmos-g@main": first}
