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
from kosmosg.curation.records import Source
from kosmosg.curation.segmentation import ClipSegSegmenter, FindMasks, Segmenter
from kosmosg.curation.sources import open_images
from kosmosg.curation.steps import Stage
from kosmosg.data.preprocessing import CaptionLimits
from kosmosg.data.schema import CaptionRules
from kosmosg.data.shard_writer import ImageFormat
from kosmosg.prompts.tokenizer import KosmosGTokenizer
from kosmosg.utils.checks import check_integer, check_number
from kosmosg.utils.fingerprint import fingerprint, fingerprint_of

CAPTIONER = "Salesforce/blip2-opt-6.7b"
# The paper's MPT-7B-Instruct is no longer published; this one has its size, comes as safetensors,
# needs no code of its own, and may be used for anything (Apache 2.0).
LANGUAGE_MODEL = "Qwen/Qwen2.5-7B-Instruct"
SEGMENTER = "CIDAS/clipseg-rd64-refined"
PER_SHARD = 256


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
class Batches:
    """How many samples each model takes at once; of no consequence but for rounding."""

    caption: int = 32
    entities: int = 32
    masks: int = 16

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            check_integer(f"--{name}-batch", value, 1, 4096)


@dataclass(frozen=True, kw_only=True)
class Compositional:
    """What decides compositional samples; the published values, unless said otherwise.

    Attributes:
        captioner: BLIP-2, by folder or Hub id.
        language_model: Any that follows instructions.
        segmenter: CLIPSeg.
        caption_tokens: Longest caption.
        entity_tokens: Longest list of entities; the authors' 10 cuts lists off.
        min_side: Smallest square in pixels.
        max_side: Larger squares are scaled down to it.
        side: Of the pictures that are written.
        threshold: Probability above which a place belongs to an entity.
        image_format: Of the files.
    """

    captioner: str = CAPTIONER
    language_model: str = LANGUAGE_MODEL
    segmenter: str = SEGMENTER
    caption_tokens: int = 20
    entity_tokens: int = 32
    min_side: int = 100
    max_side: int = 1024
    side: int = 512
    threshold: float = 0.3
    image_format: ImageFormat = "PNG"

    def __post_init__(self) -> None:
        check_integer("--caption-tokens", self.caption_tokens, 1, 1000)
        check_integer("--entity-tokens", self.entity_tokens, 1, 1000)
        check_integer("--min-side", self.min_side, 1, 10_000)
        check_integer("--max-side", self.max_side, self.min_side, 10_000)
        check_integer("--side", self.side, 8, 4096)
        check_number("--threshold", self.threshold, 0.001, 0.999)


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
    batches: Batches | None = None,
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
    batches, models = batches or Batches(), models or Models.named(options)
    read = partial(ReadPictures, min_side=options.min_side, max_side=options.max_side)
    cut = partial(
        CutOut,
        threshold=options.threshold,
        side=options.side,
        image_format=options.image_format,
    )
    stages = (
        Stage(name="read", make=read),
        Stage(name="caption", make=partial(_caption, models, batches.caption), model=True),
        Stage(name="entities", make=partial(_entities, models, batches.entities), model=True),
        Stage(name="masks", make=partial(_masks, models, batches.masks), model=True),
        Stage(name="cut", make=cut),
    )
    chosen = asdict(options)
    for name in ("captioner", "language_model", "segmenter"):
        if (folder := Path(chosen[name])).is_dir():
            chosen[name] = fingerprint(folder)
    return _recipe("openimages", source, stages, per_shard, prompt=fingerprint_of(PROMPT), **chosen)


def make_instructpix2pix(
    path: Path,
    *,
    per_shard: int = PER_SHARD,
    side: int = 512,
    image_format: ImageFormat = "PNG",
) -> Recipe:
    """Make samples of edits of the CLIP-filtered set of InstructPix2Pix.

    Args:
        path: Its folder.
        per_shard: Pairs of pictures for each shard.
        side: What the shorter side of the pictures is scaled to.
        image_format: Of the files.
    """
    check_integer("--side", side, 8, 4096)
    read = partial(ReadEdits, side=side, image_format=image_format)
    stages = (Stage(name="read", make=read),)
    source = open_edits(path.resolve(), per_shard)
    return _recipe(
        "instructpix2pix", source, stages, per_shard, side=side, image_format=image_format
    )


def make_captions(
    path: Path,
    tokenizer: Path,
    *,
    per_shard: int = PER_SHARD,
    min_side: int = 384,
    max_tokens: int = 128,
) -> Recipe:
    """Make samples of captions of what img2dataset has written.

    Args:
        path: Its folder.
        tokenizer: Folder of the model's tokenizer, which says how long captions are.
        per_shard: Pictures for each shard.
        min_side: Shortest side of a picture in pixels.
        max_tokens: Longest caption.
    """
    check_integer("--min-side", min_side, 1, 100_000)
    check_integer("--max-tokens", max_tokens, 1, 100_000)
    KosmosGTokenizer.from_pretrained(tokenizer)  # now, rather than in every worker
    read = partial(_read_downloads, tokenizer.resolve(), min_side, max_tokens)
    stages = (Stage(name="read", make=read),)
    return _recipe(
        "captions",
        open_downloads(path.resolve(), per_shard),
        stages,
        per_shard,
        min_side=min_side,
        max_tokens=max_tokens,
        tokenizer=fingerprint(tokenizer),
    )


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


def _read_downloads(tokenizer: Path, min_side: int, max_tokens: int) -> ReadDownloads:
    return ReadDownloads(
        tokenizer=KosmosGTokenizer.from_pretrained(tokenizer),
        rules=CaptionRules(min_side=min_side),
        limits=CaptionLimits(tokens=max_tokens),
    )
