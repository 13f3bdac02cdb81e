"""``kosmosg new``: weights to begin with, and parts that do not fit."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import CLIPConfig, CLIPModel, CLIPTextModel

from kosmosg.checkpoints.convert import save
from kosmosg.checkpoints.loading import load_model
from kosmosg.checkpoints.untrained import write_untrained
from kosmosg.cli import main as cli
from kosmosg.errors import CheckpointError, WeightsError
from kosmosg.models.kosmosg import KosmosG
from kosmosg.pipeline import KosmosGPipeline
from tests import tiny

VISION = {
    "hidden_size": 32,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 56,
    "patch_size": 14,
}
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "vocab_size": 60,
}


def write_clip(folder: Path, **changes: Any) -> Path:
    torch.manual_seed(3)
    config = CLIPConfig(vision_config={**VISION, **changes}, text_config=TEXT, projection_dim=16)
    CLIPModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer, a decoder with a text encoder, a CLIP and a configuration."""
    folder = tmp_path_factory.mktemp("parts")
    tiny.write_tokenizer(folder / "tokenizer", tiny.SIZES["vocab_size"])
    tiny.make_random_decoder(tiny.SIZES["aligner"]["dim"]).save_pretrained(folder / "sd")
    text: Any = CLIPConfig(text_config=TEXT).text_config
    CLIPTextModel(text).save_pretrained(folder / "sd" / "text_encoder")
    tiny.write_clip_tokenizer(folder / "sd" / "tokenizer")
    write_clip(folder / "clip")
    (folder / "config.json").write_text(json.dumps({"kosmosg": tiny.SIZES, "unet": {}}))
    return folder


def options(folder: Path, **changes: Any) -> dict[str, Any]:
    common: dict[str, Any] = {
        "sizes": tiny.SIZES,
        "tokenizer": folder / "tokenizer",
        "stable_diffusion": str(folder / "sd"),
    }
    return common | changes


def new(folder: Path, output: Path, *more: Any) -> int:
    words = ["new", output, "--tokenizer", folder / "tokenizer", "--config", folder / "config.json"]
    words += ["--stable-diffusion", folder / "sd", *more]
    return cli.main([str(word) for word in words])


def test_images_are_as_large_as_what_stands_beside_them(folder: Path, tmp_path: Path) -> None:
    """And differ from each other: the positions of the language model have a size of 0.7."""
    write_untrained(tmp_path / "w", **options(folder, clip=folder / "clip"))
    kosmosg = load_model(KosmosG, tmp_path / "w" / "kosmosg", dtype=torch.float32)
    images = torch.randn(8, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found: Any = kosmosg.kosmos2.get_image_features(images)
    slots = found.pooler_output
    assert 0.1 < float(slots.std()) < 3
    assert float(slots.std(dim=0).mean()) > 0.02


def test_aligner_begins_as_magneto(folder: Path, tmp_path: Path) -> None:
    """With the library's 0.02 each weight, times the root of its width, would be 0.11."""
    write_untrained(tmp_path / "w", **options(folder))
    kosmosg = load_model(KosmosG, tmp_path / "w" / "kosmosg", dtype=torch.float32)
    layers = {n: m for n, m in kosmosg.aligner.named_modules() if n.endswith("_proj")}
    assert len(layers) > 10
    for name, layer in layers.items():
        weight: Any = layer.weight
        size = float(weight.std()) * weight.shape[1] ** 0.5
        gain = 1.0 if name.endswith(("q_proj", "k_proj")) else math.log(2 * 2) ** 0.5
        assert size == pytest.approx(gain, rel=0.1), name


def test_new_weights_open(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert new(folder, tmp_path / "w") == 0
    assert capsys.readouterr().out == f"{tmp_path / 'w'}\n"
    pipeline = KosmosGPipeline.from_pretrained(tmp_path / "w")
    assert pipeline.kosmosg.config.stage == "none"
    assert pipeline("a dog", num_inference_steps=1, seed=0).images[0].size == (64, 64)
    assert not (tmp_path / "w" / "text_encoder").exists()


def test_the_decoder_is_taken_as_it_is(folder: Path, tmp_path: Path) -> None:
    assert new(folder, tmp_path / "w") == 0
    for part in ("unet", "vae"):
        name = "diffusion_pytorch_model.safetensors"
        found, wanted = (load_file(each / part / name) for each in (tmp_path / "w", folder / "sd"))
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[key], wanted[key]) for key in wanted)


def test_the_vision_tower_is_clips(folder: Path, tmp_path: Path) -> None:
    assert new(folder, tmp_path / "w", "--clip", folder / "clip") == 0
    kosmosg = KosmosGPipeline.from_pretrained(tmp_path / "w").kosmosg
    clip: Any = CLIPModel.from_pretrained(folder / "clip").eval()
    pixels = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = kosmosg.kosmos2.vision_model(pixel_values=pixels).last_hidden_state
        wanted = clip.vision_model(pixel_values=pixels).last_hidden_state
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=0)
    ours, theirs = kosmosg.kosmos2.vision_model.model.state_dict(), clip.vision_model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_the_text_encoder_comes_along(folder: Path, tmp_path: Path) -> None:
    assert new(folder, tmp_path / "w", "--text-encoder", "--dtype", "float16") == 0
    found = load_file(tmp_path / "w" / "text_encoder" / "model.safetensors")
    wanted = load_file(folder / "sd" / "text_encoder" / "model.safetensors")
    assert all(torch.equal(found[name], wanted[name].half()) for name in wanted)
    assert (tmp_path / "w" / "clip_tokenizer" / "tokenizer_config.json").is_file()


def test_the_seed_decides(folder: Path, tmp_path: Path) -> None:
    file = "kosmosg/model.safetensors"
    torch.manual_seed(7)
    state = torch.get_rng_state()
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_untrained(tmp_path / name, **options(folder, seed=seed))
        assert torch.equal(torch.get_rng_state(), state), "the caller's generator stays"
    contents = [(tmp_path / name / file).read_bytes() for name in "abc"]
    assert contents[0] == contents[1] != contents[2]


# ------------------------------------------------------------------ parts that do not fit


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 16}, "has hidden_size=16, but the configuration says 32"),
        ({"patch_size": 28}, "has patch_size=28, but the configuration says 14"),
        ({"num_attention_heads": 2}, "has num_attention_heads=2, but the configuration says 4"),
        ({"hidden_act": "gelu"}, "has hidden_act='gelu', but the configuration says 'quick_gelu'"),
        ({"num_hidden_layers": 3}, "has num_hidden_layers=3, but the configuration says 2"),
    ],
)
def test_a_clip_of_another_size(
    folder: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    """Also where the shapes of the weights do not show it."""
    clip = write_clip(tmp_path / "clip", **changes)
    with pytest.raises(CheckpointError, match=message):
        write_untrained(tmp_path / "w", **options(folder, clip=clip))
    assert not (tmp_path / "w").exists()


def sizes(**changes: Any) -> dict[str, Any]:
    return {**tiny.SIZES, **changes}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": 500}, "has 320 entries, but the configuration says vocab_size=500"),
        ({"aligner": {**tiny.SIZES["aligner"], "dim": 64}}, "64 wide, but the U-Net .* takes 32"),
        ({"aligner": {**tiny.SIZES["aligner"], "heads": 5}}, "must be a multiple"),
        ({"image_token_length": 7}, "must equal decoder.latent_query_num"),
    ],
)
def test_sizes_that_do_not_fit(
    folder: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        write_untrained(tmp_path / "w", **options(folder, sizes=sizes(**changes)))
    assert not (tmp_path / "w").exists()


def test_parts_that_are_missing(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(WeightsError, match=r"config\.json is missing"):
        write_untrained(tmp_path / "w", **options(folder, clip=tmp_path))
    with pytest.raises(WeightsError, match="lacks sentencepiece"):
        write_untrained(tmp_path / "w", **options(folder, tokenizer=tmp_path))
    with pytest.raises(CheckpointError, match="'unet' could not be taken from"):
        write_untrained(tmp_path / "w", **options(folder, stable_diffusion=str(tmp_path)))
    bare = shutil.copytree(folder / "sd", tmp_path / "bare")
    shutil.rmtree(bare / "tokenizer")
    with pytest.raises(WeightsError, match=r"no CLIP tokenizer in .*bare/tokenizer"):
        write_untrained(
            tmp_path / "w", **options(folder, stable_diffusion=str(bare), text_encoder=True)
        )
    assert not (tmp_path / "w").exists()
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").touch()
    assert new(folder, tmp_path / "there") == 1
    assert "there" in capsys.readouterr().err
    assert new(folder, tmp_path / "w", "--config", tmp_path / "none.json") == 1
    assert "none.json cannot be used" in capsys.readouterr().err


def test_an_interrupted_command_leaves_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(part: Any, where: Path) -> None:
        where.mkdir()
        if where.name == "vae":
            raise KeyboardInterrupt
        save(part, where)

    monkeypatch.setattr("kosmosg.checkpoints.untrained.save", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_untrained(tmp_path / "w", **options(folder))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=9))
    with pytest.raises(CheckpointError, match=r"w has 9\.\d*B free, and .*B are needed"):
        write_untrained(tmp_path / "w", **options(folder))
    assert list(tmp_path.iterdir()) == []
