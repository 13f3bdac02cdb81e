"""DreamBooth's and COCO's sets, DINO and CLIP, and a Stable Diffusion: made up, small, and real.

``python -m tests.evaluation.fabricated FOLDER`` writes them with a small random KOSMOS-G, so that
the evaluations can be tried without any download.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModel, ViTConfig, ViTModel

from kosmosg.evaluation.dreambench import load_subjects
from tests import tiny

SUBJECTS = ("can", "cat", "vase")  # of both sets
PHOTOGRAPHS, CAPTIONS_OF_EACH = 9, 5
TOWER: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


@dataclass(frozen=True, kw_only=True)
class Fabricated:
    """Where all of it lies.

    Attributes:
        subjects: DreamBooth's folder, with ``SUBJECTS``.
        captions: COCO's JSON.
        photographs: COCO's images.
        dino: A ViT.
        clip: A CLIP with its tokenizer.
        pipeline: A Stable Diffusion.
    """

    subjects: Path
    captions: Path
    photographs: Path
    dino: Path
    clip: Path
    pipeline: Path


def fabricate(folder: Path, subjects: Sequence[str] = SUBJECTS) -> Fabricated:
    """Make everything.

    Args:
        folder: Where to; nothing of it may be there.
        subjects: Of DreamBooth's; none means all.
    """
    made = Fabricated(
        subjects=folder / "dreambooth" / "dataset",
        captions=folder / "coco" / "captions_val2014.json",
        photographs=folder / "coco" / "val2014",
        dino=folder / "dino",
        clip=folder / "clip",
        pipeline=folder / "stable-diffusion",
    )
    write_dreambooth(made.subjects, subjects)
    write_coco(made.captions, made.photographs)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        write_dino(made.dino)
        write_clip(made.clip)
        write_stable_diffusion(made.pipeline)
    return made


def photograph(seed: int, size: tuple[int, int]) -> Image.Image:
    """Make up something with shapes and colours, wherever it is cropped."""
    rng = np.random.default_rng(seed)
    rough = Image.fromarray(rng.integers(0, 256, (5, 4, 3), dtype=np.uint8))
    return rough.resize(size, Image.Resampling.BICUBIC)


def write_dreambooth(folder: Path, subjects: Sequence[str]) -> None:
    """Write the photograph that is kept of each subject, and one that is not."""
    for number, subject in enumerate(load_subjects(subjects)):
        (folder / subject.name).mkdir(parents=True)
        kept = photograph(number, (96 + 10 * number, 80))
        kept.save(folder / subject.name / f"{subject.photograph}.jpg", quality=95)
        Image.new("RGB", (64, 64)).save(folder / subject.name / "09.jpg")


def write_coco(captions: Path, photographs: Path) -> None:
    """Write photographs of several shapes, one of them grey, and captions in any order."""
    photographs.mkdir(parents=True)
    images = [{"id": n, "file_name": f"COCO_val2014_{n:012d}.jpg"} for n in range(PHOTOGRAPHS)]
    for n, image in enumerate(images):
        made = photograph(100 + n, (90 + 7 * n, 120 - 5 * n))
        made.convert("L" if n == 2 else "RGB").save(photographs / str(image["file_name"]))
    annotations = [
        {"id": n, "image_id": n % PHOTOGRAPHS, "caption": f"a dog number {n} on the beach"}
        for n in range(PHOTOGRAPHS * CAPTIONS_OF_EACH)
    ]
    captions.write_text(json.dumps({"images": images, "annotations": annotations}))


def write_dino(folder: Path) -> None:
    """Write a small ViT without a pooler, as DINO has none."""
    config = ViTConfig(**TOWER, image_size=28, patch_size=14)
    enliven(ViTModel(config, add_pooling_layer=False)).save_pretrained(folder)


def write_clip(folder: Path) -> None:
    """Write a small CLIP that reads letters."""
    words: Any = tiny.write_clip_tokenizer(folder)
    config = CLIPConfig(
        text_config={
            **TOWER,
            "vocab_size": len(words),
            "bos_token_id": words.bos_token_id,
            "eos_token_id": words.eos_token_id,
            "pad_token_id": words.pad_token_id,
        },
        vision_config={**TOWER, "image_size": 32, "patch_size": 16},
        projection_dim=16,
    )
    enliven(CLIPModel(config)).save_pretrained(folder)


def write_stable_diffusion(folder: Path) -> None:
    """Write a small Stable Diffusion in the layout of diffusers, with a safety checker."""
    decoder = tiny.make_random_decoder(cross_attention_dim=32)
    decoder.unet.register_to_config(sample_size=8)  # images of 64 pixels
    words: Any = tiny.write_clip_tokenizer(folder / "tokenizer")
    config = CLIPTextConfig(
        **TOWER,
        vocab_size=len(words),
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )
    parts: dict[str, Any] = {name: getattr(decoder, name) for name in ("unet", "vae", "scheduler")}
    StableDiffusionPipeline(
        **parts,
        text_encoder=CLIPTextModel(config),
        tokenizer=words,
        **tiny.make_safety_checker(flag_all=True),
    ).save_pretrained(folder)


def enliven(model: Any) -> Any:
    """Scale up the linear layers: as initialised, an image hardly moves the features."""
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.normal_(module.weight, std=module.in_features**-0.5)
    return model


def main() -> None:
    """Write made-up sets and small random networks, KOSMOS-G among them."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    if folder.exists():
        parser.error(f"{folder} is there already; name a new folder")
    fabricate(folder, subjects=())
    tiny.write_weights(folder / "weights")


if __name__ == "__main__":
    main()
