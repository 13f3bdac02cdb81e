"""Starting from Kosmos-2: the same text gives the same features, whatever its ids were there."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Kosmos2ForConditionalGeneration

from kosmosg.checkpoints.kosmos2 import convert_kosmos2
from kosmosg.cli import main as cli
from kosmosg.errors import CheckpointError
from kosmosg.pipeline import KosmosGPipeline
from kosmosg.prompts.prompt import parse_text
from tests import tiny

EXTRA = ["<patch_index_0000>", "<phrase>", "<grounding>"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random Kosmos-2, and a decoder for it."""
    folder = tmp_path_factory.mktemp("kosmos2")
    tiny.write_kosmos2(folder, EXTRA)
    tiny.make_random_decoder(tiny.SIZES["aligner"]["dim"]).save_pretrained(folder / "sd")
    return folder


def options(folder: Path) -> dict[str, Any]:
    return {
        "tokenizer": folder / "tokenizer",
        "stable_diffusion": str(folder / "sd"),
        "sizes": tiny.SIZES,
        "dtype": torch.float32,
        "progress": False,
    }


def test_equal_features_for_equal_text(folder: Path, tmp_path: Path) -> None:
    report = convert_kosmos2(folder / "kosmos2", tmp_path / "w", **options(folder))
    assert report.stage == "lm"
    assert report.left_out == {"words that only Kosmos-2 has": len(EXTRA)}
    ours = KosmosGPipeline.from_pretrained(tmp_path / "w")
    theirs: Any = Kosmos2ForConditionalGeneration.from_pretrained(folder / "kosmos2").eval()
    vocabulary = json.loads((folder / "kosmos2" / "tokenizer.json").read_text())["model"]["vocab"]

    ids = ours.tokenizer.tokenize_prompt(parse_text("a red dog in the garden"), 8).ids
    symbols = [ours.tokenizer.symbols[token] for token in ids]
    their_ids = [vocabulary[symbol] for symbol in symbols]
    assert list(ids) != their_ids
    with torch.inference_mode():
        found = ours.kosmosg.kosmos2.text_model(input_ids=torch.tensor([ids])).last_hidden_state
        wanted = theirs.text_model.model(input_ids=torch.tensor([their_ids])).last_hidden_state
        torch.testing.assert_close(found, wanted, atol=1e-6, rtol=0)
        pixels = torch.randn(1, 3, 56, 56)
        features: Any = ours.kosmosg.kosmos2.get_image_features(pixels)
        slots = torch.tensor([[False] + [True] * 8])
        output = theirs(
            pixel_values=pixels,
            input_ids=torch.zeros(1, 9, dtype=torch.long),
            image_embeds_position_mask=slots,
        )
    torch.testing.assert_close(features.pooler_output, output.image_embeds, atol=1e-6, rtol=0)


def test_command_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "config.json").write_text(json.dumps(tiny.SIZES))
    arguments = [
        *("convert", "--from-kosmos2", folder / "kosmos2", tmp_path / "w"),
        *("--tokenizer", folder / "tokenizer", "--stable-diffusion", folder / "sd"),
        *("--config", tmp_path / "config.json"),
    ]
    assert cli.main([str(argument) for argument in arguments]) == 0
    assert "AlignerNet is not trained" in capsys.readouterr().out
    assert KosmosGPipeline.from_pretrained(tmp_path / "w").kosmosg.config.stage == "lm"


def test_a_dictionary_of_another_model(folder: Path, tmp_path: Path) -> None:
    tiny.write_tokenizer(tmp_path / "other", 400)
    settings = options(folder)
    settings["tokenizer"] = tmp_path / "other"
    with pytest.raises(CheckpointError, match="does not know 80 symbols of the dictionary: madeup"):
        convert_kosmos2(folder / "kosmos2", tmp_path / "w", **settings)
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize("damage", ["config.json", "model.safetensors", "tokenizer.json"])
def test_an_incomplete_kosmos2(folder: Path, tmp_path: Path, damage: str) -> None:
    (tmp_path / "k").mkdir()
    for file in (folder / "kosmos2").iterdir():
        if file.name not in (damage, "tokenizer_config.json" * (damage == "tokenizer.json")):
            (tmp_path / "k" / file.name).write_bytes(file.read_bytes())
    with pytest.raises(CheckpointError, match="could not be taken from"):
        convert_kosmos2(tmp_path / "k", tmp_path / "w", **options(folder))
