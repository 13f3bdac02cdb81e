"""``train``: what a model from nothing takes from others, what reads its images, and adapters."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kosmosg.cli.train import TrainCommand, training_data
from kosmosg.data.options import DataOptions, StreamOptions
from kosmosg.training.options import LoopOptions


@dataclass(frozen=True, kw_only=True)
class PartCommand(TrainCommand):
    """What is the same for the parts of a model.

    Attributes:
        config: JSON with the sizes.
    """

    config: Path

    def read_sizes(self, part: str) -> Any:
        """Read the sizes of one part."""
        from miniature.pretraining.sizes import NetworkSizes

        return NetworkSizes.read(self.config, part)


@dataclass(frozen=True, kw_only=True)
class Clip(PartCommand):
    """CLIP, on captioned images.

    Attributes:
        tokenizer: CLIP's tokenizer.
    """

    tokenizer: Path
    data: StreamOptions
    loop: LoopOptions

    def train(self) -> Path:
        """Train it."""
        from miniature.pretraining.parts import train_clip

        data = training_data(self.data, self.loop)
        return train_clip(self.read_sizes("clip"), self.tokenizer, data, self.loop)


@dataclass(frozen=True, kw_only=True)
class Vae(PartCommand):
    """The image decoder's VAE, on images.

    Attributes:
        vae: Result of train vae, of these sizes, whose decoding half alone to train further.
        clip: Result of train clip, to compare with.
        crop: Train on squares of so many pixels that are cut out of the images by chance.
    """

    vae: Path | None = None
    clip: Path | None = None
    crop: int | None = None
    data: StreamOptions
    loop: LoopOptions

    def train(self) -> Path:
        """Train it."""
        from miniature.pretraining.parts import train_vae

        data = training_data(self.data, self.loop)
        parts = {"vae": self.vae, "clip": self.clip}
        return train_vae(self.read_sizes("vae"), data, self.loop, **parts, crop=self.crop)


@dataclass(frozen=True, kw_only=True)
class Decoder(PartCommand):
    """The image decoder's U-Net, on captioned images.

    Attributes:
        clip: Result of train clip.
        vae: Result of train vae.
        snr_gamma: Let timesteps with a higher signal-to-noise ratio count less; 5 is usual.
    """

    clip: Path
    vae: Path
    snr_gamma: float | None = None
    data: DataOptions  # images are encoded once, one after the other
    loop: LoopOptions

    def train(self) -> Path:
        """Train it."""
        from miniature.pretraining.parts import train_decoder

        return train_decoder(
            self.read_sizes("unet"),
            self.clip,
            self.vae,
            training_data(self.data, self.loop),
            self.loop,
            snr_gamma=self.snr_gamma,
        )


@dataclass(frozen=True, kw_only=True)
class Probe(TrainCommand):
    """The classifier that scores the miniature's images.

    Attributes:
        art: Folder of transparent PNGs named by nouns; else the public art, fetched once.
    """

    art: Path | None = None
    loop: LoopOptions

    def train(self) -> Path:
        """Train it."""
        from miniature.pretraining.parts import train_probe
        from miniature.world.art import open_art

        return train_probe(open_art(self.art), self.loop)


@dataclass(frozen=True, kw_only=True)
class AdapterCommand(TrainCommand):
    """What is the same for all adapters.

    Attributes:
        decoder: Folder of a Stable Diffusion v1.5, or weights with its text encoder.
    """

    decoder: Path
    data: DataOptions  # images are encoded once, one after the other
    loop: LoopOptions


@dataclass(frozen=True, kw_only=True)
class Lora(AdapterCommand):
    """A LoRA of a decoder, on captioned images.

    Attributes:
        rank: Of the LoRA's matrices.
    """

    rank: int = 4

    def train(self) -> Path:
        """Train it."""
        from miniature.pretraining.adapter_parts import train_lora

        data = training_data(self.data, self.loop)
        return train_lora(self.decoder, data, self.loop, rank=self.rank)


@dataclass(frozen=True, kw_only=True)
class Controlnet(AdapterCommand):
    """A ControlNet of a decoder, on captioned images.

    Attributes:
        kind: Of its maps.
    """

    kind: str = "canny"

    def train(self) -> Path:
        """Train it."""
        from miniature.pretraining.adapter_parts import train_controlnet

        data = training_data(self.data, self.loop)
        return train_controlnet(self.decoder, data, self.loop, kind=self.kind)


@dataclass(frozen=True, kw_only=True)
class TrainPart:
    """Train what KOSMOS-G takes from others, a probe, or adapters."""

    stage: Clip | Vae | Decoder | Probe | Lora | Controlnet

    def run(self) -> None:
        """Train it."""
        self.stage.run()
