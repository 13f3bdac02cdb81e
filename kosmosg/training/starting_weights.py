"""What a stage of KOSMOS-G begins with: the weights folder of the one before it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from kosmosg.checkpoints.folder import check_layout
from kosmosg.checkpoints.loading import REMEDY, check_config, load_component, load_model
from kosmosg.checkpoints.stable_diffusion import StableDiffusionSource, load_clip_tokenizer
from kosmosg.errors import TrainingError, WeightsError
from kosmosg.models.kosmosg import KosmosG, KosmosGConfig
from kosmosg.prompts.tokenizer import KosmosGTokenizer
from kosmosg.utils.fingerprint import fingerprint


@dataclass(frozen=True, kw_only=True)
class StartingWeights:
    """The weights folder that a stage of KOSMOS-G begins with.

    Raises:
        WeightsError: If it is incomplete.
    """

    directory: Path

    def __post_init__(self) -> None:
        check_layout(self.directory)

    def identity(self) -> dict[str, Any]:
        """Return what a resumed run must have in common with the one it goes on with."""
        return {"weights": fingerprint(self.directory)}

    def kosmosg(self) -> KosmosG:
        """Load KOSMOS-G, in the precision that training needs."""
        return load_model(KosmosG, self.directory / "kosmosg", dtype=torch.float32)

    def sizes(self) -> KosmosGConfig:
        """Read KOSMOS-G's sizes alone, and check that the tokenizer belongs to them.

        Raises:
            WeightsError: If it does not, with both sizes, or they cannot be read.
        """
        folder = self.directory / "kosmosg"
        check_config(folder / "config.json", "kosmosg")
        try:
            sizes = KosmosGConfig.from_pretrained(folder, local_files_only=True)
            wanted = sizes.vocabulary_size
        except Exception as error:
            # Sizes of the wrong kind end in errors of every kind.
            raise WeightsError(f"kosmosg: {folder} cannot be read ({error!r}). {REMEDY}") from error
        if (found := len(self.tokenizer())) != wanted:
            raise WeightsError(
                f"{self.directory}: the tokenizer has {found} entries, the language model "
                f"{wanted}. Start from weights whose parts belong together."
            )
        return sizes

    def tokenizer(self) -> KosmosGTokenizer:
        """Load the tokenizer."""
        return KosmosGTokenizer.from_pretrained(self.directory / "tokenizer")

    def check_output(self, output: Path) -> None:
        """Check that a run does not write into the weights that it begins with.

        Raises:
            TrainingError: With both folders.
        """
        if output.resolve().is_relative_to(self.directory.resolve()):
            raise TrainingError(
                f"The run {output} would lie in the weights {self.directory}, which are copied "
                "into its result. Name another output folder."
            )


def load_decoder(directory: Path) -> tuple[UNet2DConditionModel, AutoencoderKL]:
    """Load U-Net and VAE of a weights folder."""
    return (
        load_component(UNet2DConditionModel, directory / "unet", dtype=torch.float32),
        load_component(AutoencoderKL, directory / "vae", dtype=torch.float32),
    )


def load_text_encoder(
    directory: Path, stable_diffusion: str | None
) -> tuple[CLIPTextModel, CLIPTokenizer]:
    """Load CLIP's text encoder and tokenizer from Stable Diffusion or a weights folder.

    Raises:
        WeightsError: If they are in neither.
    """
    if stable_diffusion:
        return StableDiffusionSource(location=stable_diffusion).text_encoder(torch.float32)
    tokenizer = load_teacher_tokenizer(directory, None)
    encoder = load_component(CLIPTextModel, directory / "text_encoder", dtype=torch.float32)
    return encoder, tokenizer


def load_teacher_tokenizer(directory: Path, stable_diffusion: str | None) -> CLIPTokenizer:
    """Load the tokenizer of ``load_text_encoder`` alone.

    Raises:
        WeightsError: If there is no text encoder, or no tokenizer for it.
    """
    if stable_diffusion:
        return StableDiffusionSource(location=stable_diffusion).clip_tokenizer()
    if not (directory / "text_encoder").is_dir():
        raise WeightsError(
            f"{directory} has no CLIP text encoder, which stage 2 learns from. Name a Stable "
            "Diffusion v1.5 by --stable-diffusion."
        )
    return load_clip_tokenizer(directory / "clip_tokenizer")
