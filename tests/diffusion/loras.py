"""LoRA files as the trainers write them, of random numbers."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor, nn

ATTENTION = "down_blocks.0.attentions.0.transformer_blocks.0.attn2"
LAYERS = (  # a linear layer, one with its dots in a list, a convolution of 1 × 1 and one of 3 × 3
    f"{ATTENTION}.to_k",
    f"{ATTENTION}.to_out.0",
    "down_blocks.0.attentions.0.proj_in",
    "down_blocks.0.resnets.0.conv1",
)
Factors = dict[str, tuple[Tensor, Tensor]]


def make_factors(
    unet: UNet2DConditionModel, layers: Iterable[str] = LAYERS, rank: int = 4, seed: int = 0
) -> Factors:
    """Draw both factors of some layers' corrections, strong enough to change an image."""
    generator = torch.Generator().manual_seed(seed)
    factors = {}
    for layer in layers:
        outputs, inputs, *kernel = weight_of(unet, layer).shape
        down = torch.randn(rank, inputs, *kernel, generator=generator)
        up = torch.randn(outputs, rank, *(1 for _ in kernel), generator=generator)
        factors[layer] = (down / down[0].numel() ** 0.5, up / rank)
    return factors


def weight_of(unet: UNet2DConditionModel, layer: str) -> Tensor:
    module: Any = unet.get_submodule(layer)
    return module.weight


def kohya(factors: Factors, alphas: dict[str, float] | None = None) -> dict[str, Tensor]:
    tensors = {}
    for layer, (down, up) in factors.items():
        name = "lora_unet_" + layer.replace(".", "_")
        tensors[f"{name}.lora_down.weight"] = down
        tensors[f"{name}.lora_up.weight"] = up
        tensors[f"{name}.alpha"] = torch.tensor((alphas or {}).get(layer, float(len(down))))
    return tensors


def peft(factors: Factors) -> dict[str, Tensor]:
    tensors = {}
    for layer, (down, up) in factors.items():
        tensors[f"unet.{layer}.lora_A.weight"] = down
        tensors[f"unet.{layer}.lora_B.weight"] = up
    return tensors


def old_diffusers(factors: Factors) -> dict[str, Tensor]:
    """As ``save_attn_procs`` once wrote the layers of attention."""
    tensors = {}
    for layer, (down, up) in factors.items():
        block, _, projection = layer.removesuffix(".0").rpartition(".")
        tensors[f"unet.{block}.processor.{projection}_lora.down.weight"] = down
        tensors[f"unet.{block}.processor.{projection}_lora.up.weight"] = up
    return tensors


NAMINGS: dict[str, Callable[[Factors], dict[str, Tensor]]] = {"kohya": kohya, "peft": peft}


def merge(unet: UNet2DConditionModel, factors: Factors, strength: float = 1.0) -> None:
    """Add the corrections to the weights themselves, which is what a LoRA amounts to."""
    for layer, (down, up) in factors.items():
        weight = weight_of(unet, layer)
        product = (up.flatten(1) @ down.flatten(1)).view_as(weight)
        with torch.no_grad():
            weight += strength * product


def write(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> Path:
    contiguous = {name: tensor.clone().contiguous() for name, tensor in tensors.items()}
    save_file(contiguous, path, metadata)
    return path


def count_adapters(network: nn.Module) -> int:
    """Count what a LoRA would have left in a network."""
    return sum(
        "lora" in name.lower() or "base_layer" in name for name, _ in network.named_modules()
    )
