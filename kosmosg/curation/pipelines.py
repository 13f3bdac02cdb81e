"""The three data sets of stage 3, each as a source and the steps after it."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from kosmosg.curation.captioning import Blip2Captioner, Captioner, CaptionImages
from kosmosg.curation.entity_crops import CutEntities
from kosmosg.curation.entity_extraction import PROMPT, FindEntities, Finder, LanguageModel
from kosmosg.curation.images import ReadImages
from kosmosg.curation.img2dataset import ReadCaptioned
from kosmosg.curation.instructpix2pix import ReadEdits, open_edits
from kosmosg.curation.models import find_model
from kosmosg.curation.options import (
    PER_SHARD,
    CaptionOptions,
    CompositionalOptions,
    EditOptions,
    ModelBatches,
)
from kosmosg.curation.records import RecordSource
from kosmosg.curation.segmentation import ClipSegSegmenter, FindMasks, Segmenter
from kosmosg.curation.sources import open_images
from kosmosg.curation.steps import PipelineStep
from kosmosg.data.preprocessing import CaptionLimits
from kosmosg.data.schema import CaptionRules
from kosmosg.prompts.tokenizer import KosmosGTokenizer
from kosmosg.utils.fingerprint import fingerprint, fingerprint_of


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """How one data set is made.

    Attributes:
        source: What of.
        steps: In their order.
        settings: All that decides the samples; a run goes on only with the same.
    """

    source: RecordSource
    steps: tuple[PipelineStep, ...]
    settings: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Models:
    """The three models of compositional samples, each opened where it is to work."""

    captioner: Callable[[], Captioner]
    finder: Callable[[], Finder]
    segmenter: Callable[[], Segmenter]

    @classmethod
    def named(cls, options: CompositionalOptions) -> "Models":
        """Take the pretrained ones that the options name.

        Raises:
            WeightsError: If one cannot be had.
        """
        captioner, language_model, segmenter = map(
            _settle, (options.captioner, options.language_model, options.segmenter)
        )
        return cls(
            captioner=partial(Blip2Captioner.load, captioner, options.caption_tokens),
            finder=partial(LanguageModel.load, language_model, options.entity_tokens),
            segmenter=partial(ClipSegSegmenter.load, segmenter),
        )


def make_openimages(
    path: Path,
    options: CompositionalOptions,
    *,
    per_shard: int = PER_SHARD,
    batches: ModelBatches | None = None,
    models: Models | None = None,
) -> Pipeline:
    """Make compositional samples of images (paper, section 3.1).

    Args:
        path: Folder of images, or of shards of them.
        options: What decides the samples.
        per_shard: Images for each shard.
        batches: How many samples the models take at once.
        models: Others than those that the options name.
    """
    source = open_images(path.absolute(), per_shard)
    batches, models = batches or ModelBatches(), models or Models.named(options)
    read = partial(ReadImages, min_side=options.min_side, max_side=options.max_side)
    cut = partial(
        CutEntities,
        threshold=options.threshold,
        side=options.side,
        image_format=options.image_format,
    )
    steps = (
        PipelineStep(name="read", make=read),
        PipelineStep(
            name="caption", make=partial(_caption, models, batches.caption_batch), model=True
        ),
        PipelineStep(
            name="entities", make=partial(_entities, models, batches.entities_batch), model=True
        ),
        PipelineStep(name="masks", make=partial(_masks, models, batches.masks_batch), model=True),
        PipelineStep(name="cut", make=cut),
    )
    chosen = asdict(options)
    for name in ("captioner", "language_model", "segmenter"):
        if (folder := Path(chosen[name])).is_dir():
            chosen[name] = fingerprint(folder)
    return _make_pipeline(
        "openimages", source, steps, per_shard, prompt=fingerprint_of(PROMPT), **chosen
    )


def make_instructpix2pix(
    path: Path, options: EditOptions, *, per_shard: int = PER_SHARD
) -> Pipeline:
    """Make samples of edits of the CLIP-filtered set of InstructPix2Pix.

    Args:
        path: Its folder.
        options: What decides the samples.
        per_shard: Pairs of images for each shard.
    """
    chosen = asdict(options)
    steps = (PipelineStep(name="read", make=partial(ReadEdits, **chosen)),)
    source = open_edits(path.resolve(), per_shard)
    return _make_pipeline("instructpix2pix", source, steps, per_shard, **chosen)


def make_captions(path: Path, options: CaptionOptions, *, per_shard: int = PER_SHARD) -> Pipeline:
    """Make samples of captions of what img2dataset has written.

    Args:
        path: Its folder.
        options: What decides the samples.
        per_shard: Images for each shard.
    """
    KosmosGTokenizer.from_pretrained(options.tokenizer)  # now, rather than in every worker
    options = replace(options, tokenizer=options.tokenizer.resolve())  # for workers elsewhere
    steps = (PipelineStep(name="read", make=partial(_read_captioned, options)),)
    chosen = asdict(options) | {"tokenizer": fingerprint(options.tokenizer)}
    source = open_images(path.resolve(), per_shard, one_per_name=True)
    return _make_pipeline("captions", source, steps, per_shard, **chosen)


def _make_pipeline(
    name: str, source: RecordSource, steps: tuple[PipelineStep, ...], per_shard: int, **options: Any
) -> Pipeline:
    settings = {"set": name, "source": source.identity, "per_shard": per_shard, **options}
    return Pipeline(source=source, steps=steps, settings=settings)


def _settle(name: str) -> str:
    """Find a model now, rather than in every worker, and name it as all of them can find it."""
    find_model(name)
    return str(Path(name).resolve()) if Path(name).is_dir() else name


def _caption(models: Models, batch: int) -> CaptionImages:
    return CaptionImages(models.captioner(), batch)


def _entities(models: Models, batch: int) -> FindEntities:
    return FindEntities(models.finder(), batch)


def _masks(models: Models, batch: int) -> FindMasks:
    return FindMasks(models.segmenter(), batch)


def _read_captioned(options: CaptionOptions) -> ReadCaptioned:
    return ReadCaptioned(
        tokenizer=KosmosGTokenizer.from_pretrained(options.tokenizer),
        rules=CaptionRules(min_side=options.min_side),
        limits=CaptionLimits(tokens=options.max_tokens),
    )
