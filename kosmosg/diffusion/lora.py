"""LoRA: a small correction of the U-Net's layers, put on for one request and taken off after it.

diffusers and peft put the corrections on. What is here reads the two ways of naming them (kohya's
and diffusers'), makes sure that they belong to this U-Net, and that nothing of them stays.
"""

import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from diffusers import UNet2DConditionModel
from diffusers.utils.state_dict_utils import convert_unet_state_dict_to_peft
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from kosmosg.checkpoints.loading import is_finite
from kosmosg.diffusion.settings import LORA_SCALE
from kosmosg.errors import LoRAError
from kosmosg.utils.checks import check_number

logger = logging.getLogger(__name__)

ADAPTER = "request"
STRONGEST = 10.0  # either way; beyond it pictures are noise
DOWN, UP = ".lora_A.weight", ".lora_B.weight"  # peft's names, which diffusers takes
PICKLES = (b"PK\x03\x04", b"\x80")  # how files of torch.save begin
TEXT_ENCODERS = ("text_encoder.", "text_encoder_2.", "lora_te_", "lora_te1_", "lora_te2_")
OTHER_KINDS = {
    "hada_w1": "LoHa",
    "lokr_w1": "LoKr",
    "oft_": "OFT",
    "dora_scale": "DoRA",
    "lora_magnitude_vector": "DoRA",
}
ADAPTER_METADATA = "lora_adapter_metadata"  # where diffusers keeps what peft was set to


@dataclass(frozen=True, kw_only=True)
class Correction:
    """What is added to a layer's weight: ``up @ down``, at strength 1.

    Attributes:
        down: ``(rank, inputs)``, or ``(rank, inputs, height, width)`` for a convolution.
        up: ``(outputs, rank)``, or ``(outputs, rank, 1, 1)``, times alpha over rank.
    """

    down: Tensor
    up: Tensor


@dataclass(frozen=True, kw_only=True)
class LoRA:
    """A LoRA file and how strongly it acts.

    Attributes:
        file: A ``.safetensors`` file of a LoRA for Stable Diffusion v1.5.
        scale: Strength, -10 to 10; 1 is as trained.
        name: What to call the file in errors.
    """

    file: str | Path
    scale: float = LORA_SCALE
    name: str = "lora"

    def __post_init__(self) -> None:
        check_number(f"{self.name}'s scale", self.scale, -STRONGEST, STRONGEST)


def read_lora(lora: LoRA, unet: UNet2DConditionModel) -> dict[str, Correction]:
    """Read the corrections of a U-Net's layers, by the layers' names.

    Parts for a text encoder are left out with a warning: AlignerNet stands in its place.

    Raises:
        LoRAError: If the file is no safetensors file, damaged, of another kind, or for another
            U-Net.
    """
    tensors, metadata = _read_file(Path(lora.file), lora.name)
    kinds = {kind for part, kind in OTHER_KINDS.items() if any(part in key for key in tensors)}
    if kinds:
        raise LoRAError(
            f"{lora.name} is a {' and '.join(sorted(kinds))}, which cannot be used here. Use a "
            "plain LoRA (lora_up and lora_down, or lora_A and lora_B)."
        )
    layers = {key: value for key, value in tensors.items() if not key.startswith(TEXT_ENCODERS)}
    if len(layers) < len(tensors):
        logger.warning(
            "%s: %d tensors for a text encoder are left out; KOSMOS-G has none.",
            lora.name,
            len(tensors) - len(layers),
        )
    if not layers:
        raise LoRAError(f"{lora.name} has nothing for the U-Net. It cannot change any picture.")
    named = _name_as_peft(layers, unet)
    alphas = _alphas(named, metadata)
    modules = dict(unet.named_modules())
    names = sorted({_layer(key) for key in named if not key.endswith(".alpha")})
    return {
        name: _correction(name, named, alphas.get(name), modules.get(name), lora.name)
        for name in names
    }


@contextmanager
def attached(unet: UNet2DConditionModel, lora: LoRA | None) -> Iterator[None]:
    """Put a LoRA on the U-Net for the time of a ``with`` block.

    A request that was cancelled may have been so while it took its LoRA off; so the U-Net is
    cleaned before, too.

    Raises:
        LoRAError: If the file cannot be used with this U-Net.
    """
    unet.unload_lora()
    if lora is None:
        yield
        return
    corrections = read_lora(lora, unet)
    state = {}
    for name, correction in corrections.items():
        state[f"unet.{name}{DOWN}"] = correction.down
        state[f"unet.{name}{UP}"] = correction.up
    try:
        unet.load_lora_adapter(state, prefix="unet", adapter_name=ADAPTER)
        unet.set_adapters([ADAPTER], [lora.scale])
        yield
    finally:
        unet.unload_lora()


def _read_file(file: Path, name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read all tensors and the metadata of a safetensors file."""
    try:
        with file.open("rb") as opened:
            beginning = opened.read(9)
        # A safetensors file begins with eight bytes of a length, which may look like anything.
        if beginning[8:] != b"{" and beginning.startswith(PICKLES):
            raise LoRAError(
                f"{name} is a pickle (.pt, .ckpt or .bin), which is a program and is not opened. "
                "Use the .safetensors file of the same LoRA."
            )
        with safe_open(file, framework="pt") as opened:
            tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
            return tensors, opened.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise LoRAError(
            f"{name} is not a safetensors file, or is cut off ({error}). Send a LoRA for Stable "
            "Diffusion v1.5 as .safetensors."
        ) from error


def _name_as_peft(tensors: dict[str, Tensor], unet: UNet2DConditionModel) -> dict[str, Tensor]:
    """Rename to ``LAYER.lora_A.weight``, ``LAYER.lora_B.weight`` and ``LAYER.alpha``."""
    if any(key.startswith("lora_unet_") for key in tensors):
        # kohya's names are those of the layers, with all dots made underscores.
        flat = {name.replace(".", "_"): name for name, _ in unet.named_modules()}
        renamed = {}
        for key, tensor in tensors.items():
            layer, _, part = key.removeprefix("lora_unet_").partition(".")
            part = part.replace("lora_down.", "lora_A.").replace("lora_up.", "lora_B.")
            renamed[f"{flat.get(layer, layer)}.{part}"] = tensor
        return renamed
    bare = {re.sub(r"^(base_model\.model\.)?(unet\.)?", "", key): t for key, t in tensors.items()}
    # The library knows the names that its own trainers have used over the years.
    return convert_unet_state_dict_to_peft(bare)


def _alphas(tensors: dict[str, Tensor], metadata: dict[str, str]) -> dict[str, float]:
    """Find the alpha of each layer: a tensor (kohya), or a setting of peft (diffusers)."""
    layers = {_layer(key) for key in tensors if key.endswith(DOWN)}
    try:
        settings = json.loads(metadata.get(ADAPTER_METADATA, "{}"))
    except ValueError:
        settings = {}
    default = settings.get("unet.lora_alpha")
    alphas: dict[str, float] = {}
    if default is not None:
        alphas = {layer: float(default) for layer in layers}
    patterns = settings.get("unet.alpha_pattern") or {}
    for layer in layers:
        for pattern, alpha in patterns.items():
            if layer == pattern or layer.endswith(f".{pattern}"):
                alphas[layer] = alpha
        tensor = tensors.get(f"{layer}.alpha")
        if tensor is not None and tensor.numel() == 1:
            alphas[layer] = float(tensor)
    return alphas


def _correction(
    layer: str, tensors: dict[str, Tensor], alpha: float | None, module: nn.Module | None, name: str
) -> Correction:
    """Check a layer's two factors against the layer, and multiply alpha over rank into one."""
    down, up = tensors.get(layer + DOWN), tensors.get(layer + UP)
    if not isinstance(module, nn.Linear | nn.Conv2d):
        raise LoRAError(
            f"{name} changes '{layer}', which is no layer of this U-Net: it is a LoRA for another "
            "base model (SDXL, SD 2, FLUX, …) or of another kind. Use one for Stable Diffusion "
            "v1.5."
        )
    if down is None or up is None:
        raise LoRAError(f"{name} has only one of the two factors for '{layer}': it is damaged.")
    rank = down.shape[0] if down.ndim else 0
    outputs, inputs, *kernel = module.weight.shape
    wanted = (rank, inputs, *kernel), (outputs, rank, *(1 for _ in kernel))
    if rank == 0:
        raise LoRAError(f"{name} has rank 0 at '{layer}': it is empty. Use another file.")
    if (tuple(down.shape), tuple(up.shape)) != wanted:
        raise LoRAError(
            f"{name} has {tuple(down.shape)} and {tuple(up.shape)} for '{layer}', where this U-Net "
            f"takes {wanted[0]} and {wanted[1]}: it is for another base model. Use one for Stable "
            "Diffusion v1.5."
        )
    factor = 1.0 if alpha is None else alpha / rank
    down, up = down.float(), up.float()  # from any precision, also those that cannot compute
    if not (is_finite(down) and is_finite(up) and abs(factor) < float("inf")):
        raise LoRAError(f"{name} holds values that are not finite, at '{layer}'. It is damaged.")
    return Correction(down=down, up=up * factor)


def _layer(key: str) -> str:
    return key.removesuffix(DOWN).removesuffix(UP).removesuffix(".alpha")
