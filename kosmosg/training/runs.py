"""What each stage's command does: which networks, which data, one loop."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from kosmosg.config import FIRST_POSITION_ROW
from kosmosg.data.entities import EntityOptions
from kosmosg.data.prepare import CaptionLimits, DocumentPreparer, PromptPreparer
from kosmosg.errors import WeightsError
from kosmosg.models import KosmosG, Reconstruction
from kosmosg.models.loading import load_component, load_module
from kosmosg.stable_diffusion import StableDiffusionSource, load_scheduler
from kosmosg.tokenizer import KosmosGTokenizer
from kosmosg.training.data import DataOptions
from kosmosg.training.loop import train
from kosmosg.training.options import LoopOptions
from kosmosg.training.stage import Stage, Stream
from kosmosg.training.stages.align import AlignStage
from kosmosg.training.stages.examples import with_seed
from kosmosg.training.stages.instruct import InstructStage
from kosmosg.training.stages.lm import LanguageStage
from kosmosg.weights import check_layout

# The authors' limits of a caption in stage 2, in tokens of the language model (facts, section 12).
ALIGN_TOKENS = 85


@dataclass(frozen=True, kw_only=True)
class Start:
    """The weights directory that a stage of KOSMOS-G begins with.

    Raises:
        WeightsError: If it is incomplete, or tokenizer and model do not belong together.
    """

    directory: Path

    def __post_init__(self) -> None:
        check_layout(self.directory)

    def kosmosg(self) -> KosmosG:
        """Load KOSMOS-G, in the precision that training needs."""
        return load_component(KosmosG, self.directory / "kosmosg", dtype=torch.float32)

    def tokenizer(self) -> KosmosGTokenizer:
        """Load the tokenizer."""
        return KosmosGTokenizer.from_pretrained(self.directory / "tokenizer")

    def check_vocabulary(self, kosmosg: KosmosG) -> None:
        """Check that both belong together."""
        if len(self.tokenizer()) != kosmosg.vocabulary_size:
            raise WeightsError(
                f"{self.directory}: the tokenizer has {len(self.tokenizer())} entries, the "
                f"language model {kosmosg.vocabulary_size}. Start from weights whose parts belong "
                "together."
            )


def train_lm(
    start: Start, data: DataOptions, options: LoopOptions, *, tokens: int, lanes: int | None
) -> Path:
    """Run stage 1.

    Args:
        start: What to begin with.
        data: Texts, captions and documents, mixed by weight.
        options: How to train; the batch counts packed sequences.
        tokens: Length of a sequence.
        lanes: See ``DataOptions.packed``; by default the number of processes.
    """
    kosmosg, tokenizer = start.kosmosg(), start.tokenizer()
    start.check_vocabulary(kosmosg)
    prepare = DocumentPreparer(
        tokenizer=tokenizer, image_slots=kosmosg.image_slots, image_size=kosmosg.image_size
    )

    def open_stream(rank: int, processes: int) -> Stream:
        return data.packed(prepare, rank, processes, tokens=tokens, lanes=lanes or processes)

    def build() -> Stage:
        return LanguageStage(start.kosmosg(), tokenizer, start.directory)

    settings = {"tokens": tokens, "lanes": lanes}
    return train(build, open_stream, options, settings)


def train_align(
    start: Start,
    data: DataOptions,
    options: LoopOptions,
    *,
    stable_diffusion: str | None,
    count_padding: bool,
    frozen_dropout: bool,
) -> Path:
    """Run stage 2.

    Args:
        start: What to begin with, usually the result of stage 1.
        data: Captions; their pictures stay closed.
        options: How to train.
        stable_diffusion: Folder or Hub repository with CLIP's text encoder; by default what
            stands in the weights directory.
        count_padding: See ``AlignStage``.
        frozen_dropout: See ``AlignStage``.
    """
    kosmosg, tokenizer = start.kosmosg(), start.tokenizer()
    start.check_vocabulary(kosmosg)
    text_encoder, clip_tokenizer = load_text_encoder(start.directory, stable_diffusion)
    prepare = PromptPreparer(
        tokenizer=tokenizer,
        image_slots=kosmosg.image_slots,
        image_size=kosmosg.image_size,
        target_size=None,
        limits=CaptionLimits(
            tokens=min(ALIGN_TOKENS, kosmosg.aligner.max_tokens - 1),
            clip_tokens=clip_tokenizer.model_max_length - 2,
            count_clip_tokens=lambda text: len(clip_tokenizer(text).input_ids) - 2,
        ),
    )

    def build() -> Stage:
        kosmosg = start.kosmosg()
        reconstruction = Reconstruction(kosmosg.config.aligner_config)
        folder = start.directory / "reconstruction"
        if folder.is_dir():
            load_module(reconstruction, folder, dtype=torch.float32)
        return AlignStage(
            kosmosg,
            reconstruction,
            text_encoder,
            clip_tokenizer,
            start.directory,
            count_padding=count_padding,
            frozen_dropout=frozen_dropout,
        )

    def open_stream(rank: int, processes: int) -> Stream:
        return data.mixture(with_seed(prepare), rank, processes, text_only=True)

    settings = {"count_padding": count_padding, "frozen_dropout": frozen_dropout}
    return train(build, open_stream, options, settings)


def train_instruct(
    start: Start,
    data: DataOptions,
    options: LoopOptions,
    *,
    entities: EntityOptions,
    drop_caption: float,
    aligner_only: bool,
) -> Path:
    """Run stage 3.

    Args:
        start: What to begin with, usually the result of stage 2.
        data: Compositional samples, edits and captions.
        options: How to train.
        entities: How the entities of compositional samples vary.
        drop_caption: Probability that an edit's caption is left out.
        aligner_only: Train nothing but AlignerNet.
    """
    kosmosg, tokenizer = start.kosmosg(), start.tokenizer()
    start.check_vocabulary(kosmosg)
    scheduler = load_scheduler(start.directory / "scheduler")
    unet, vae = load_decoder(start.directory)
    prepare = PromptPreparer(
        tokenizer=tokenizer,
        image_slots=kosmosg.image_slots,
        image_size=kosmosg.image_size,
        target_size=vae.config["sample_size"],
        max_tokens=min(2048, kosmosg.config.aligner_config.position_rows - FIRST_POSITION_ROW),
        drop_caption=drop_caption,
        entities=entities,
    )

    def build() -> Stage:
        return InstructStage(
            start.kosmosg(),
            unet,
            vae,
            dict(scheduler.config),
            start.directory,
            aligner_only=aligner_only,
        )

    def open_stream(rank: int, processes: int) -> Stream:
        return data.mixture(with_seed(prepare), rank, processes)

    settings = {**asdict(entities), "drop_caption": drop_caption, "aligner_only": aligner_only}
    return train(build, open_stream, options, settings)


def load_decoder(directory: Path) -> tuple[UNet2DConditionModel, AutoencoderKL]:
    """Load U-Net and VAE of a weights directory."""
    return (
        load_component(UNet2DConditionModel, directory / "unet", dtype=torch.float32),
        load_component(AutoencoderKL, directory / "vae", dtype=torch.float32),
    )


def load_text_encoder(
    directory: Path, stable_diffusion: str | None
) -> tuple[CLIPTextModel, CLIPTokenizer]:
    """Load CLIP's text encoder and tokenizer from Stable Diffusion or a weights directory.

    Raises:
        WeightsError: If they are in neither.
    """
    if stable_diffusion:
        return StableDiffusionSource(location=stable_diffusion).text_encoder(torch.float32)
    if not (directory / "text_encoder").is_dir():
        raise WeightsError(
            f"{directory} has no CLIP text encoder, which stage 2 learns from. Name a Stable "
            "Diffusion v1.5 by --stable-diffusion."
        )
    encoder = load_component(CLIPTextModel, directory / "text_encoder", dtype=torch.float32)
    tokenizer: Any = CLIPTokenizer.from_pretrained(directory / "clip_tokenizer")
    return encoder, tokenizer
