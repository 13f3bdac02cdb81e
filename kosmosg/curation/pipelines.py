"""The three data sets that stage 3 is trained on, each as a source and the stages after it."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from kosmosg.curation.captioning import Blip2Captioner, Caption, Captioner
from kosmosg.curation.entity_crops import CutOut
from kosmosg.curation.entity_extraction import PROMPT, FindEntities, Finder, LanguageModel
from kosmosg.curation.images import ReadPictures
from kosmosg.curation.img2dataset import ReadDownloads, open_downloads
from kosmosg.curation.instructpix2pix import ReadEdits, open_edits
from kosmosg.curation.models import find_model
from kosmosg.curation.options import (
    PER_SHARD,
    CaptionOptions,
    Compositional,
    EditOptions,
    ModelBatches,
)
from kosmosg.curation.records import Source
from kosmosg.curation.segmentation import ClipSegSegmenter, FindMasks, Segmenter
from kosmosg.curation.sources import open_images
from kosmosg.curation.steps import Stage
from kosmosg.data.preprocessing import CaptionLimits
from kosmosg.data.schema import CaptionRules
from kosmosg.prompts.tokenizer import KosmosGTokenizer
from kosmosg.utils.fingerprint import fingerprint, fingerprint_of


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How one data set is made.

    Attributes:
        source: What of.
        stages: In their order.
        settings: All that decides the samples; a run goes on only with the same.
    """

    source: Source
    stages: tuple[Stage, ...]
    settings: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Models:
    """The three models of compositional samples, each opened where it is to work."""

    captioner: Callable[[], Captioner]
    finder: Callable[[], Finder]
    segmenter: Callable[[], Segmenter]

    @classmethod
    def named(cls, options: Compositional) -> "Models":
        """Take the pretrained ones that the options name.

        Raises:
            WeightsError: If one cannot be had.
        """
        for name in (options.captioner, options.language_model, options.segmenter):
            find_model(name)  # now, rather than in every worker
        return cls(
            captioner=partial(Blip2Captioner.load, options.captioner, options.caption_tokens),
            finder=partial(LanguageModel.load, options.language_model, options.entity_tokens),
            segmenter=partial(ClipSegSegmenter.load, options.segmenter),
        )


def make_openimages(
    path: Path,
    options: Compositional,
    *,
    per_shard: int = PER_SHARD,
    batches: ModelBatches | None = None,
    models: Models | None = None,
) -> Recipe:
    """Make compositional samples of pictures (paper, section 3.1).

    Args:
        path: What ``open_pictures`` takes.
        options: What decides the samples.
        per_shard: Pictures for each shard.
        batches: How many samples the models take at once.
        models: Others than those that the options name.
    """
    source = open_images(path.absolute(), per_shard)
    batches, models = batches or ModelBatches(), models or Models.named(options)
    read = partial(ReadPictures, min_side=options.min_side, max_side=options.max_side)
    cut = partial(
        CutOut,
        threshold=options.threshold,
        side=options.side,
        image_format=options.image_format,
    )
    stages = (
        Stage(name="read", make=read),
        Stage(name="caption", make=partial(_caption, models, batches.caption_batch), model=True),
        Stage(name="entities", make=partial(_entities, models, batches.entities_batch), model=True),
        Stage(name="masks", make=partial(_masks, models, batches.masks_batch), model=True),
        Stage(name="cut", make=cut),
    )
    chosen = asdict(options)
    for name in ("captioner", "language_model", "segmenter"):
        if (folder := Path(chosen[name])).is_dir():
            chosen[name] = fingerprint(folder)
    return _recipe("openimages", source, stages, per_shard, prompt=fingerprint_of(PROMPT), **chosen)


def make_instructpix2pix(path: Path, options: EditOptions, *, per_shard: int = PER_SHARD) -> Recipe:
    """Make samples of edits of the CLIP-filtered set of InstructPix2Pix.

    Args:
        path: Its folder.
        options: What decides the samples.
        per_shard: Pairs of images for each shard.
    """
    chosen = asdict(options)
    stages = (Stage(name="read", make=partial(ReadEdits, **chosen)),)
    source = open_edits(path.resolve(), per_shard)
    return _recipe("instructpix2pix", source, stages, per_shard, **chosen)


def make_captions(path: Path, options: CaptionOptions, *, per_shard: int = PER_SHARD) -> Recipe:
    """Make samples of captions of what img2dataset has written.

    Args:
        path: Its folder.
        options: What decides the samples.
        per_shard: Images for each shard.
    """
    KosmosGTokenizer.from_pretrained(options.tokenizer)  # now, rather than in every worker
    stages = (Stage(name="read", make=partial(_read_downloads, options)),)
    chosen = asdict(options) | {"tokenizer": fingerprint(options.tokenizer)}
    source = open_downloads(path.resolve(), per_shard)
    return _recipe("captions", source, stages, per_shard, **chosen)


def _recipe(
    name: str, source: Source, stages: tuple[Stage, ...], per_shard: int, **options: Any
) -> Recipe:
    settings = {"set": name, "source": source.identity, "per_shard": per_shard, **options}
    return Recipe(source=source, stages=stages, settings=settings)


def _caption(models: Models, batch: int) -> Caption:
    return Caption(models.captioner(), batch)


def _entities(models: Models, batch: int) -> FindEntities:
    return FindEntities(models.finder(), batch)


def _masks(models: Models, batch: int) -> FindMasks:
    return FindMasks(models.segmenter(), batch)


def _read_downloads(options: CaptionOptions) -> ReadDownloads:
    return ReadDownloads(
        tokenizer=KosmosGTokenizer.from_pretrained(options.tokenizer),
        rules=CaptionRules(min_side=options.min_side),
        limits=CaptionLimits(tokens=options.max_tokens),
    )
