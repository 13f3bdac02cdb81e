"""What each stage's command does: which networks, which data, one loop."""

import logging
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPTextModel, CLIPTokenizer

from kosmosg.checkpoints.folder import fetch_weights, is_on_hub
from kosmosg.checkpoints.history import add_history
from kosmosg.checkpoints.loading import REMEDY, check_config, load_module
from kosmosg.checkpoints.stable_diffusion import StableDiffusionSource, load_scheduler
from kosmosg.data.options import EntityOptions
from kosmosg.data.preprocessing import CaptionLimits, DocumentPreparer, PromptPreparer
from kosmosg.data.revisions import fix_weights
from kosmosg.errors import TrainingError, WeightsError
from kosmosg.models.aligner import Reconstruction
from kosmosg.models.config import AlignerConfig
from kosmosg.training.checkpoints import last_loss
from kosmosg.training.data import TrainingData
from kosmosg.training.estimate import check_room, pass_of
from kosmosg.training.footprint import Sizes
from kosmosg.training.loop import train
from kosmosg.training.options import AlignOptions, InstructOptions, LmOptions, StageOptions
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
from kosmosg.utils.files import reason
from kosmosg.utils.fingerprint import fingerprint, fingerprint_of

logger = logging.getLogger(__name__)

# The longest caption of the authors' stage 2, in tokens of the language model.
ALIGN_TOKENS = 85
# The longest prompt of their stage 3.
INSTRUCT_TOKENS = 2048


def train_stage(options: StageOptions) -> Path:
    """Train a stage.

    Returns:
        The folder of the result.

    Raises:
        KosmosGError: If it cannot start, go on or be resumed.
    """
    start = StartingWeights(directory=_find_start(options))
    start.check_output(options.loop.output)
    data = TrainingData.of(options.data, options.loop)
    _check_room(start, options)
    trainers: dict[type, Any] = {
        LmOptions: _train_lm,
        AlignOptions: _train_align,
        InstructOptions: _train_instruct,
    }
    result = trainers[type(options)](start, data, options)
    if os.environ.get("RANK", "0") == "0":
        _note_history(result, start, data, options)
    return result


def _find_start(options: StageOptions) -> Path:
    """Find the weights that a stage begins with; of the Hub, the commit that the run began with."""
    if not is_on_hub(options.weights):
        return Path(options.weights)
    commit = fix_weights(str(options.weights), options.loop.output)
    return fetch_weights(options.weights, training=True, revision=commit)


def _note_history(
    result: Path, start: StartingWeights, data: TrainingData, options: StageOptions
) -> None:
    """Note in the result what it was trained on, for its model card."""
    loop = options.loop
    names = [each.public_name for each in data.data]
    loss = last_loss(loop.output)
    entry: dict[str, Any] = {
        "stage": options.stage,
        "data": names,
        "updates": loop.updates,
        "batch_size": loop.batch_size,
        "learning_rate": loop.learning_rate,
        "seed": loop.seed,
    }
    try:
        add_history(result, start.directory, entry | ({} if loss is None else {"loss": loss}))
    except OSError as error:
        raise TrainingError(
            f"{result} cannot be written ({reason(error)}). Make room and start the same command "
            "again: all updates are done."
        ) from error


def _check_room(start: StartingWeights, options: StageOptions) -> None:
    """Tell before anything is loaded that a card is too small; of shards nothing is known.

    Raises:
        TrainingError: With what would fit.
    """
    if not torch.cuda.is_available() or os.environ.get("ACCELERATE_USE_FSDP") == "true":
        return
    free, _ = torch.cuda.mem_get_info(int(os.environ.get("LOCAL_RANK", "0")))
    loop = options.loop
    samples = loop.micro_batch_size or loop.share(int(os.environ.get("WORLD_SIZE", "1")))
    sizes = Sizes.of(start.directory)
    kept = {"ema": loop.ema_decay is not None, "optimizer": loop.optimizer}
    if told := check_room(sizes, sizes.fitted(pass_of(options)), samples, free, **kept):
        logger.warning(told)


def _train_lm(start: StartingWeights, data: TrainingData, options: LmOptions) -> Path:
    """Run stage 1, on texts, captions and documents; its batch counts packed sequences."""
    prepare = _prepare_documents(start, options.tokens)

    def build() -> Stage:
        return LanguageStage(start.kosmosg(), start.tokenizer(), start.directory)

    def open_stream(rank: int, processes: int) -> Stream:
        streams = processes if options.packing_streams is None else options.packing_streams
        return data.packed(prepare, rank, processes, tokens=options.tokens, streams=streams)

    settings = {
        "tokens": options.tokens,
        "packing_streams": options.packing_streams,
        **start.identity(),
        **data.identity(),
    }
    return train(build, open_stream, options.loop, settings)


def _train_align(start: StartingWeights, data: TrainingData, options: AlignOptions) -> Path:
    """Run stage 2, on captions whose images stay closed."""
    prepare = _prepare_captions(start, options.stable_diffusion)

    def build() -> Stage:
        kosmosg = start.kosmosg()
        reconstruction = _begin_reconstruction(start, kosmosg.config.aligner_config)
        teacher = load_text_encoder(start.directory, options.stable_diffusion)
        _check_teacher(*teacher, kosmosg.config.aligner_config)
        return AlignStage(
            kosmosg,
            reconstruction,
            *teacher,
            start.directory,
            count_padding=not options.skip_padding,
            frozen_dropout=not options.no_frozen_dropout,
        )

    def open_stream(rank: int, processes: int) -> Stream:
        return data.mixture(with_seed(prepare), rank, processes, text_only=True)

    settings = {
        "count_padding": not options.skip_padding,
        "frozen_dropout": not options.no_frozen_dropout,
        "stable_diffusion": _name_source(options.stable_diffusion),
        **start.identity(),
        **data.identity(),
    }
    return train(build, open_stream, options.loop, settings)


def _train_instruct(start: StartingWeights, data: TrainingData, options: InstructOptions) -> Path:
    """Run stage 3, on compositional samples, edits and captions."""
    prepare = _prepare_prompts(start, options.entity, options.drop_caption)

    def build() -> Stage:
        return InstructStage(
            start.kosmosg(),
            *load_decoder(start.directory),
            dict(load_scheduler(start.directory / "scheduler").config),
            start.directory,
            aligner_only=options.aligner_only,
        )

    def open_stream(rank: int, processes: int) -> Stream:
        return data.mixture(with_seed(prepare), rank, processes)

    settings = {
        **asdict(options.entity),
        "drop_caption": options.drop_caption,
        "aligner_only": options.aligner_only,
        **start.identity(),
        **data.identity(),
    }
    return train(build, open_stream, options.loop, settings)


def _begin_reconstruction(start: StartingWeights, sizes: AlignerConfig) -> Reconstruction:
    """Take the half N from an earlier stage 2, or begin at random."""
    reconstruction = Reconstruction(sizes)
    folder = start.directory / "reconstruction"
    if folder.is_dir():
        load_module(reconstruction, folder, dtype=torch.float32)
    return reconstruction


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
