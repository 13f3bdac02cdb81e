"""What the training of the miniature's parts is told."""

from dataclasses import dataclass
from pathlib import Path

from kosmosg.data.options import DataOptions, StreamOptions
from kosmosg.errors import TrainingError
from kosmosg.training.options import LoopOptions


@dataclass(frozen=True, kw_only=True)
class ClipOptions:
    """CLIP, on captioned images.

    Attributes:
        config: JSON with the sizes, in an object 'clip'; the vocabulary's size is the tokenizer's.
        tokenizer: Folder of CLIP's tokenizer.
    """

    config: Path
    tokenizer: Path
    data: StreamOptions
    loop: LoopOptions


@dataclass(frozen=True, kw_only=True)
class VaeOptions:
    """The image decoder's VAE, on images.

    Attributes:
        config: JSON with the sizes, in an object 'vae'.
        vae: Result of train vae, of these sizes, whose decoding half alone is trained further, for
            the same latents.
        clip: Result of train clip, to compare with.
        crop: Train on squares of so many pixels that are cut out of the images by chance.
    """

    config: Path
    vae: Path | None = None
    clip: Path | None = None
    crop: int | None = None
    data: StreamOptions
    loop: LoopOptions


@dataclass(frozen=True, kw_only=True)
class DecoderOptions:
    """The image decoder's U-Net, on captioned images.

    Attributes:
        config: JSON with the sizes, in an object 'unet'; what VAE and CLIP decide is filled in.
        clip: Result of train clip.
        vae: Result of train vae.
        unet: Result of train decoder, of these sizes and for these latents, to train further.
        snr_gamma: Let timesteps with a higher signal-to-noise ratio count less; 5 is usual.
    """

    config: Path
    clip: Path
    vae: Path
    unet: Path | None = None
    snr_gamma: float | None = None
    data: DataOptions  # each image is encoded once, one after the other
    loop: LoopOptions


@dataclass(frozen=True, kw_only=True)
class ProbeOptions:
    """The classifier that scores the miniature's images, on images drawn as it goes.

    Attributes:
        art: Folder of transparent PNGs named by nouns; else the public art, fetched once.
    """

    art: Path | None = None
    loop: LoopOptions


@dataclass(frozen=True, kw_only=True)
class AdapterTrainingOptions:
    """What training an adapter takes.

    Attributes:
        decoder: Folder of a Stable Diffusion v1.5, or a weights folder with its text encoder.
    """

    decoder: Path
    data: DataOptions  # each image is encoded once, one after the other
    loop: LoopOptions


@dataclass(frozen=True, kw_only=True)
class LoraOptions(AdapterTrainingOptions):
    """A LoRA of a decoder's attention, on captioned images.

    Attributes:
        rank: Of the LoRA's matrices, 1 to 256.

    Raises:
        TrainingError: If it is out of bounds.
    """

    rank: int = 4

    def __post_init__(self) -> None:
        if not 1 <= self.rank <= 256:
            raise TrainingError(f"--rank is {self.rank}; it must be from 1 to 256.")


@dataclass(frozen=True, kw_only=True)
class ControlNetOptions(AdapterTrainingOptions):
    """A ControlNet of a decoder, on captioned images.

    Attributes:
        kind: Of its maps; canny needs no network.
    """

    kind: str = "canny"
