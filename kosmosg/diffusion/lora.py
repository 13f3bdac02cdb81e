"""LoRA: a small correction of the U-Net's layers, put on for one request and taken off after it.

diffusers knows the trainers' names for layers, peft puts the corrections on and honours their
settings (alpha for each layer, rank-stabilised scaling, DoRA). What is here refuses what cannot be
used, calls it by its name, and makes sure that nothing of it stays.
"""

import json
import logging
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders import StableDiffusionLoraLoaderMixin
from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
from diffusers.utils.state_dict_utils import convert_unet_state_dict_to_peft
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from kosmosg.checkpoints.loading import is_finite
from kosmosg.diffusion.settings import LORA_SCALE
from kosmosg.errors import LoRAError
from kosmosg.utils.checks import check_number
from kosmosg.utils.files import reason

logger = logging.getLogger(__name__)

ADAPTER = "request"
STRONGEST = 10.0  # either way; beyond it images are noise
PICKLES = (b"PK\x03\x04", b"\x80")  # how files of torch.save begin
DOWN, UP, MAGNITUDE = ".lora_A.weight", ".lora_B.weight", ".lora_magnitude_vector"
# What KOSMOS-G has no use for: text encoders, embeddings of words, the VAE.
OTHER_PARTS = re.compile(
    r"(base_model\.model\.)?(lora_)?(te\d?[._]|text_|cond_stage_model|clip_|bundle_emb|emb_params"
    r"|string_to_param|vae|first_stage_model|image_encoder)"
)
# By what is in a tensor's name; the first that is found counts.
OTHER_KINDS = {
    r"\.hada_": "a LoHa",
    r"\.lokr_": "a LoKr",
    r"\.(oft|boft)_": "an OFT",
    r"\.lora_mid\.|\.lora_t\d": "a LoCon in Tucker form (with a third factor, lora_mid)",
    r"\.dora_scale": "a DoRA in the names of LyCORIS (dora_scale)",
    r"\.[ab][12]\.weight$": "a GLoRA",
    r"\.on_input$|\.ia3_l": "an IA3",
    r"\.diff(_b)?$|\.[wb]_norm$": "a LyCORIS of whole differences (diff)",
    r"\.vera_lambda": "a VeRA",
    r"\.lora_E": "an AdaLoRA",
    r"\.lora_B\.bias$": "a LoRA with biases",
    r"^lora_controlnet$": "a ControlNet in the form of a LoRA",
    r"^(control_model|controlnet_cond_embedding|controlnet_down_blocks)": "a ControlNet",
    r"^model\.diffusion_model\.": "a whole checkpoint",
}
# Those of peft's ways to begin that change the layers they are trained with.
CHANGED_WEIGHTS = ("pissa", "corda", "olora", "loftq", "orthogonal", "lora_ga")


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
        scale = check_number(f"{self.name}'s scale", self.scale, -STRONGEST, STRONGEST)
        object.__setattr__(self, "scale", scale)  # a plain number, for the metadata


@contextmanager
def attached(unet: UNet2DConditionModel, lora: LoRA | None) -> Iterator[None]:
    """Put a LoRA on the U-Net for the time of a ``with`` block.

    A request that was cancelled may have been so while it took its LoRA off; so the U-Net is
    cleaned before, too.

    Raises:
        LoRAError: If the file cannot be used with this U-Net.
    """
    unet.unload_lora()
    try:
        if lora is not None:
            factors, settings = read_lora(lora, unet)
            if lora.scale != 0:  # a DoRA sets the lengths of the weights, whatever its strength
                corrected: Any = unet
                with _told_as_unreadable(lora.name):
                    corrected.load_lora_adapter(
                        factors, prefix=None, adapter_name=ADAPTER, metadata=settings
                    )
                    corrected.set_adapters([ADAPTER], [lora.scale])
        yield
    finally:
        unet.unload_lora()


def read_lora(lora: LoRA, unet: UNet2DConditionModel) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the corrections of a U-Net's layers.

    Parts for a text encoder are left out with a warning: AlignerNet stands in its place.

    Returns:
        For each layer ``LAYER.lora_A.weight``, ``(rank, inputs)``, or ``(rank, inputs, height,
        width)`` for a convolution, and ``LAYER.lora_B.weight``, ``(outputs, rank)`` or ``(outputs,
        rank, 1, 1)``; and what peft's ``LoraConfig`` is made of.

    Raises:
        LoRAError: If the file is no safetensors file, damaged, of another kind, or for another
            U-Net.
    """
    tensors, metadata = _read_file(Path(lora.file), lora.name)
    kept = {key: value for key, value in tensors.items() if not OTHER_PARTS.match(key)}
    for pattern, kind in OTHER_KINDS.items():
        if any(re.search(pattern, key) for key in kept):
            raise LoRAError(
                f"{lora.name} is {kind}, which cannot be used here. Use a plain LoRA (lora_up and "
                "lora_down, or lora_A and lora_B)."
            )
    if not kept:
        raise LoRAError(f"{lora.name} has nothing for the U-Net. It cannot change any image.")
    if left_out := len(tensors) - len(kept):
        logger.warning(
            "%s: %d tensors for a text encoder are left out; KOSMOS-G has none.",
            lora.name,
            left_out,
        )
    with _told_as_unreadable(lora.name):
        factors, alphas = _name_as_peft(kept, unet)
    ranks = _check_layers(factors, unet, lora.name)
    with _told_as_unreadable(lora.name):
        settings = _configure(ranks, alphas, metadata, lora.name)
    return factors, settings | {"use_dora": any(MAGNITUDE in key for key in factors)}


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


def _name_as_peft(
    tensors: dict[str, Tensor], unet: UNet2DConditionModel
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Rename to ``LAYER.lora_A.weight`` and so on, and take out the alphas of layers."""
    loader: Any = StableDiffusionLoraLoaderMixin
    state, named = loader.lora_state_dict(dict(tensors), unet_config=unet.config)
    state = {re.sub(r"^(base_model\.model\.)?(unet\.)?", "", key): v for key, v in state.items()}
    # What diffusers calls the alphas of attention layers is not what these are called in the
    # U-Net: its own loader gives them the alpha that most layers have.
    alphas: dict[str, Any] = {
        key.removeprefix("unet.").removesuffix(".alpha"): alpha
        for key, alpha in (named or {}).items()
    }
    for key in [key for key in state if key.endswith(".alpha")]:
        alphas[key.removesuffix(".alpha")] = state.pop(key).item()
    alphas = convert_unet_state_dict_to_peft(alphas)
    return (
        {key: value.float() for key, value in convert_unet_state_dict_to_peft(state).items()},
        {key.removesuffix(DOWN): alpha for key, alpha in alphas.items()},
    )


def _check_layers(
    factors: Mapping[str, Tensor], unet: UNet2DConditionModel, name: str
) -> dict[str, int]:
    """Check each layer's factors against the layer, and find their ranks."""
    layers: dict[str, dict[str, Tensor]] = {}
    for key, tensor in factors.items():
        part = next((part for part in (DOWN, UP, MAGNITUDE) if key.endswith(part)), "")
        layers.setdefault(key.removesuffix(part), {})[part] = tensor
    parts = {DOWN, UP} | {MAGNITUDE for found in layers.values() if MAGNITUDE in found}
    modules, ranks = dict(unet.named_modules()), {}
    for layer, found in layers.items():
        module = modules.get(layer)
        if not isinstance(module, nn.Linear | nn.Conv2d):
            raise LoRAError(
                f"{name} changes '{layer}', which is no layer of this U-Net: it is a LoRA for "
                "another base model (SDXL, SD 2, FLUX, …) or of another kind. Use one for Stable "
                "Diffusion v1.5."
            )
        if found.keys() != parts:
            raise LoRAError(f"{name} has only some of the factors for '{layer}': it is damaged.")
        rank = found[DOWN].shape[0] if found[DOWN].ndim else 0
        if rank == 0:
            raise LoRAError(f"{name} has rank 0 at '{layer}': it is empty. Use another file.")
        outputs, inputs, *kernel = module.weight.shape
        wanted = (rank, inputs, *kernel), (outputs, rank, *(1 for _ in kernel))
        if (tuple(found[DOWN].shape), tuple(found[UP].shape)) != wanted:
            raise LoRAError(
                f"{name} has {tuple(found[DOWN].shape)} and {tuple(found[UP].shape)} for "
                f"'{layer}', where this U-Net takes {wanted[0]} and {wanted[1]}: it is for another "
                "base model. Use one for Stable Diffusion v1.5."
            )
        if not all(map(is_finite, found.values())):
            raise LoRAError(f"{name} is damaged: values at '{layer}' are not finite.")
        ranks[layer] = rank
    return ranks


def _configure(
    ranks: Mapping[str, int],
    alphas: Mapping[str, float],
    metadata: Mapping[str, str],
    name: str,
) -> dict[str, Any]:
    """Put together what peft is set to.

    A layer's alpha is what the settings say that diffusers writes beside the tensors, or in files
    without them a tensor of its own, or else the rank, so that nothing is scaled.
    """
    found = json.loads(metadata.get(LORA_ADAPTER_METADATA_KEY, "{}"))
    settings = {key.removeprefix("unet."): value for key, value in found.items()}
    begun = str(settings.get("init_lora_weights"))
    if begun.lower().startswith(CHANGED_WEIGHTS):
        raise LoRAError(
            f"{name} was trained on changed weights (init_lora_weights={begun:.20}). Convert it "
            "to a plain LoRA, as peft's documentation of that method says."
        )
    own = {layer: alphas.get(layer, rank) for layer, rank in ranks.items()}
    alpha, named = _usual(own)
    if "lora_alpha" in settings:
        alpha, named = settings["lora_alpha"], dict(settings.get("alpha_pattern") or {})
        if not all(re.fullmatch(r"\^?[\w.]+", layer) for layer in named):
            raise LoRAError(  # an expression can take for ever
                f"{name} gives alphas by expressions ({', '.join(named):.80}). Name the layers."
            )
    if not all(math.isfinite(number) for number in (alpha, *named.values())):
        raise LoRAError(f"{name} has an alpha that is not finite: it is damaged.")
    rank, other_ranks = _usual(ranks)
    return {
        "r": rank,
        "rank_pattern": other_ranks,
        "lora_alpha": alpha,
        "alpha_pattern": named,
        "use_rslora": settings.get("use_rslora") is True,
        "target_modules": list(ranks),
        "init_lora_weights": False,  # the file has them
    }


def _usual(numbers: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Find the number that most layers have; for each other, an expression of its layers."""
    most = Counter(numbers.values()).most_common(1)[0][0]
    others: dict[Any, list[str]] = {}
    for layer, number in numbers.items():
        if number != most:
            others.setdefault(number, []).append(re.escape(layer))
    return most, {f"^({'|'.join(layers)})": number for number, layers in others.items()}


@contextmanager
def _told_as_unreadable(name: str) -> Iterator[None]:
    """Say it in our words when diffusers or peft do not bear a file."""
    try:
        yield
    except (LoRAError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        # Names and numbers are taken apart: ValueError, KeyError, AttributeError, RuntimeError, ….
        raise LoRAError(
            f"{name} cannot be read as a LoRA ({reason(error):.200}). It is damaged or of another "
            "kind. Use a plain LoRA for Stable Diffusion v1.5."
        ) from error
