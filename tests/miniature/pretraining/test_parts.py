"""CLIP, VAE, decoder and probe through the command line."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image
from safetensors.torch import load_file
from transformers import CLIPModel, CLIPTextModel

from miniature.evaluation.probe import Probe
from miniature.pretraining import latents
from tests.training.logs import read_log
from tests.training.world import SIZES, World, fails, train


@pytest.mark.parametrize(
    ("stage", "names"),
    [
        ("clip", {"loss", "contrast", "words", "right"}),
        ("vae", {"loss", "pixel", "edge", "divergence", "coarse"}),
        ("decoder", {"loss"}),
    ],
)
def test_the_log(world: World, stage: str, names: set[str]) -> None:
    log = read_log(world.folder / stage)
    assert log.keys() == names | {"gradient", "rate"}
    assert all(len(entries) == 3 for entries in log.values())


def test_the_decoder_is_a_stable_diffusion(world: World) -> None:
    """With its own CLIP, as ``kosmosg new`` and diffusers open it."""
    weights = world.folder / "decoder" / "weights"
    assert {part.name for part in weights.iterdir()} == {
        *("scheduler", "text_encoder", "tokenizer", "unet", "vae")
    }
    clip: Any = CLIPModel.from_pretrained(world.folder / "clip" / "weights" / "clip")
    encoder: Any = CLIPTextModel.from_pretrained(weights / "text_encoder")
    ids = torch.tensor([[3, 4, 5]])
    with torch.no_grad():
        found = encoder(ids).last_hidden_state
        wanted = clip.text_model(ids).last_hidden_state
    assert torch.equal(found, wanted)


def test_the_vae_has_normalised_its_latents(world: World) -> None:
    """By running moments, here of three updates from 0 and 1 on."""
    vae: Any = AutoencoderKL.from_pretrained(world.folder / "vae" / "weights" / "vae")
    assert vae.config.scaling_factor == 1.0
    state = load_file(
        world.folder / "vae" / "checkpoints" / "step-00000003" / "weights.safetensors"
    )
    deviation = (state["latent_square"] - state["latent_mean"].square()).sqrt()
    assert (deviation != 1).all()
    weight = state["vae.post_quant_conv.weight"] * deviation[None, :, None, None]
    torch.testing.assert_close(vae.post_quant_conv.weight, weight)


def test_the_vae_shows_what_becomes_of_images(world: World) -> None:
    with Image.open(world.folder / "vae" / "samples" / "step-00000002.png") as sheet:
        assert sheet.size == (4 * 64, 2 * 64)
        assert np.asarray(sheet)[:64].std() > 10


def test_the_decoding_half_of_a_vae_is_trained_alone(world: World, tmp_path: Path) -> None:
    """Its latents, and what a U-Net knows of them, stay."""
    begun, clip = (world.folder / name / "weights" for name in ("vae", "clip"))
    options = ["--config", world.folder / "sizes.json", *world.data("images")]
    result = train("vae", tmp_path / "run", *options, "--vae", begun, "--clip", clip, updates=2)
    log = read_log(tmp_path / "run")
    assert log.keys() == {"loss", "pixel", "edge", "perceptual", "gradient", "rate"}
    name = "vae/diffusion_pytorch_model.safetensors"
    before, after = load_file(begun / name), load_file(result / name)
    assert before.keys() == after.keys()
    for key, tensor in before.items():
        decoding = key.startswith(("decoder.", "post_quant_conv."))
        assert torch.equal(tensor, after[key]) != decoding, key
    configs = [
        json.loads((folder / "vae" / "config.json").read_text()) for folder in (begun, result)
    ]
    assert configs[0]["scaling_factor"] == configs[1]["scaling_factor"]


def test_half_precision(world: World, tmp_path: Path) -> None:
    options = ["--config", world.folder / "sizes.json", *world.data("images")]
    train("vae", tmp_path / "vae", *options, "--save-dtype", "float16")
    folders = [folder / "weights" / "vae" for folder in (tmp_path / "vae", world.folder / "vae")]
    name = "diffusion_pytorch_model.safetensors"
    found, wanted = (load_file(folder / name) for folder in folders)
    for key, tensor in wanted.items():
        if key.startswith(("quant_conv", "post_quant_conv")):  # computed anew when it is written
            torch.testing.assert_close(found[key].float(), tensor, atol=1e-3, rtol=2e-3)
        else:
            assert torch.equal(found[key], tensor.half())


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_probe(art: Path, tmp_path: Path, dtype: str) -> None:
    weights = train("probe", tmp_path / "probe", "--save-dtype", dtype, "--art", art, updates=2)
    assert isinstance(Probe.from_pretrained(weights), Probe)
    assert len(read_log(tmp_path / "probe")["loss"]) == 2
    tensors = load_file(weights / "model.safetensors").values()
    assert {tensor.dtype for tensor in tensors if tensor.is_floating_point()} == {
        getattr(torch, dtype)
    }


def test_timesteps_can_be_weighed(world: World, tmp_path: Path) -> None:
    options = ["--config", world.folder / "sizes.json", *world.data("images")]
    for part in ("clip", "vae"):
        options += [f"--{part}", world.folder / part / "weights"]
    train("decoder", tmp_path / "run", *options, "--snr-gamma", 0.5)
    log, plain = read_log(tmp_path / "run"), read_log(world.folder / "decoder")
    assert log.keys() == plain.keys() | {"noise"}
    # Of the same draws by the same networks, before the first update.
    assert log["noise"][0][1] == pytest.approx(plain["loss"][0][1], rel=1e-5)
    assert log["loss"][0][1] < log["noise"][0][1]


def test_images_are_encoded_once(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Until the VAE is another one."""
    run, written = tmp_path / "decoder", []

    def save_file(*arguments: Any) -> None:
        written.append(arguments)
        original(*arguments)

    original = latents.save_file
    monkeypatch.setattr(latents, "save_file", save_file)
    shutil.copytree(world.folder / "decoder", run)
    options = ["--config", world.folder / "sizes.json", *world.data("images")]
    options += ["--clip", world.folder / "clip" / "weights", "--vae"]
    begin_anew(run)
    train("decoder", run, *options, world.folder / "vae" / "weights")
    assert written == []
    assert read_log(run) == read_log(world.folder / "decoder")

    other = tmp_path / "vae"
    shutil.copytree(world.folder / "vae" / "weights", other)
    vae: Any = AutoencoderKL.from_pretrained(other / "vae")
    vae.encoder.conv_in.weight.data += 0.1
    vae.save_pretrained(other / "vae")
    begin_anew(run)
    train("decoder", run, *options, other)
    assert len(written) == 1

    # To go on with the first one is refused before anything is overwritten.
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    refused = ["--output", run, *options, world.folder / "vae" / "weights", "--min-side", 64]
    assert re.search("vae was 'sha256:.{12}' and is 'sha256:", fails(capsys, "decoder", *refused))
    assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file()} == before


def test_a_decoder_is_trained_further(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    first = world.folder / "decoder" / "weights"
    options = [*world.data("images"), "--min-side", 64, "--unet", first]
    options += ["--clip", world.folder / "clip" / "weights"]
    options += ["--vae", world.folder / "vae" / "weights"]
    sizes = ["--config", world.folder / "sizes.json"]
    still = ["--learning-rate", 1e-12, "--weight-decay", 0]
    result = train("decoder", tmp_path / "further", *sizes, *options, *still)
    old, new = (
        load_file(f / "unet" / "diffusion_pytorch_model.safetensors") for f in (first, result)
    )
    assert all(torch.allclose(old[name], new[name], atol=1e-6) for name in old)

    other = write_sizes(tmp_path, "unet", norm_num_groups=2)
    refused = ["--output", tmp_path / "refused", *other, *options]
    assert "norm_num_groups=2 in 'unet', but the network in" in fails(capsys, "decoder", *refused)


def write_sizes(folder: Path, part: str, **changes: Any) -> list[Any]:
    """Write sizes of which some are others, and return the option that names the file."""
    file = folder / "sizes.json"
    file.write_text(json.dumps({**SIZES, part: {**SIZES[part], **changes}}))
    return ["--config", file]


def test_other_sizes_and_beginnings_are_refused(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    other = shutil.copytree(world.folder / "vocabulary" / "clip_tokenizer", tmp_path / "words")
    (other / "more.txt").write_text("more")
    common = [*world.data("images"), "--min-side", 64]
    clip = ["--output", world.folder / "clip", *common, "--tokenizer", other]
    found = fails(capsys, "clip", *write_sizes(tmp_path, "clip", logit_scale_init_value=2.0), *clip)
    for name in ("config", "tokenizer"):
        assert re.search(f"{name} was 'sha256:.{{12}}' and is 'sha256:.{{12}}'", found)
    vae = ["--output", world.folder / "vae", *common]
    found = fails(capsys, "vae", *write_sizes(tmp_path, "vae", scaling_factor=2), *vae)
    assert re.search("config was 'sha256:.{12}' and is 'sha256:.{12}'", found)
    begun = ["--config", world.folder / "sizes.json", "--vae", world.folder / "vae" / "weights"]
    found = fails(capsys, "vae", *begun, *vae)
    assert re.search("vae was None and is 'sha256:.{12}'", found)


def test_a_vae_that_is_trained_further_keeps_its_sizes(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    weights = world.folder / "vae" / "weights"
    run = ["--output", tmp_path / "run", *world.data("images"), "--vae", weights]
    found = fails(capsys, "vae", *write_sizes(tmp_path, "vae", sample_size=72), *run)
    assert f"sizes.json has sample_size=72 in 'vae', but the network in {weights} has 64" in found


@pytest.mark.parametrize(
    ("stage", "part", "changes"),
    [
        ("clip", "clip", {"text_config": 3}),
        ("clip", "clip", {"vision_config": {"hidden_size": 30, "num_attention_heads": 4}}),
        ("vae", "vae", {"block_out_channels": 8}),
        ("vae", "vae", {"down_block_types": ["Block"] * 4}),
        ("vae", "vae", {"norm_num_groups": 3}),
        ("decoder", "unet", {"block_out_channels": [8, 16, 32]}),
        ("decoder", "unet", {"width": 8}),
    ],
)
def test_sizes_of_no_network(
    world: World,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    stage: str,
    part: str,
    changes: dict[str, Any],
) -> None:
    """The libraries' own errors name neither file nor entry."""
    more: dict[str, list[Any]] = {
        "clip": ["--tokenizer", world.folder / "vocabulary" / "clip_tokenizer"],
        "vae": [],
        "decoder": [
            *("--clip", world.folder / "clip" / "weights"),
            *("--vae", world.folder / "vae" / "weights"),
        ],
    }
    run = ["--output", tmp_path / "run", *world.data("images"), "--min-side", 64, *more[stage]]
    found = fails(capsys, stage, *write_sizes(tmp_path, part, **changes), *run)
    assert re.search(rf"sizes\.json: no network can be built of '{part}' \(.+\)\. Correct", found)


def begin_anew(run: Path) -> None:
    for folder in ("checkpoints", "weights"):
        shutil.rmtree(run / folder)


def test_mistakes(world: World, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run = ["--output", tmp_path / "run", *world.data("images")]
    sizes = ["--config", world.folder / "sizes.json"]
    words = ["--tokenizer", world.folder / "vocabulary" / "clip_tokenizer"]
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    (tmp_path / "sizes.json").write_text(json.dumps({**SIZES, "vae": {}, "clip": 3}))
    bad = ["--config", tmp_path / "sizes.json"]
    for stage, options, message in (
        ("clip", [*sizes, "--tokenizer", nothing], "no CLIP tokenizer in"),
        ("clip", [*bad, *words], "sizes.json cannot be used"),
        ("vae", ["--config", tmp_path / "none.json"], "none.json cannot be used"),
        ("vae", bad, "has no sample_size"),
        ("decoder", [*sizes, "--clip", nothing, "--vae", nothing], "config.json is missing"),
    ):
        assert message in fails(capsys, stage, *run, *options)


def test_data_without_a_image(world: World, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    parts = ["--clip", world.folder / "clip" / "weights", "--vae", world.folder / "vae" / "weights"]
    run = ["--output", tmp_path / "run", "--config", world.folder / "sizes.json", *parts]
    assert "no captioned image" in fails(capsys, "decoder", *run, *world.data("text"))
    weighted = world.data("images", 2)
    assert "is given the weight 2, but" in fails(capsys, "decoder", *run, *weighted)
