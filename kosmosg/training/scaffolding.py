"""What a KOSMOS-G from nothing needs before its stages: CLIP, a VAE, a U-Net, a beginning.

The paper takes these from others (sections 2.1 and 2.2), and so does the full size. The miniature
has a world of its own, and thus trains its own.
"""

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, CLIPTextModel

from kosmosg.config import SD15_SCHEDULER
from kosmosg.data.miniature.stream import PictureStream
from kosmosg.errors import TrainingError
from kosmosg.evaluation.probe import Probe
from kosmosg.fingerprint import fingerprint, fingerprint_of
from kosmosg.models.loading import load_component
from kosmosg.stable_diffusion import load_clip_tokenizer, make_pndm
from kosmosg.training.data import DataOptions, picture_preparer
from kosmosg.training.diffusion import Diffusion
from kosmosg.training.latents import LatentStream, encode_pictures
from kosmosg.training.loop import train
from kosmosg.training.options import LoopOptions
from kosmosg.training.resuming import check_settings
from kosmosg.training.stage import Stage, Stream
from kosmosg.training.stages.clip import ClipStage, begin_with_sines, encode_captions
from kosmosg.training.stages.decoder import DecoderStage
from kosmosg.training.stages.examples import with_seed
from kosmosg.training.stages.perceptual import PerceptualDistance
from kosmosg.training.stages.probe import ProbeStage
from kosmosg.training.stages.vae import VaeStage


def train_clip(
    config: dict[str, Any],
    tokenizer: Path,
    data: DataOptions,
    options: LoopOptions,
    *,
    clip: Path | None = None,
) -> Path:
    """Train a CLIP on captioned pictures.

    Args:
        config: Of transformers' ``CLIPConfig``; the vocabulary's size is the tokenizer's.
        tokenizer: Folder of CLIP's tokenizer.
        data: Captioned pictures.
        options: How to train.
        clip: Result of ``train_clip`` to begin with: larger batches, with captions that are harder
            to tell apart, are for one that knows the easy ones.
    """
    words: Any = load_clip_tokenizer(tokenizer)
    text = {
        **config.get("text_config", {}),
        "vocab_size": len(words),
        "bos_token_id": words.bos_token_id,
        "eos_token_id": words.eos_token_id,
        "pad_token_id": words.pad_token_id,
        "max_position_embeddings": words.model_max_length,
    }
    sizes: Any = CLIPConfig(**{**config, "text_config": text})
    prepare = with_seed(picture_preparer(image_size=sizes.vision_config.image_size))

    def build() -> Stage:
        if clip is None:
            begun = CLIPModel(sizes)
            begin_with_sines(begun)
            return ClipStage(begun, words)
        return ClipStage(load_component(CLIPModel, clip / "clip", dtype=torch.float32), words)

    def open_stream(rank: int, processes: int) -> Stream:
        return data.mixture(prepare, rank, processes)

    settings = {"config": fingerprint_of(config), "tokenizer": fingerprint(tokenizer)}
    return train(build, open_stream, options, settings | data.identity())


def train_vae(
    config: dict[str, Any],
    data: DataOptions,
    options: LoopOptions,
    *,
    vae: Path | None = None,
    clip: Path | None = None,
) -> Path:
    """Train a VAE on pictures.

    Args:
        config: Of diffusers' ``AutoencoderKL``, with ``sample_size``.
        data: Captioned pictures.
        options: How to train.
        vae: Result of ``train_vae`` whose decoding half alone is trained further, for the same
            latents.
        clip: Result of ``train_clip``, to see with as well.

    Raises:
        TrainingError: If the configuration has no ``sample_size``.
        WeightsError: If a given result cannot be opened.
    """
    if "sample_size" not in config:
        raise TrainingError("The configuration of the VAE has no sample_size. Add it, in pixels.")
    prepare = with_seed(picture_preparer(target_size=config["sample_size"]))

    def build() -> Stage:
        perceptual = None
        if clip is not None:
            eye: Any = load_component(CLIPModel, clip / "clip", dtype=torch.float32)
            perceptual = PerceptualDistance(eye.vision_model)
        if vae is None:
            return VaeStage(AutoencoderKL(**config), perceptual=perceptual)
        begun = load_component(AutoencoderKL, vae / "vae", dtype=torch.float32)
        return VaeStage(begun, decoder_only=True, perceptual=perceptual)

    def open_stream(rank: int, processes: int) -> Stream:
        return data.mixture(prepare, rank, processes)

    settings = {
        "decoder_only": vae is not None,
        "perceptual": clip is not None,
        "config": fingerprint_of(config),
        "vae": None if vae is None else fingerprint(vae / "vae"),
        "clip": None if clip is None else fingerprint(clip / "clip"),
    }
    return train(build, open_stream, options, settings | data.identity())


def train_decoder(
    config: dict[str, Any],
    clip: Path,
    vae: Path,
    data: DataOptions,
    options: LoopOptions,
    *,
    snr_gamma: float | None = None,
) -> Path:
    """Train a U-Net to draw captions, and put a Stable Diffusion together.

    Args:
        config: Of diffusers' ``UNet2DConditionModel``; what VAE and CLIP decide is filled in.
        clip: Result of ``train_clip``.
        vae: Result of ``train_vae``.
        data: Captioned pictures; each is encoded once.
        options: How to train.
        snr_gamma: See ``DecoderStage``.
    """
    source = options.output / "source"
    parts = _load_parts(clip, vae)
    autoencoder, scheduler = parts["vae"], parts["scheduler"]
    settings = {
        "snr_gamma": snr_gamma,
        "config": fingerprint_of(config),
        "clip": fingerprint(clip),
        "vae": fingerprint(vae / "vae"),
        **data.identity(),
    }
    check_settings(options.output, settings)
    encoded = _write_and_encode(parts, source, data, options)
    sizes = {
        "in_channels": autoencoder.config["latent_channels"],
        "out_channels": autoencoder.config["latent_channels"],
        "sample_size": encoded["mean"].shape[-1],
        "cross_attention_dim": parts["text_encoder"].config.hidden_size,
    }

    def build() -> Stage:
        return DecoderStage(
            source,
            UNet2DConditionModel(**{**config, **sizes}),
            load_component(CLIPTextModel, source / "text_encoder", dtype=torch.float32),
            encode_captions(parts["tokenizer"], [""])[0],
            Diffusion(dict(scheduler.config), autoencoder.config["scaling_factor"]),
            snr_gamma,
        )

    def open_stream(rank: int, processes: int) -> Stream:
        return LatentStream(encoded, seed=data.seed, rank=rank, world_size=processes)

    return train(build, open_stream, options, settings)


def _load_parts(clip: Path, vae: Path) -> dict[str, Any]:
    """Load what surrounds the U-Net."""
    autoencoder: Any = load_component(AutoencoderKL, vae / "vae", dtype=torch.float32)
    model: Any = load_component(CLIPModel, clip / "clip", dtype=torch.float32)
    words: Any = load_clip_tokenizer(clip / "clip_tokenizer")
    encoder: Any = CLIPTextModel(model.config.text_config)
    encoder.load_state_dict(model.text_model.state_dict())
    return {
        "vae": autoencoder,
        "text_encoder": encoder,
        "tokenizer": words,
        "scheduler": make_pndm(SD15_SCHEDULER),
    }


def _write_and_encode(
    parts: dict[str, Any], source: Path, data: DataOptions, options: LoopOptions
) -> dict[str, Tensor]:
    """Write what surrounds the U-Net, and encode the pictures."""
    state = find_processes()
    with state.main_process_first():  # the others read what it has written
        if state.is_main_process:
            for name, part in parts.items():
                part.save_pretrained(source / name)
        return encode_pictures(
            data.shards(),
            parts["vae"].to(state.device),
            parts["tokenizer"],
            options.output / "latents.safetensors",
            limit=data.limit,
            min_side=data.min_side,
            bfloat16=options.precision == "bf16",
        )


def train_probe(options: LoopOptions) -> Path:
    """Train the probe on pictures that are drawn as it goes.

    Args:
        options: How to train.
    """

    def build() -> Stage:
        return ProbeStage(Probe())

    def open_stream(rank: int, processes: int) -> Stream:
        return PictureStream(options.seed, rank, processes)

    return train(build, open_stream, options)
