"""Images and captions, encoded once: a decoder from nothing passes over them many times."""

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm
from transformers import CLIPTokenizer

from kosmosg.checkpoints.stable_diffusion import encode_captions
from kosmosg.data.bad_samples import (
    BadSample,
    BadSampleLimit,
    SkipLog,
    describe,
    other_remedies,
)
from kosmosg.data.schema import CaptionSample, Shard
from kosmosg.errors import DataError, TrainingError
from kosmosg.prompts.images import resize_and_crop, target_pixels
from kosmosg.training.stage import Stream
from kosmosg.utils.files import reason
from miniature.pretraining.unet import LatentExample

logger = logging.getLogger(__name__)

CaptionedImage = tuple[Image.Image, str]  # with its caption
MapMaker = Callable[[Image.Image], Image.Image]
BATCH = 64
_ORDER, _CHANCE = 1, 2  # so that both kinds of draws have generators of their own


@torch.inference_mode()
def encode_images(
    shards: Iterable[Shard],
    vae: AutoencoderKL,
    tokenizer: CLIPTokenizer,
    file: Path,
    *,
    limit: BadSampleLimit | None = None,
    min_side: int | None = None,
    bfloat16: bool = False,
    make_map: MapMaker | None = None,
) -> dict[str, Tensor]:
    """Encode all captioned images, or read what was encoded before of the same ones.

    Args:
        shards: Of caption samples.
        vae: Gives the posteriors.
        tokenizer: Of CLIP, for the captions.
        file: Where the result is kept, for a run that goes on.
        limit: When bad samples stop it.
        min_side: By which the shards choose their images.
        bfloat16: Encode in mixed precision.
        make_map: Makes the control map of an image, for a ControlNet.

    Returns:
        ``mean`` and ``deviation`` ``(images, channels, height, width)``, ``ids`` ``(images,
        length)``, and for a ControlNet ``control_map`` ``(images, 3, pixels, pixels)``, 0 to 255.

    Raises:
        DataError: If there is no usable image, or too much of the data is bad.
        TrainingError: If the file cannot be written.
    """
    shards = list(shards)
    rules: dict[str, int | bool | str | None]
    rules = {"min_side": min_side, "side": vae.config["sample_size"], "bfloat16": bfloat16}
    if make_map:
        rules["map"] = make_map.__name__
    origin = {"origin": _fingerprint(shards, vae, tokenizer, rules)}
    if file.exists() and _read_metadata(file) == origin:
        return load_file(file)
    log = SkipLog("images", limit or BadSampleLimit())
    with torch.autocast(vae.device.type, torch.bfloat16, enabled=bfloat16):
        parts = _encode(_samples(shards, log), vae, tokenizer, make_map)
    told = f"skipped: {describe(log.skipped) or 'none'}"
    if not parts["mean"]:
        raise DataError(
            f"There is no captioned image in the data that can be used ({told}). Name shards "
            f"with some{other_remedies(log.skipped)}."
        )
    if log.skipped:
        logger.warning("%d images are encoded; %s", log.good, told)
    whole = {name: torch.cat(tensors).contiguous() for name, tensors in parts.items()}
    _write(whole, file, origin)
    return whole


def _encode(
    samples: Iterable[CaptionedImage],
    vae: AutoencoderKL,
    tokenizer: CLIPTokenizer,
    make_map: MapMaker | None,
) -> dict[str, list[Tensor]]:
    side = vae.config["sample_size"]
    parts: dict[str, list[Tensor]] = {"mean": [], "deviation": [], "ids": []}
    if make_map:
        parts["control_map"] = []
    for batch in _batches(tqdm(samples, desc="encode", unit=" images", mininterval=30)):
        pixels = np.stack([target_pixels(image, side) for image, _ in batch])
        encoded: Any = vae.encode(torch.from_numpy(pixels).to(vae.device, vae.dtype))
        parts["mean"].append(encoded.latent_dist.mean.half().cpu())
        parts["deviation"].append(encoded.latent_dist.std.half().cpu())
        parts["ids"].append(encode_captions(tokenizer, [caption for _, caption in batch])[0])
        if make_map:
            cut = (resize_and_crop(image, side, Image.Resampling.BILINEAR) for image, _ in batch)
            maps = np.stack([np.asarray(make_map(image).convert("RGB")) for image in cut])
            parts["control_map"].append(torch.from_numpy(maps).permute(0, 3, 1, 2))
    return parts


def _write(tensors: dict[str, Tensor], file: Path, metadata: dict[str, str]) -> None:
    unfinished = file.with_suffix(".part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, unfinished, metadata)
        unfinished.replace(file)
    except (OSError, SafetensorError) as error:
        unfinished.unlink(missing_ok=True)
        raise TrainingError(f"{file} could not be written: {reason(error)}.") from error


class LatentStream(Stream):
    """An endless stream over encoded images, shuffled anew in each pass.

    Like ``data.mixture.Mixture``, a run has one sequence, of which each process reads its part.
    """

    def __init__(
        self,
        encoded: dict[str, Tensor],
        *,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ):
        self._encoded = encoded
        self._seed, self._world_size = seed, world_size
        images = len(encoded["ids"])
        self._identity = {"images": images, "seed": seed, "world_size": world_size}
        self._position = rank
        self._pass, self._order = -1, np.empty(0, dtype=np.int64)

    def __next__(self) -> LatentExample:
        """Give the next image."""
        encoded = self._encoded
        number, place = divmod(self._position, len(encoded["ids"]))
        if number != self._pass:
            generator = np.random.default_rng((_ORDER, self._seed, number))
            self._pass, self._order = number, generator.permutation(len(encoded["ids"]))
        row = int(self._order[place])
        generator = np.random.default_rng((_CHANCE, self._seed, self._position))
        self._position += self._world_size
        return LatentExample(
            mean=encoded["mean"][row],
            deviation=encoded["deviation"][row],
            ids=encoded["ids"][row],
            seed=int(generator.integers(2**62)),
            control_map=encoded["control_map"][row] if "control_map" in encoded else None,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the position, and what it counts in."""
        return {"position": self._position, **self._identity}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a position.

        Raises:
            TrainingError: If it counts other images, in another order, or among other processes.
        """
        found = {key: state[key] for key in self._identity}
        if found != self._identity:
            raise TrainingError(
                f"The encoded images cannot be resumed: the saved run had {found}, this one has "
                f"{self._identity}. Start it with the same data, seed and processes."
            )
        self._position = state["position"]


def _fingerprint(
    shards: Iterable[Shard],
    vae: AutoencoderKL,
    tokenizer: CLIPTokenizer,
    rules: dict[str, int | bool | str | None],
) -> str:
    """Tell apart what latents can come from; ``rules`` say how they are made of it."""
    digest = hashlib.sha256(f"{rules}\n".encode())
    for shard in shards:
        status = shard.path.stat()
        digest.update(f"{shard.name}\n{status.st_size}, {status.st_mtime_ns}\n".encode())
    digest.update(repr(sorted(tokenizer.get_vocab().items())).encode())
    for tensor in vae.state_dict().values():
        digest.update(tensor.cpu().numpy().tobytes())
    return digest.hexdigest()


def _read_metadata(file: Path) -> dict[str, str] | None:
    try:
        with safe_open(file, framework="pt") as opened:
            return opened.metadata()
    except SafetensorError:
        return None


def _samples(shards: Iterable[Shard], log: SkipLog) -> Iterator[CaptionedImage]:
    """Read all samples of shards once, in order; bad ones are counted, logged and skipped."""
    generator = np.random.default_rng(0)
    for shard in shards:
        for number, entry in enumerate(shard.scan().entries):
            try:
                sample = shard.read(entry, generator)
                if not isinstance(sample, CaptionSample) or sample.image is None:
                    raise BadSample("wrong-kind", f"no captioned image: {type(sample).__name__}")
            except BadSample as fault:
                log.count_bad(fault, f"{shard.name}, sample {number}")
            else:
                log.count_good()
                yield sample.image, sample.caption


def _batches(samples: Iterable[CaptionedImage]) -> Iterator[list[CaptionedImage]]:
    batch: list[CaptionedImage] = []
    for sample in samples:
        batch.append(sample)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
