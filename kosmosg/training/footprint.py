"""What a stage costs at a size: the networks without memory, and one pass through them.

A pass is put together from the networks' parts, in the order of the stage's own losses: what it
looks up by masks (where an image stands, which tokens count) cannot be run without values.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import CLIPTextConfig, CLIPTextModel

from kosmosg.checkpoints.loading import check_config
from kosmosg.checkpoints.stable_diffusion import SD15_UNET, SD15_VAE
from kosmosg.models.aligner import Reconstruction
from kosmosg.models.config import FULL_SIZE
from kosmosg.models.kosmosg import KosmosG, KosmosGConfig
from kosmosg.training.accelerator import enable_gradient_checkpointing
from kosmosg.training.losses import alignment_loss, diffusion_loss, token_loss
from kosmosg.training.meter import Cost, measure
from kosmosg.training.options import Precision, StageName
from kosmosg.training.stage import trainable
from kosmosg.training.stages.common import train_language_model
from kosmosg.training.starting_weights import StartingWeights

# CLIP ViT-L/14's text encoder, as far as it differs from the defaults of transformers' class.
CLIP_TEXT: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
}
FLOAT32 = 4  # bytes


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The sizes of all networks that take part in a stage, as configurations."""

    kosmosg: KosmosGConfig
    unet: dict[str, Any]
    vae: dict[str, Any]
    text_encoder: dict[str, Any]

    @classmethod
    def full(cls) -> "Sizes":
        """Take those of the released model."""
        config = KosmosGConfig.from_sizes(FULL_SIZE)
        return cls(kosmosg=config, unet=SD15_UNET, vae=SD15_VAE, text_encoder=CLIP_TEXT)

    @classmethod
    def of(cls, weights: Path) -> "Sizes":
        """Read those of a weights folder; none of its weights is opened.

        Raises:
            WeightsError: If it is incomplete or cannot be read.
        """
        kosmosg = StartingWeights(directory=weights).sizes()
        aligner = kosmosg.aligner_config
        file = weights / "text_encoder" / "config.json"
        teacher = check_config(file, "text_encoder") if file.exists() else CLIP_TEXT
        if not file.exists():  # it comes from elsewhere, and says what AlignerNet is to say
            teacher = teacher | {"hidden_size": aligner.dim, "num_attention_heads": aligner.heads}
        return cls(
            kosmosg=kosmosg,
            unet=check_config(weights / "unet" / "config.json", "unet"),
            vae=check_config(weights / "vae" / "config.json", "vae"),
            text_encoder=teacher,
        )

    def fitted(self, what: "Pass") -> "Pass":
        """Shorten samples to what these networks can take."""
        most, slots = self.kosmosg.max_tokens, self.kosmosg.image_slots
        tokens = min(what.tokens, most)
        images = min(what.images, (tokens - 1) // slots)
        return replace(what, tokens=tokens, images=images)


@dataclass(frozen=True, kw_only=True)
class Pass:
    """What goes through the networks of a stage at once.

    Attributes:
        stage: ``lm``, ``align`` or ``instruct``.
        tokens: Length of a sample, its images included.
        images: Images of a sample.
        precision: Mixed precision.
        gradient_checkpointing: Compute activations twice.
        aligner_only: Train AlignerNet alone (instruct).
    """

    stage: StageName
    tokens: int
    images: int = 0
    precision: Precision = "no"
    gradient_checkpointing: bool = False
    aligner_only: bool = False


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """What a stage costs, as a function of the samples in memory at once.

    Attributes:
        parameters: Of all networks, trained or not.
        trained: Parameters that are trained.
        one: Cost of a pass of one sample, gradients of all parameters included.
        two: Of two.
    """

    parameters: int
    trained: int
    one: Cost
    two: Cost

    def flops(self, samples: int) -> float:
        """Operations of a pass, forwards and backwards."""
        return self.one.flops + (samples - 1) * (self.two.flops - self.one.flops)

    def activations(self, samples: int) -> float:
        """Bytes that a pass needs at most besides weights and gradients."""
        peak = self.one.peak + (samples - 1) * (self.two.peak - self.one.peak)
        return max(0.0, peak - FLOAT32 * self.trained)


class Networks(nn.Module):
    """The networks of a stage; those that are trained require a gradient."""

    def __init__(self, sizes: Sizes, what: Pass):
        super().__init__()
        config: Any = KosmosGConfig.from_dict(sizes.kosmosg.to_dict())
        # A card's kernels drop attention out as they go; those of a CPU would keep all of it.
        config.kosmos2.text_config.attention_dropout = 0.0
        self.kosmosg = KosmosG(config)
        self.requires_grad_(False)
        if what.stage == "align":
            self.reconstruction = Reconstruction(config.aligner_config)
            self.text_encoder = CLIPTextModel(CLIPTextConfig(**sizes.text_encoder))
            self.text_encoder.requires_grad_(False)
        if what.stage == "instruct":
            unet: Any = UNet2DConditionModel.from_config(sizes.unet)
            vae: Any = AutoencoderKL.from_config(sizes.vae)
            self.unet, self.vae = unet.requires_grad_(False), vae.requires_grad_(False)
        if what.stage != "lm":
            self.kosmosg.aligner.requires_grad_(True)
        if what.stage == "lm" or (what.stage == "instruct" and not what.aligner_only):
            train_language_model(self.kosmosg)

    def read(self, samples: int, what: Pass) -> Tensor:
        """Compute features of prompts whose images stand before their text."""
        kosmos2, slots = self.kosmosg.kosmos2, self.kosmosg.image_slots
        ids = torch.zeros(samples, what.tokens - slots * what.images, dtype=torch.int64)
        inputs = kosmos2.text_model.model.embed_tokens(ids)
        if what.images:
            size = self.kosmosg.image_size
            pixels = torch.zeros(samples * what.images, 3, size, size)
            seen: Any = kosmos2.get_image_features(pixels)
            shown = seen.pooler_output.reshape(samples, -1, inputs.shape[-1])
            inputs = torch.cat([shown.to(inputs), inputs], dim=1)
        output = kosmos2.text_model(inputs_embeds=inputs, use_cache=False)
        return output.last_hidden_state

    def lm(self, samples: int, what: Pass) -> Tensor:
        """Stage 1's loss, with text in every place that has no image."""
        features = self.read(samples, what)[:, self.kosmosg.image_slots * what.images :]
        rows = features.flatten(0, 1)
        embedding = self.kosmosg.kosmos2.text_model.model.embed_tokens.weight
        return token_loss(rows, embedding, torch.zeros(len(rows), dtype=torch.int64))

    def align(self, samples: int, what: Pass) -> Tensor:
        """Stage 2's loss."""
        queries = self.kosmosg.config.aligner_config.queries
        with torch.no_grad():
            features = self.read(samples, what)
            captions = torch.zeros(samples, queries, dtype=torch.int64)
            target = self.text_encoder(captions).last_hidden_state
        condition = self._condition(features)
        reconstruction = self.reconstruction(condition, what.tokens, None)
        loss = alignment_loss(
            condition=condition, target=target, reconstruction=reconstruction, features=features
        )
        return loss.total

    def instruct(self, samples: int, what: Pass) -> Tensor:
        """Stage 3's loss."""
        side = self.unet.config["sample_size"]
        pixels = side * 2 ** (len(self.vae.config["block_out_channels"]) - 1)
        with torch.no_grad():
            encoded: Any = self.vae.encode(torch.zeros(samples, 3, pixels, pixels))
        noisy = encoded.latent_dist.mean
        condition = self._condition(self.read(samples, what))
        null = self.kosmosg.null_condition().to(condition)
        drawn = torch.zeros(samples, 1, 1, dtype=torch.bool)
        timesteps = torch.zeros(samples, dtype=torch.int64)
        predicted: Any = self.unet(noisy, timesteps, torch.where(drawn, null, condition))
        return diffusion_loss(predicted.sample, noisy)

    def _condition(self, features: Tensor) -> Tensor:
        return self.kosmosg.aligner(features, torch.zeros(features.shape[:2], dtype=torch.bool))


def find_footprint(sizes: Sizes, what: Pass) -> Footprint:
    """Find out what a stage costs, without memory for its weights and without their values."""
    with FakeTensorMode():
        networks = Networks(sizes, what)
        networks.train()
        for frozen in ("unet", "vae", "text_encoder"):
            if hasattr(networks, frozen):
                getattr(networks, frozen).eval()
        if what.gradient_checkpointing:
            enable_gradient_checkpointing(networks)
        one, two = (_run(networks, samples, what) for samples in (1, 2))
    trained = trainable(networks).values()
    return Footprint(
        parameters=sum(parameter.numel() for parameter in networks.parameters()),
        trained=sum(parameter.numel() for parameter in trained),
        one=one,
        two=two,
    )


def _run(networks: Networks, samples: int, what: Pass) -> Cost:
    """Measure a pass of an update's later micro-batches: gradients are there, and grow."""
    loss_of: Callable[[int, Pass], Tensor] = getattr(networks, what.stage)

    def compute() -> None:
        for parameter in trainable(networks).values():
            parameter.grad = torch.zeros_like(parameter)
        with _autocast(what.precision):
            loss = loss_of(samples, what)
        loss.backward()

    try:
        return measure(compute, [*networks.parameters(), *networks.buffers()])
    finally:
        networks.zero_grad()


@contextmanager
def _autocast(precision: Precision) -> Iterator[None]:
    """Compute in half precision; that of a CPU has one kind, and both kinds are two bytes."""
    with nullcontext() if precision == "no" else torch.autocast("cpu", torch.bfloat16):
        yield
