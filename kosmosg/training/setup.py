"""What each stage's command does: which networks, which data, one loop."""

from dataclasses import asdict
from pathlib import Path

import torch
from transformers import CLIPTextModel, CLIPTokenizer

from kosmosg.checkpoints.loading import REMEDY, check_config, load_module
from kosmosg.checkpoints.stable_diffusion import StableDiffusionSource, load_scheduler
from kosmosg.data.options import EntityOptions
from kosmosg.data.preprocessing import CaptionLimits, DocumentPreparer, PromptPreparer
from kosmosg.errors import TrainingError, WeightsError
from kosmosg.models.aligner import Reconstruction
from kosmosg.models.config import AlignerConfig
from kosmosg.training.data import TrainingData
from kosmosg.training.loop import train
from kosmosg.training.options import LoopOptions
from kosmosg.training.stage import Stage, Stream
from kosmosg.training.stages.align import AlignStage
from kosmosg.training.stages.common import with_seed
from kosmosg.training.stages.instruct import InstructStage
from kosmosg.training.stages.lm import LanguageStage
from kosmosg.training.starting_weights import (
    StartingWeights,
    load_decoder,
    load_teacher_tokenizer,
    load_text_encoder,
)
from kosmosg.utils.fingerprint import fingerprint, fingerprint_of

# The longest caption of the authors' stage 2, in tokens of the language model.
ALIGN_TOKENS = 85
# The longest prompt of their stage 3.
INSTRUCT_TOKENS = 2048


def train_lm(
    start: StartingWeights,
    data: TrainingData,
    options: LoopOptions,
    *,
    tokens: int,
    packing_streams: int | None,
) -> Path:
    """Run stage 1.

    Args:
        start: What to begin with.
        data: Texts, captions and documents, mixed by weight.
        options: How to train; the batch counts packed sequences.
        tokens: Length of a sequence.
        packing_streams: See ``TrainingData.packed``; by default the number of processes.
    """
    start.check_output(options.output)
    prepare = _prepare_documents(start, tokens)

    def build() -> Stage:
        return LanguageStage(start.kosmosg(), start.tokenizer(), start.directory)

    def open_stream(rank: int, processes: int) -> Stream:
        streams = processes if packing_streams is None else packing_streams
        return data.packed(prepare, rank, processes, tokens=tokens, streams=streams)

    settings = {
        "tokens": tokens,
        "packing_streams": packing_streams,
        **start.identity(),
        **data.identity(),
    }
    return train(build, open_stream, options, settings)


def train_align(
    start: StartingWeights,
    data: TrainingData,
    options: LoopOptions,
    *,
    stable_diffusion: str | None,
    count_padding: bool,
    frozen_dropout: bool,
) -> Path:
    """Run stage 2.

    Args:
        start: What to begin with, usually the result of stage 1.
        data: Captions; their images stay closed.
        options: How to train.
        stable_diffusion: Folder or Hub repository with CLIP's text encoder; by default what
            stands in the weights folder.
        count_padding: See ``AlignStage``.
        frozen_dropout: See ``AlignStage``.
    """
    start.check_output(options.output)
    prepare = _prepare_captions(start, stable_diffusion)

    def build() -> Stage:
        kosmosg = start.kosmosg()
        reconstruction = _begin_reconstruction(start, kosmosg.config.aligner_config)
        teacher = load_text_encoder(start.directory, stable_diffusion)
        _check_teacher(*teacher, kosmosg.config.aligner_config)
        return AlignStage(
            kosmosg,
            reconstruction,
            *teacher,
            start.directory,
            count_padding=count_padding,
            frozen_dropout=frozen_dropout,
        )

    def open_stream(rank: int, processes: int) -> Stream:
        return data.mixture(with_seed(prepare), rank, processes, text_only=True)

    settings = {
        "count_padding": count_padding,
        "frozen_dropout": frozen_dropout,
        "stable_diffusion": _name_source(stable_diffusion),
        **start.identity(),
        **data.identity(),
    }
    return train(build, open_stream, options, settings)


def _begin_reconstruction(start: StartingWeights, sizes: AlignerConfig) -> Reconstruction:
    """Take the half N from an earlier stage 2, or begin at random."""
    reconstruction = Reconstruction(sizes)
    folder = start.directory / "reconstruction"
    if folder.is_dir():
        load_module(reconstruction, folder, dtype=torch.float32)
    return reconstruction


def train_instruct(
    start: StartingWeights,
    data: TrainingData,
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
    start.check_output(options.output)
    prepare = _prepare_prompts(start, entities, drop_caption)

    def build() -> Stage:
        return InstructStage(
            start.kosmosg(),
            *load_decoder(start.directory),
            dict(load_scheduler(start.directory / "scheduler").config),
            start.directory,
            aligner_only=aligner_only,
        )

    def open_stream(rank: int, processes: int) -> Stream:
        return data.mixture(with_seed(prepare), rank, processes)

    settings = {
        **asdict(entities),
        "drop_caption": drop_caption,
        "aligner_only": aligner_only,
        **start.identity(),
        **data.identity(),
    }
    return train(build, open_stream, options, settings)


def _name_source(stable_diffusion: str | None) -> str | None:
    """Name CLIP's text encoder: a folder by what is in it, a Hub repository by its name."""
    if stable_diffusion is None:
        return None
    folder = StableDiffusionSource(location=stable_diffusion).folder
    if folder is None:
        return stable_diffusion
    return fingerprint_of([fingerprint(folder / part) for part in ("text_encoder", "tokenizer")])


def _prepare_documents(start: StartingWeights, tokens: int) -> DocumentPreparer:
    sizes = start.sizes()
    if not 2 <= tokens <= sizes.max_tokens:
        raise TrainingError(
            f"Sequences of {tokens} tokens cannot be trained on: this model takes 2 to "
            f"{sizes.max_tokens}. Change --tokens."
        )
    return DocumentPreparer(
        tokenizer=start.tokenizer(), image_slots=sizes.image_slots, image_size=sizes.image_size
    )


def _prepare_captions(start: StartingWeights, stable_diffusion: str | None) -> PromptPreparer:
    sizes = start.sizes()
    # Not the stage's own tokenizer: a setting of padding is one for all threads that use it.
    clip_tokenizer = load_teacher_tokenizer(start.directory, stable_diffusion)
    return PromptPreparer(
        tokenizer=start.tokenizer(),
        image_slots=sizes.image_slots,
        image_size=sizes.image_size,
        target_size=None,
        captions_only=True,
        limits=CaptionLimits(
            tokens=min(ALIGN_TOKENS, sizes.max_tokens - 1),
            clip_tokens=clip_tokenizer.model_max_length - 2,
            count_clip_tokens=lambda text: len(clip_tokenizer(text).input_ids) - 2,
        ),
    )


def _prepare_prompts(
    start: StartingWeights, entities: EntityOptions, drop_caption: float
) -> PromptPreparer:
    sizes = start.sizes()
    unet, vae = (
        check_config(start.directory / part / "config.json", part) for part in ("unet", "vae")
    )
    try:
        taken = unet["cross_attention_dim"]
        # What the U-Net draws; a VAE's own entry says what that was trained on.
        side = unet["sample_size"] * 2 ** (len(vae["block_out_channels"]) - 1)
    except (KeyError, TypeError) as error:
        raise WeightsError(
            f"{start.directory}: unet and vae do not say their sizes ({error!r}). {REMEDY}"
        ) from error
    if (dim := sizes.aligner_config.dim) != taken:
        raise WeightsError(
            f"AlignerNet yields conditions {dim} wide, but the U-Net takes {taken}. They do not "
            "belong together."
        )
    return PromptPreparer(
        tokenizer=start.tokenizer(),
        image_slots=sizes.image_slots,
        image_size=sizes.image_size,
        target_size=side,
        max_tokens=min(INSTRUCT_TOKENS, sizes.max_tokens),
        drop_caption=drop_caption,
        entities=entities,
    )


def _check_teacher(encoder: CLIPTextModel, tokenizer: CLIPTokenizer, sizes: AlignerConfig) -> None:
    """Check that what CLIP's text encoder says can be what AlignerNet learns to say.

    Raises:
        WeightsError: With both shapes.
    """
    found = (tokenizer.model_max_length, encoder.config.hidden_size)
    if found != (sizes.queries, sizes.dim):
        raise WeightsError(
            f"CLIP's text encoder gives {found[0]} vectors of {found[1]}, AlignerNet "
            f"{sizes.queries} of {sizes.dim}. They do not belong together."
        )
