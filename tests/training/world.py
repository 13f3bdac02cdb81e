"""The whole way from nothing, through the command line, at the smallest sizes that work."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kosmosg.cli import main as cli
from miniature import __main__ as miniature
from miniature.world.dataset import write_dataset
from tests.miniature.art import write_art

TOWER = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
SIZES: dict[str, Any] = {
    "clip": {
        "projection_dim": 16,
        "text_config": TOWER,
        "vision_config": {**TOWER, "image_size": 32, "patch_size": 16},
    },
    "vae": {
        "sample_size": 64,
        "latent_channels": 4,
        "block_out_channels": [8, 8, 16, 16],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "layers_per_block": 1,
        "mid_block_add_attention": False,
        "norm_num_groups": 4,
    },
    "unet": {
        "block_out_channels": [8, 16],
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
        "layers_per_block": 1,
        "attention_head_dim": 4,
        "norm_num_groups": 4,
    },
    "kosmosg": {
        "vocab_size": 195,
        "image_token_length": 4,
        "decoder": {
            "decoder_layers": 2,
            "decoder_embed_dim": 32,
            "decoder_attention_heads": 4,
            "decoder_ffn_embed_dim": 64,
            "activation_fn": "gelu",
            "dropout": 0.1,
            "attention_dropout": 0.1,
            "activation_dropout": 0.0,
            "latent_query_num": 4,
            "max_target_positions": 128,
        },
        "vision": {
            "image_size": 32,
            "patch_size": 16,
            "width": 32,
            "heads": 4,
            "layers": 2,
            "mlp_ratio": 2.0,
            "quick_gelu": True,
        },
        "aligner": {
            "dim": 32,
            "heads": 4,
            "ffn": 64,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "position_table": 130,
            "queries": 32,
        },
        "layer_norm_eps": 1e-5,
    },
}
WITHOUT_THREADS = ("probe", "decoder", "lora", "controlnet")
IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))


@dataclass(frozen=True, kw_only=True)
class World:
    """A small world in a folder, up to the weights that stage 1 begins with."""

    folder: Path

    @property
    def start(self) -> Path:
        return self.folder / "start"

    def data(self, name: str, weight: float = 1.0) -> list[str]:
        return ["--data", f"{self.folder / 'data' / name}:{weight}"]


STAGES = ("lm", "align", "instruct")  # of KOSMOS-G; what else is trained is the miniature's


def command(*arguments: Any) -> int:
    """Run a command of the package, or of the miniature where the package has none such."""
    return run_words([str(argument) for argument in arguments])


def run_words(words: list[str]) -> int:
    ours = words[0] == "new" or (words[:1] == ["train"] and words[1] in STAGES)
    return cli.main(words) if ours else miniature.main(words)


def train_by_words(words: list[str]) -> None:
    """Run a command in a process of its own, which ends with its exit code."""
    raise SystemExit(run_words(words))


def train(stage: str, output: Path, *arguments: Any, **sizes: int) -> Path:
    """Run ``train`` and return the folder of the result."""
    assert command(*words_of(stage, output, *arguments, **sizes)) == 0
    return output / "weights"


def words_of(
    stage: str, output: Path, *arguments: Any, updates: int = 3, batch_size: int = 4
) -> list[str]:
    """Write out ``train`` with all that a short run needs."""
    common = ["--output", output, "--updates", updates, "--batch-size", batch_size]
    common += ["--warmup-updates", 1, "--log-every", 1]
    if stage not in WITHOUT_THREADS:
        common += ["--threads", 0]
    if stage != "probe" and "--min-side" not in arguments:
        common += ["--min-side", 64]
    return [str(word) for word in ("train", stage, *common, *arguments)]


def fails(capsys: pytest.CaptureFixture, stage: str, *arguments: Any) -> str:
    """Run a command that must fail, and return its only line of complaint."""
    common: list[Any] = ["--updates", 2, "--batch-size", 2]
    if stage not in WITHOUT_THREADS:
        common += ["--threads", 0]
    assert command("train", stage, *common, *arguments) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("error: ")
    assert not any("Traceback" in line for line in lines)
    return lines[-1]


def make_world(folder: Path) -> World:
    """Do what the miniature's recipe does, up to ``kosmosg new``."""
    world = World(folder=folder)
    sizes = folder / "sizes.json"
    sizes.write_text(json.dumps(SIZES))
    art = write_art(folder / "art")
    assert command("vocabulary", folder / "vocabulary", "--art", art) == 0
    write_dataset(folder / "data", art, scale=0.002, processes=1, per_shard=20)
    renderings = ["--config", sizes, *world.data("images")]
    words = ["--tokenizer", folder / "vocabulary" / "clip_tokenizer"]
    clip = train("clip", folder / "clip", *renderings, *words)
    vae = train("vae", folder / "vae", *renderings, "--sample-every", 2)
    decoder = train("decoder", folder / "decoder", *renderings, "--clip", clip, "--vae", vae)
    new = ["--config", sizes, "--tokenizer", folder / "vocabulary" / "tokenizer"]
    new += ["--stable-diffusion", decoder, "--clip", clip / "clip", "--text-encoder"]
    assert command("new", world.start, *new) == 0
    return world
