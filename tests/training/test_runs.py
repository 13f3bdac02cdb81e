"""The three stages through the command line, from ``kosmosg new`` to a picture."""

import base64
import json
import re
import shutil
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from kosmosg import cli
from kosmosg.data.samples import CaptionSample
from kosmosg.data.shard_writer import write_shards
from kosmosg.pipeline import KosmosGPipeline
from tests.training.conftest import Trained
from tests.training.logs import read_log
from tests.training.world import World, command, train

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))


def tensors(weights: Path, part: str = "kosmosg") -> dict[str, Tensor]:
    return load_file(weights / part / "model.safetensors")


def changed(before: Path, after: Path) -> set[str]:
    """Name the tensors that a stage has changed."""
    old, new = tensors(before), tensors(after)
    assert old.keys() == new.keys()
    return {name for name in old if not torch.equal(old[name].to(new[name].dtype), new[name])}


# ------------------------------------------------------------------ results


@pytest.mark.parametrize("stage", ["lm", "align", "instruct"])
def test_every_result_opens_and_draws(trained: Trained, stage: str) -> None:
    weights = getattr(trained, stage) / "weights"
    pipeline = KosmosGPipeline.from_pretrained(weights)
    assert pipeline.kosmosg.config.stage == stage
    images = pipeline("<i> in a garden", images=[PICTURE], num_inference_steps=2, seed=0).images
    assert images[0].size == (64, 64)


def test_a_stage_changes_only_what_it_trains(trained: Trained, world: World) -> None:
    lm = changed(world.start, trained.lm / "weights")
    assert lm
    assert {name.split(".")[0] for name in lm} == {"kosmos2"}
    align = changed(trained.lm / "weights", trained.align / "weights")
    assert {name.split(".")[0] for name in align} == {"aligner"}
    for found in (lm, changed(trained.align / "weights", trained.instruct / "weights")):
        vision = {name for name in found if "vision_model" in name}
        assert vision
        assert all(re.search(r"encoder\.layers\.1\.|post_layernorm", name) for name in vision)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_the_rest_is_carried_over_as_it_is(trained: Trained, world: World, part: str) -> None:
    files = list((world.start / part).iterdir())
    assert files
    for file in files:
        carried = trained.instruct / "weights" / part / file.name
        assert carried.read_bytes() == file.read_bytes()


def test_what_is_in_a_result(trained: Trained, world: World) -> None:
    common = {folder.name for folder in world.start.iterdir()}
    assert {each.name for each in (trained.lm / "weights").iterdir()} == common
    found = {each.name for each in (trained.align / "weights").iterdir()}
    assert found == common | {"reconstruction"}
    assert {each.name for each in (trained.instruct / "weights").iterdir()} == common


def test_the_precision_of_the_result(trained: Trained) -> None:
    dtypes = [
        {tensor.dtype for tensor in tensors(getattr(trained, stage) / "weights").values()}
        for stage in ("align", "instruct")
    ]
    assert dtypes == [{torch.float32}, {torch.float16}]


@pytest.mark.parametrize(
    ("stage", "names"),
    [("lm", {"loss"}), ("align", {"loss", "mse", "reconstruction"}), ("instruct", {"loss"})],
)
def test_the_log(trained: Trained, stage: str, names: set[str]) -> None:
    log = read_log(getattr(trained, stage))
    assert log.keys() == names | {"gradient", "rate"}
    for entries in log.values():
        assert [step for step, _ in entries] == [1, 2, 3]
        assert np.isfinite([value for _, value in entries]).all()


def test_a_sheet_of_samples(trained: Trained) -> None:
    """Four rows: two inputs at most, the target, what is drawn."""
    files = list((trained.instruct / "samples").iterdir())
    assert [file.name for file in files] == ["step-00000002.png"]
    with Image.open(files[0]) as sheet:
        assert sheet.size == (4 * 64, 4 * 64)
        assert np.asarray(sheet.convert("L")).std() > 10


def test_a_finished_run_does_nothing(trained: Trained, world: World) -> None:
    before = {file: file.stat().st_mtime_ns for file in trained.align.rglob("*")}
    train("align", trained.align, "--weights", trained.lm / "weights", *world.data("captions"))
    assert {file: file.stat().st_mtime_ns for file in trained.align.rglob("*")} == before


def test_stage_2_goes_on_with_the_reconstruction_half(
    trained: Trained, world: World, tmp_path: Path
) -> None:
    """From a result of stage 2; a learning rate of nearly nothing leaves it as it was."""
    weights = trained.align / "weights"
    options = ["--learning-rate", 1e-12, "--weight-decay", 0]
    again = train(
        "align", tmp_path / "again", "--weights", weights, *options, *world.data("captions")
    )
    old, new = (tensors(folder, "reconstruction") for folder in (weights, again))
    for name, tensor in old.items():
        torch.testing.assert_close(new[name], tensor, atol=1e-6, rtol=0)


def test_clip_from_a_stable_diffusion(trained: Trained, world: World, tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    shutil.copytree(trained.lm / "weights", weights)
    for name in ("text_encoder", "clip_tokenizer"):
        shutil.rmtree(weights / name)
    options = ["--weights", weights, *world.data("captions")]
    decoder = world.folder / "decoder" / "weights"
    train("align", tmp_path / "run", *options, "--stable-diffusion", decoder)
    assert read_log(tmp_path / "run") == read_log(trained.align)


def test_bfloat16_through_the_stages(trained: Trained, world: World, tmp_path: Path) -> None:
    for stage, data in (("align", "captions"), ("instruct", "edits")):
        options = ["--weights", trained.align / "weights", *world.data(data), "--precision", "bf16"]
        train(stage, tmp_path / stage, *options, steps=2)
        assert np.isfinite([value for _, value in read_log(tmp_path / stage)["loss"]]).all()


def test_aligner_only(trained: Trained, world: World, tmp_path: Path) -> None:
    """With gradient checkpointing, which must not reach into the frozen part."""
    weights = trained.lm / "weights"
    options = ["--weights", weights, *world.data("captions"), "--aligner-only"]
    for name, more in (("plain", []), ("twice", ["--gradient-checkpointing"])):
        found = train("instruct", tmp_path / name, *options, *more)
        assert {name.split(".")[0] for name in changed(weights, found)} == {"aligner"}
    assert read_log(tmp_path / "plain") == read_log(tmp_path / "twice")


# ------------------------------------------------------------------ the authors' layout


def encode(picture: Image.Image) -> str:
    file = BytesIO()
    picture.save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode()


def write_tsv(folder: Path, rows: list[list[str]], where: str = "data") -> Path:
    (folder / "json").mkdir(parents=True)
    (folder / where).mkdir(parents=True, exist_ok=True)
    index = [{"source": ["0.tsv"], "source_lang": "x", "weight": 1.0, "name": "y"}]
    (folder / "json" / "train.json").write_text(json.dumps(index))
    (folder / where / "0.tsv").write_text("".join("\t".join(row) + "\n" for row in rows))
    return folder


def test_the_authors_layout(trained: Trained, tmp_path: Path) -> None:
    picture = encode(PICTURE)
    caption = "a red circle in a meadow"
    captions = write_tsv(tmp_path / "captions", [["", caption, picture, "64", "64"]] * 9, ".")
    edits = write_tsv(tmp_path / "edits", [[caption, "make it blue", picture, picture]] * 9)
    open_images = write_tsv(tmp_path / "open", [[caption, "circle", *[picture] * 3]] * 9)
    sets = {"captions": captions, "instructpix2pix": edits, "openimages": open_images}
    options = ["--weights", trained.align / "weights"]
    for name, folder in sets.items():
        options += ["--data", f"{name}={folder}:2"]
    train("instruct", tmp_path / "instruct", *options, steps=2)
    options = ["--weights", trained.lm / "weights", "--data", f"captions={captions}"]
    train("align", tmp_path / "align", *options, steps=2)


# ------------------------------------------------------------------ mistakes


def fails(capsys: pytest.CaptureFixture, stage: str, *arguments: Any) -> str:
    """Run a command that must fail, and return its only line of complaint."""
    common = ["--steps", 2, "--batch-size", 2, "--threads", 0]
    words = ["train", stage, *common, *arguments]
    assert cli.main([str(word) for word in words]) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("error: ")
    assert not any("Traceback" in line for line in lines)
    return lines[-1]


def test_data_that_is_not_there(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "empty").mkdir()
    options = ["--weights", trained.lm / "weights", "--output", tmp_path / "run", "--data"]
    for data, message in (
        (tmp_path / "nowhere", r"no shards \(\*\.tar\) in .*nowhere"),
        (tmp_path / "empty", r"no shards \(\*\.tar\) in .*empty"),
        (f"captions={tmp_path}", "has no index"),
        ("laion=folder", "'laion' is no layout of the authors. Write one of captions, instruct"),
        ("folder:much", "the weight 'much' is no number"),
        (f"{tmp_path / 'empty'}:0", "no shards|give at least one source a weight"),
    ):
        assert re.search(message, fails(capsys, "align", *options, data))


def test_too_much_bad_data(
    world: World, trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    long = "a circle " * 100
    write_shards([CaptionSample(caption=long, image=PICTURE)] * 150, tmp_path / "data")
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
        ("lm", ["--tokens", 64, "--lanes", -2], "-2 lanes of packing cannot be shared out"),
        ("instruct", ["--drop-text", 1.5], "drop_text is a probability, .* cannot be 1.5"),
        ("instruct", ["--drop-caption", -1], "drop_caption is a probability"),
        ("align", ["--threads", -1], "-1 threads cannot read"),
        ("align", ["--learning-rate", 2], "learning_rate cannot be 2.0"),
        ("align", ["--seed", -1], "seed cannot be -1"),
        ("align", [*data], "Two sources have the same name"),
        ("align", ["--stable-diffusion", tmp_path], "'text_encoder' could not be taken from"),
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
    run += [*world.data("captions", 5), "--steps", 3, "--batch-size", 4, "--warmup-steps", 1]
    found = fails(capsys, "align", *run, "--log-every", 1)
    wanted = r"data was \[\[.*captions', None, 1\.0\]\] and is \[\[.*captions', None, 5\.0\]\]"
    assert re.search(wanted, found)
    assert re.search("min_side was 64 and is 384", found)


def test_other_weights_and_another_teacher_are_refused_on_resumption(
    trained: Trained, world: World, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    weights, decoder = tmp_path / "weights", world.folder / "decoder" / "weights"
    shutil.copytree(trained.lm / "weights", weights)
    run = ["--output", trained.align, *world.data("captions"), "--min-side", 64, "--steps", 3]
    run += ["--batch-size", 4, "--warmup-steps", 1, "--log-every", 1, "--weights", weights]
    found = fails(capsys, "align", *run, "--stable-diffusion", decoder)
    assert "weights was" not in found  # it is a copy
    assert re.search("stable_diffusion was None and is 'sha256:.{12}'", found)
    with (weights / "kosmosg" / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x01")
    assert re.search("weights was 'sha256:.{12}' and is 'sha256:", fails(capsys, "align", *run))


def test_help(capsys: pytest.CaptureFixture) -> None:
    for stage in ("lm", "align", "instruct", "clip", "vae", "decoder", "probe"):
        with pytest.raises(SystemExit):
            command("train", stage, "--help")
        assert f"kosmosg train {stage} [-h]" in capsys.readouterr().out
