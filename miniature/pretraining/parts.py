"""What a KOSMOS-G from nothing needs before its stages: CLIP, a VAE, a U-Net, a beginning.

The paper takes these from others (sections 2.1 and 2.2), and so does the full size. The miniature
has a world of its own, and thus trains its own.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, CLIPTextModel, CLIPTokenizer

from kosmosg.checkpoints.loading import check_config, load_component
from kosmosg.checkpoints.stable_diffusion import (
    SD15_SCHEDULER,
    encode_captions,
    load_clip_tokenizer,
    make_pndm,
)
from kosmosg.errors import TrainingError
from kosmosg.training.checkpoints import check_known_settings, hold_run
from kosmosg.training.data import TrainingData, image_preparer
from kosmosg.training.loop import train
from kosmosg.training.noise import Diffusion
from kosmosg.training.options import LoopOptions
from kosmosg.training.stage import Stage, Stream
from kosmosg.training.stages.common import with_seed
from kosmosg.utils.fingerprint import fingerprint
from kosmosg.utils.processes import find_processes
from miniature.evaluation.probe import Probe, ProbeConfig
from miniature.evaluation.probe_labels import make_heads
from miniature.pretraining.clip import ClipStage, begin_with_sines
from miniature.pretraining.latents import LatentStream, encode_images
from miniature.pretraining.options import ClipOptions, DecoderOptions, ProbeOptions, VaeOptions
from miniature.pretraining.perceptual import PerceptualDistance
from miniature.pretraining.probe import ProbeStage
from miniature.pretraining.sizes import NetworkSizes
from miniature.pretraining.unet import DecoderStage
from miniature.pretraining.vae import VaeStage, begin_with_signal
from miniature.world import World
from miniature.world.art import open_art
from miniature.world.stream import RenderingStream


def train_clip(options: ClipOptions) -> Path:
    """Train a CLIP on captioned images.

    Raises:
        TrainingError: If there is no CLIP of these sizes.
        WeightsError: If the tokenizer cannot be opened.
    """
    sizes = NetworkSizes.read(options.config, "clip")
    data = TrainingData.of(options.data, options.loop)
    clip_tokenizer: Any = load_clip_tokenizer(options.tokenizer)
    with sizes.building():
        text = {
            **sizes.values.get("text_config", {}),
            "vocab_size": len(clip_tokenizer),
            "bos_token_id": clip_tokenizer.bos_token_id,
            "eos_token_id": clip_tokenizer.eos_token_id,
            "pad_token_id": clip_tokenizer.pad_token_id,
            "max_position_embeddings": clip_tokenizer.model_max_length,
        }
        config: Any = CLIPConfig(**{**sizes.values, "text_config": text})
    prepare = with_seed(image_preparer(image_size=config.vision_config.image_size))

    def build() -> Stage:
        with sizes.building():
            clip = CLIPModel(config)
        begin_with_sines(clip)
        return ClipStage(clip, clip_tokenizer)

    def open_stream(rank: int, processes: int) -> Stream:
        return data.mixture(prepare, rank, processes)

    settings = {"config": sizes.identity(), "tokenizer": fingerprint(options.tokenizer)}
    return train(build, open_stream, options.loop, settings | data.identity())


def train_vae(options: VaeOptions) -> Path:
    """Train a VAE on images.

    Raises:
        TrainingError: If the sizes lack ``sample_size``, give no VAE, or are not those of a given
            one.
        WeightsError: If a given result cannot be opened.
    """
    sizes, vae, clip = NetworkSizes.read(options.config, "vae"), options.vae, options.clip
    data = TrainingData.of(options.data, options.loop)
    if "sample_size" not in sizes.values:
        raise TrainingError(f"{sizes.file}: 'vae' has no sample_size. Add it, in pixels.")
    if vae is not None:
        found = check_config(vae / "vae" / "config.json", "vae")
        sizes.compare(found, vae, but=("scaling_factor",))  # which follows from training
    prepare = with_seed(image_preparer(target_size=sizes.values["sample_size"]))

    def build() -> Stage:
        perceptual = None if clip is None else _load_eye(clip)
        if vae is None:
            with sizes.building():
                fresh = AutoencoderKL(**sizes.values)
            begin_with_signal(fresh)
            return VaeStage(fresh, perceptual=perceptual, crop=options.crop)
        begun = load_component(AutoencoderKL, vae / "vae", dtype=torch.float32)
        return VaeStage(begun, decoder_only=True, perceptual=perceptual, crop=options.crop)

    def open_stream(rank: int, processes: int) -> Stream:
        return data.mixture(prepare, rank, processes)

    settings = {
        "decoder_only": vae is not None,
        "crop": options.crop,
        "perceptual": clip is not None,
        "config": sizes.identity(),
        "vae": None if vae is None else fingerprint(vae / "vae"),
        "clip": None if clip is None else fingerprint(clip / "clip"),
    }
    return train(build, open_stream, options.loop, settings | data.identity())


def _load_eye(clip: Path) -> PerceptualDistance:
    model: Any = load_component(CLIPModel, clip / "clip", dtype=torch.float32)
    return PerceptualDistance(model.vision_model)


def train_decoder(options: DecoderOptions) -> Path:
    """Train a U-Net to draw captions, and put a Stable Diffusion together.

    Raises:
        TrainingError: If there is no U-Net of these sizes, or a given one has others.
        WeightsError: If a given result cannot be opened.
    """
    sizes, loop = NetworkSizes.read(options.config, "unet"), options.loop
    if options.unet:
        sizes.compare(check_config(options.unet / "unet" / "config.json", "unet"), options.unet)
    data = TrainingData.of(options.data, loop)
    parts = DecoderParts.load(options.clip, options.vae)
    settings = {
        "snr_gamma": options.snr_gamma,
        "config": sizes.identity(),
        "clip": fingerprint(options.clip),
        "vae": fingerprint(options.vae / "vae"),
        **({"unet": fingerprint(options.unet / "unet")} if options.unet else {}),
        **data.identity(),
    }
    with hold_run(loop.output):
        check_known_settings(loop.output, settings)
        source = loop.output / "source"
        encoded = _write_and_encode(parts, source, data, loop)

        def build() -> Stage:
            given = {**sizes.values, **parts.sizes_of_unet(encoded)}
            unet = _load_unet(options.unet, given) if options.unet else _make_unet(sizes, given)
            encoder = load_component(CLIPTextModel, source / "text_encoder", dtype=torch.float32)
            null_ids = encode_captions(parts.tokenizer, [""])[0]
            diffusion = parts.diffusion()
            return DecoderStage(
                unet, encoder, null_ids, diffusion, snr_gamma=options.snr_gamma, source=source
            )

        def open_stream(rank: int, processes: int) -> Stream:
            return LatentStream(encoded, seed=data.seed, rank=rank, world_size=processes)

        return train(build, open_stream, loop, settings)


def _make_unet(sizes: NetworkSizes, config: dict[str, Any]) -> UNet2DConditionModel:
    with sizes.building():
        return UNet2DConditionModel(**config)


def _load_unet(folder: Path, config: dict[str, Any]) -> UNet2DConditionModel:
    unet = load_component(UNet2DConditionModel, folder / "unet", dtype=torch.float32)
    for name, wanted in config.items():
        found = unet.config[name]
        if (list(found) if isinstance(found, tuple) else found) != wanted:
            raise TrainingError(
                f"The U-Net in {folder} has {name}={found!r}; VAE and CLIP ask for {wanted!r}. "
                "Name those that it was trained with."
            )
    return unet


@dataclass(frozen=True, kw_only=True)
class DecoderParts:
    """What surrounds the U-Net; named as the parts of a Stable Diffusion are."""

    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    scheduler: PNDMScheduler

    @classmethod
    def load(cls, clip: Path, vae: Path) -> "DecoderParts":
        """Take them from the results of ``train_clip`` and ``train_vae``.

        Raises:
            WeightsError: If one cannot be opened.
        """
        autoencoder = load_component(AutoencoderKL, vae / "vae", dtype=torch.float32)
        model: Any = load_component(CLIPModel, clip / "clip", dtype=torch.float32)
        encoder: Any = CLIPTextModel(model.config.text_config)
        encoder.load_state_dict(model.text_model.state_dict())
        return cls(
            vae=autoencoder,
            text_encoder=encoder,
            tokenizer=load_clip_tokenizer(clip / "clip_tokenizer"),
            scheduler=make_pndm(SD15_SCHEDULER),
        )

    def save(self, directory: Path) -> None:
        """Write each into a folder of its name."""
        for field in fields(self):
            getattr(self, field.name).save_pretrained(directory / field.name)

    def sizes_of_unet(self, encoded: dict[str, Tensor]) -> dict[str, int]:
        """Say what a U-Net for these latents and captions must have."""
        text: Any = self.text_encoder.config
        return {
            "in_channels": self.vae.config["latent_channels"],
            "out_channels": self.vae.config["latent_channels"],
            "sample_size": encoded["mean"].shape[-1],
            "cross_attention_dim": text.hidden_size,
        }

    def diffusion(self) -> Diffusion:
        """Make the noise that the U-Net is trained on."""
        return Diffusion(dict(self.scheduler.config), self.vae.config["scaling_factor"])


def _write_and_encode(
    parts: DecoderParts, source: Path, data: TrainingData, loop: LoopOptions
) -> dict[str, Tensor]:
    """Write what surrounds the U-Net, and encode the images."""
    state = find_processes()
    vae: Any = parts.vae
    with state.main_process_first():  # the others read what it has written
        if state.is_main_process:
            parts.save(source)
        return encode_images(
            data.shards(),
            vae.to(state.device),
            parts.tokenizer,
            loop.output / "latents.safetensors",
            limit=data.limit,
            min_side=data.min_side,
            bfloat16=loop.precision == "bf16",
        )


def train_probe(options: ProbeOptions) -> Path:
    """Train the probe on images that are made as it goes.

    Raises:
        DataError: If there is no such art.
    """
    art = open_art(options.art)
    world = World.open(art)

    def build() -> Stage:
        return ProbeStage(Probe(ProbeConfig(heads=make_heads(world))))

    def open_stream(rank: int, processes: int) -> Stream:
        return RenderingStream(world, options.loop.seed, rank, processes)

    return train(build, open_stream, options.loop, {"art": fingerprint(art)})
