"""The data sets of stage 3, as a user asks for them; the defaults are the published values."""

from dataclasses import dataclass
from pathlib import Path

from kosmosg.data.options import ImageFormat
from kosmosg.utils.checks import check_integer, check_number

PER_SHARD = 256


@dataclass(frozen=True, kw_only=True)
class ModelBatches:
    """How many samples each model takes at once; of no consequence but for rounding.

    Attributes:
        caption_batch: Images captioned at once.
        entities_batch: Captions read at once.
        masks_batch: Images segmented at once.
    """

    caption_batch: int = 32
    entities_batch: int = 32
    masks_batch: int = 16

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            check_integer(f"--{name.replace('_', '-')}", value, 1, 4096)


@dataclass(frozen=True, kw_only=True)
class CompositionalOptions:
    """What decides compositional samples.

    Attributes:
        captioner: Folder or Hub id of BLIP-2.
        language_model: Folder or Hub id of a model that follows instructions.
        segmenter: Folder or Hub id of CLIPSeg.
        caption_tokens: Longest caption.
        entity_tokens: Longest list of entities; the authors' 10 cuts lists off.
        min_side: Smallest square in pixels.
        max_side: Larger squares are scaled down to it.
        side: Of the images that are written.
        threshold: Probability above which a place belongs to an entity.
        image_format: Of the files.
    """

    captioner: str = "Salesforce/blip2-opt-6.7b"
    # The paper's MPT-7B-Instruct is no longer published; this one has its size, comes as
    # safetensors, needs no code of its own, and may be used for anything (Apache 2.0).
    language_model: str = "Qwen/Qwen2.5-7B-Instruct"
    segmenter: str = "CIDAS/clipseg-rd64-refined"
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
class EditOptions:
    """What decides samples of edits.

    Attributes:
        side: Shorter side in pixels of the images that are written.
        image_format: Of the files.
    """

    side: int = 512
    image_format: ImageFormat = "PNG"

    def __post_init__(self) -> None:
        check_integer("--side", self.side, 8, 4096)


@dataclass(frozen=True, kw_only=True)
class CaptionOptions:
    """What decides samples of captions.

    Attributes:
        tokenizer: Folder with sentencepiece.bpe.model and dict.txt, which says how long captions
            are.
        min_side: Shortest side of an image in pixels.
        max_tokens: Longest caption.
    """

    tokenizer: Path
    min_side: int = 384
    max_tokens: int = 128

    def __post_init__(self) -> None:
        check_integer("--min-side", self.min_side, 1, 100_000)
        check_integer("--max-tokens", self.max_tokens, 1, 100_000)


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """Where the work is done.

    Attributes:
        address: HOST:PORT of a Ray cluster, or auto; else this machine.
        cpus: Cores of this machine to use, without --address; else all.
        workers: STEP=N or STEP=NxGPUS: workers of a step, and GPUs of each, such as caption=5x1.
            Steps: read; of openimages also caption, entities, masks, cut.
        in_process: One shard after the other, without Ray.
    """

    address: str | None = None
    cpus: int | None = None
    workers: tuple[str, ...] = ()
    in_process: bool = False

    def __post_init__(self) -> None:
        if self.cpus is not None:
            check_integer("--cpus", self.cpus, 1, 100_000)
