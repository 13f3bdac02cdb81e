"""The three stages through the command line, from ``kosmosg new`` to an image."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from kosmosg.pipeline import KosmosGPipeline
from tests.training.conftest import Trained
from tests.training.logs import read_log
from tests.training.toy import times
from tests.training.world import IMAGE, World, train


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
    images = pipeline("<i> in a garden", images=[IMAGE], num_inference_steps=2, seed=0).images
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
    common = {folder.name for folder in world.start.iterdir()} | {"training.json"}
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
    before = times(trained.align)
    train("align", trained.align, "--weights", trained.lm / "weights", *world.data("captions"))
    assert times(trained.align) == before


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
        train(stage, tmp_path / stage, *options, updates=2)
        assert np.isfinite([value for _, value in read_log(tmp_path / stage)["loss"]]).all()


def test_aligner_only(trained: Trained, world: World, tmp_path: Path) -> None:
    """With gradient checkpointing, which must not reach into the frozen part."""
    weights = trained.lm / "weights"
    options = ["--weights", weights, *world.data("captions"), "--aligner-only"]
    for name, more in (("plain", []), ("twice", ["--gradient-checkpointing"])):
        found = train("instruct", tmp_path / name, *options, *more)
        assert {name.split(".")[0] for name in changed(weights, found)} == {"aligner"}
    assert read_log(tmp_path / "plain") == read_log(tmp_path / "twice")
