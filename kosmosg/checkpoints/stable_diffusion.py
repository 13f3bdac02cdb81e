"""What comes from Stable Diffusion v1.5: U-Net, VAE, scheduler, safety checker.

The source is a folder in the diffusers layout or a Hub repository. Only safetensors are read.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    PNDMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
from jaxtyping import Int64
from torch import Tensor, nn
from transformers import CLIPImageProcessorPil, CLIPTextModel, CLIPTokenizer

from kosmosg.checkpoints.loading import REMEDY, check_config, find_variant
from kosmosg.errors import CheckpointError, WeightsError
from kosmosg.models.config import SD15_REPOSITORY
from kosmosg.utils.files import reason

# Stable Diffusion v1.5, as far as it differs from the defaults of diffusers' classes.
SD15_UNET: dict[str, Any] = {
    "sample_size": 64,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
    "block_out_channels": [320, 640, 1280, 1280],
}
SD15_VAE: dict[str, Any] = {
    "sample_size": 512,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}
SD15_SCHEDULER: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "clip_sample": False,  # unknown to PNDM, but DDIM is derived from these settings
}

SCHEDULER_FILE = "scheduler_config.json"
DECODER_CLASSES: dict[str, Any] = {"unet": UNet2DConditionModel, "vae": AutoencoderKL}
SD15_CONFIGS = {"unet": SD15_UNET, "vae": SD15_VAE}


@dataclass(frozen=True, kw_only=True)
class StableDiffusionSource:
    """A folder or Hub repository with Stable Diffusion v1.5 in the diffusers layout."""

    location: str = SD15_REPOSITORY

    @property
    def folder(self) -> Path | None:
        """The folder, or ``None`` for a Hub repository."""
        return Path(self.location) if Path(self.location).is_dir() else None

    def empty(self, part: str) -> nn.Module:
        """Build the U-Net or VAE without memory for its weights (on the meta device).

        Its sizes are the folder's, or else those of Stable Diffusion v1.5.

        Raises:
            WeightsError: If the folder's configuration is none.
        """
        kind = DECODER_CLASSES[part]
        with torch.device("meta"):
            return self._configure(kind, f"{part}/config.json", SD15_CONFIGS[part])

    def load(self, part: str, dtype: torch.dtype, width: int) -> nn.Module:
        """Load the U-Net or VAE.

        Args:
            part: "unet" or "vae".
            dtype: Precision to hold it in.
            width: Of the conditions that AlignerNet yields, for the U-Net.

        Raises:
            CheckpointError: If the source does not have it, or the U-Net takes other conditions.
        """
        module = self._from_pretrained(DECODER_CLASSES[part], part, dtype)
        if part == "unet" and module.config.cross_attention_dim != width:
            raise CheckpointError(
                f"AlignerNet yields conditions {width} wide, but the U-Net of {self.location} "
                f"takes {module.config.cross_attention_dim}. Give the U-Net of Stable Diffusion "
                "v1.5 by --stable-diffusion, or change aligner.dim of the sizes."
            )
        return module

    def text_encoder(self, dtype: torch.dtype) -> tuple[CLIPTextModel, CLIPTokenizer]:
        """Load CLIP's text encoder and its tokenizer, which stage 2 learns from.

        Raises:
            CheckpointError: If the source does not have them.
            WeightsError: If a folder lacks the tokenizer.
        """
        encoder = self._from_pretrained(CLIPTextModel, "text_encoder", dtype)
        return encoder.eval(), self.clip_tokenizer()

    def clip_tokenizer(self) -> CLIPTokenizer:
        """Load CLIP's tokenizer alone; see ``text_encoder``."""
        if self.folder:
            return load_clip_tokenizer(self.folder / "tokenizer")
        return self._from_pretrained(CLIPTokenizer, "tokenizer")

    def scheduler(self) -> PNDMScheduler:
        """Build Stable Diffusion's own scheduler; the others are derived from its settings.

        Raises:
            WeightsError: If the folder's settings are none.
        """
        return self._configure(PNDMScheduler, f"scheduler/{SCHEDULER_FILE}", SD15_SCHEDULER)

    def safety_checker(self, dtype: torch.dtype) -> dict[str, Any]:
        """Load the safety checker and its image processor; none if a folder has none.

        Raises:
            CheckpointError: If it cannot be read, or a Hub repository does not answer.
        """
        if self.folder and not (self.folder / "safety_checker").is_dir():
            return {}
        return {
            "safety_checker": self._from_pretrained(
                StableDiffusionSafetyChecker, "safety_checker", dtype
            ),
            "feature_extractor": self._from_pretrained(CLIPImageProcessorPil, "feature_extractor"),
        }

    def _from_pretrained(self, kind: Any, part: str, dtype: torch.dtype | None = None) -> Any:
        """Load what has weights in a precision, and all else without one."""
        options: dict[str, Any] = {}
        if dtype is not None:
            variant = find_variant(self.folder / part) if self.folder else None
            options = {"dtype": dtype, "use_safetensors": True, "variant": variant}
        try:
            return kind.from_pretrained(self.location, subfolder=part, **options)
        except Exception as error:
            # diffusers, transformers and the Hub client each have errors of their own.
            raise CheckpointError(
                f"'{part}' could not be taken from {self.location} ({reason(error)}). Give a "
                "folder or Hub repository with Stable Diffusion v1.5 by --stable-diffusion; "
                "`python -m kosmosg download stable-diffusion` makes such a folder."
            ) from error

    def _configure(self, kind: Any, name: str, known: dict[str, Any]) -> Any:
        """Build a component from the folder's settings, or else from those that are known."""
        if self.folder is None or not (self.folder / name).is_file():
            return kind.from_config(known)
        return configure(kind, self.folder / name)


def configure(kind: Any, file: Path) -> Any:
    """Build a component of diffusers without weights from a file with its settings.

    Raises:
        WeightsError: If the file is missing or damaged, or such a component cannot be built.
    """
    config = check_config(file, file.parent.name)
    try:
        return kind.from_config(config)
    except Exception as error:
        # Settings of nonsense fail anywhere in the constructors.
        raise WeightsError(
            f"{file.parent.name}: {file} does not describe a {kind.__name__} ({reason(error)}). "
            f"{REMEDY}"
        ) from error


def load_clip_tokenizer(directory: Path) -> CLIPTokenizer:
    """Open a folder with CLIP's tokenizer.

    Raises:
        WeightsError: If it is missing or cannot be read.
    """
    # Without files the library gives a tokenizer that knows nothing.
    if not any((directory / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        raise WeightsError(f"There is no CLIP tokenizer in {directory}.")
    try:
        return CLIPTokenizer.from_pretrained(directory, local_files_only=True)
    except Exception as error:
        # The tokenizers' loaders raise OSError, ValueError, TypeError and bare Exception.
        raise WeightsError(
            f"The CLIP tokenizer in {directory} cannot be read ({reason(error)})."
        ) from error


def encode_captions(
    tokenizer: CLIPTokenizer, captions: Sequence[str]
) -> tuple[Int64[Tensor, "batch length"], Int64[Tensor, "batch length"]]:
    """Pad or cut captions to CLIP's length, as Stable Diffusion does.

    Returns:
        Token ids, and 1 where a token stands.
    """
    encoded = tokenizer(
        list(captions),
        padding="max_length",
        truncation=True,
        max_length=tokenizer.model_max_length,
        return_tensors="pt",
    )
    return encoded.input_ids, encoded.attention_mask


def load_scheduler(directory: Path) -> PNDMScheduler:
    """Open the scheduler settings of a weights folder.

    Raises:
        WeightsError: If they are missing or none.
    """
    return configure(PNDMScheduler, directory / SCHEDULER_FILE)


def make_pndm(config: dict[str, Any]) -> PNDMScheduler:
    """Build Stable Diffusion's own scheduler from its settings."""
    scheduler: Any = PNDMScheduler.from_config(config)
    return scheduler


def make_decoder(unet: Any, vae: Any, scheduler: Any) -> StableDiffusionPipeline:
    """Put the decoder together: diffusers' pipeline without text encoder and safety checker."""
    parts: dict[str, Any] = dict.fromkeys(
        ("text_encoder", "tokenizer", "safety_checker", "feature_extractor", "image_encoder")
    )
    decoder = StableDiffusionPipeline(
        unet=unet, vae=vae, scheduler=scheduler, requires_safety_checker=False, **parts
    )
    decoder.set_progress_bar_config(disable=True)
    return decoder
