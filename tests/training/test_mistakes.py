"""What ``kosmosg train`` refuses, and what it says then."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from kosmosg.cli import train as train_command
from kosmosg.data.schema import CaptionSample
from kosmosg.pipeline import KosmosGPipeline
from tests.shards import write_shards
from tests.training.conftest import Trained
from tests.training.world import IMAGE, World, command, fails


def test_data_that_is_not_there(
    world: World, trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "empty").mkdir()
    options = ["--weights", trained.lm / "weights", "--output", tmp_path / "run", "--data"]
    for data, message in (
        (tmp_path / "nowhere", r"no shards \(\*\.tar\) in .*nowhere"),
        (tmp_path / "empty", r"no shards \(\*\.tar\) in .*empty"),
        (
            "captions=old:2",
            "first, by python -m scripts.convert_tsv captions old SHARDS",
        ),
        ("laion=folder", r"no shards \(\*\.tar\) in laion=folder"),
        ("folder:much", "there is no such folder, and 'much' is no weight"),
        (f"{tmp_path / 'empty'}:0", r"no shards \(\*\.tar\) in .*empty, and no tables"),
        (f"{world.folder / 'data' / 'captions'}:0", "give at least one source a weight above 0"),
    ):
        assert re.search(message, fails(capsys, "align", *options, data))


def test_too_much_bad_data(
    world: World, trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    long = "a circle " * 100
    write_shards([CaptionSample(caption=long, image=IMAGE)] * 150, tmp_path / "data")
    options = ["--weights", trained.lm / "weights", "--output", tmp_path / "run"]
    found = fails(capsys, "align", *options, "--data", tmp_path / "data")
    assert re.search("100 of the last 100 of .* cannot be used.*caption-too-long", found)
    data = world.data("captions")
    assert "share from 0 to below 1" in fails(capsys, "align", *options, *data, "--bad-share", 1)


def test_settings_that_cannot_be(
    world: World, trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    weights = ["--weights", trained.lm / "weights", "--output", tmp_path / "run"]
    data = world.data("captions")
    for stage, arguments, message in (
        ("lm", ["--tokens", 1], "Sequences of 1 tokens .* takes 2 to 128"),
        ("lm", [], "Sequences of 2048 tokens .* takes 2 to 128"),
        ("lm", ["--tokens", 5, "--min-side", 1], "An image takes 6 tokens, but sequences of 5"),
        ("lm", ["--tokens", 64, "--packing-streams", -2], "-2 packing streams cannot be shared"),
        ("instruct", ["--drop-text", 1.5], "--drop-text is a probability, .* cannot be 1.5"),
        ("instruct", ["--drop-caption", -1], "--drop-caption is a probability"),
        ("align", ["--threads", -1], "-1 threads cannot read"),
        ("align", ["--learning-rate", 2], "--learning-rate is 2.0; it must be above 0 and below"),
        ("align", ["--seed", -1], "--seed is -1; it must be from 0 to 4294967295"),
        ("align", [*data], "Two sources have the same name"),
        ("align", ["--stable-diffusion", tmp_path], "no CLIP tokenizer in"),
    ):
        found = fails(capsys, stage, *weights, *data, *arguments)
        assert re.search(message, found), found
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_weights_that_do_not_fit(
    world: World, trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    run = ["--output", tmp_path / "run", *world.data("captions")]
    damaged = tmp_path / "damaged"
    shutil.copytree(trained.lm / "weights", damaged)
    weights = ["--weights", damaged, *run]

    shutil.rmtree(damaged / "clip_tokenizer")
    assert "no CLIP tokenizer in" in fails(capsys, "align", *weights)
    (damaged / "clip_tokenizer").mkdir()
    assert "no CLIP tokenizer in" in fails(capsys, "align", *weights)
    (damaged / "clip_tokenizer" / "vocab.json").write_text("[")
    assert "clip_tokenizer cannot be read" in fails(capsys, "align", *weights)
    shutil.rmtree(damaged / "text_encoder")
    assert "has no CLIP text encoder" in fails(capsys, "align", *weights)
    with (damaged / "tokenizer" / "dict.txt").open("a") as file:
        file.write("▁one-more 1\n")
    for stage in ("lm", "align", "instruct"):
        assert "212 entries, the language model 211" in fails(capsys, stage, *weights)
    shutil.rmtree(damaged / "unet")
    assert "lacks unet" in fails(capsys, "instruct", *weights)
    inside = ["--weights", trained.lm / "weights", *run[2:]]
    found = fails(capsys, "align", *inside, "--output", trained.lm / "weights" / "run")
    assert "would lie in the weights" in found


@pytest.mark.parametrize(("stage", "part"), [("align", "text_encoder"), ("instruct", "unet")])
def test_parts_of_another_width(
    trained: Trained,
    world: World,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    stage: str,
    part: str,
) -> None:
    weights = tmp_path / "weights"
    shutil.copytree(trained.lm / "weights", weights)
    pipeline = KosmosGPipeline.from_pretrained(weights)
    config: Any = pipeline.kosmosg.config
    config.aligner["dim"] = 16
    type(pipeline.kosmosg)(config).save_pretrained(weights / "kosmosg")
    run = ["--weights", weights, "--output", tmp_path / "run", *world.data("captions")]
    assert re.search("(32 of 16|16 wide.*takes 32)", fails(capsys, stage, *run))


def test_data_of_another_weight_is_refused_on_resumption(
    trained: Trained, world: World, capsys: pytest.CaptureFixture
) -> None:
    run = ["--output", trained.align, "--weights", trained.lm / "weights"]
    run += [*world.data("captions", 5), "--updates", 3, "--batch-size", 4, "--warmup-updates", 1]
    found = fails(capsys, "align", *run, "--log-every", 1)
    wanted = r"data was \[\['(sha256:.{12})', 1\.0\]\] and is \[\['\1', 5\.0\]\]"
    assert re.search(wanted, found)
    assert re.search("min_side was 64 and is 384", found)


def test_other_weights_and_another_teacher_are_refused_on_resumption(
    trained: Trained, world: World, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    weights, decoder = tmp_path / "weights", world.folder / "decoder" / "weights"
    shutil.copytree(trained.lm / "weights", weights)
    run = ["--output", trained.align, *world.data("captions"), "--min-side", 64, "--updates", 3]
    run += ["--batch-size", 4, "--warmup-updates", 1, "--log-every", 1, "--weights", weights]
    found = fails(capsys, "align", *run, "--stable-diffusion", decoder)
    assert "weights was" not in found  # it is a copy
    assert re.search("stable_diffusion was None and is 'sha256:.{12}'", found)
    with (weights / "kosmosg" / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x01")
    assert re.search("weights was 'sha256:.{12}' and is 'sha256:", fails(capsys, "align", *run))


def test_what_only_training_needs_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    run = ["--output", tmp_path / "run", "--weights", tmp_path, "--data", tmp_path]
    for missing in (["tensorboard"], ["tensorboard", "webdataset"]):
        there = lambda name, missing=missing: None if name in missing else object()  # noqa: E731
        monkeypatch.setattr(train_command, "find_spec", there)
        found = fails(capsys, "align", *run)
        assert f"Training needs {' and '.join(missing)}. Install" in found
        assert found.endswith("pip install -e '.[train]'.")


def test_images_of_the_decoder_are_read_by_no_threads(capsys: pytest.CaptureFixture) -> None:
    required = ["--config", "x", "--clip", "x", "--vae", "x", "--output", "x", "--data", "x"]
    words = ("train", "decoder", *required, "--updates", 1, "--batch-size", 1, "--threads", 0)
    assert command(*words) == 2
    assert "miniature train decoder has no option --threads" in capsys.readouterr().err
