"""What accelerate and torch are told before a run: processes, precision, memory, kernels."""

import warnings
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import (
    DistributedDataParallelKwargs,
    DistributedType,
    GradScalerKwargs,
    ProjectConfiguration,
)
from torch import nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from kosmosg.errors import TrainingError
from kosmosg.training.options import LoopOptions, Precision
from kosmosg.utils.processes import find_processes

# The loss scale of the authors' training scripts.
LOSS_SCALE = GradScalerKwargs(init_scale=4.0, growth_interval=256)
MIN_LOSS_SCALE = 1e-4


def make_accelerator(options: LoopOptions) -> Accelerator:
    """Set up what moves networks to devices and their gradients between processes.

    Args:
        options: For the precision, and where the log goes.

    Raises:
        TrainingError: If this surrounding cannot train.
    """
    find_processes()
    try:
        accelerator = Accelerator(
            mixed_precision=options.precision,
            log_with="tensorboard",
            project_config=ProjectConfiguration(logging_dir=str(options.output)),
            kwargs_handlers=[LOSS_SCALE, DistributedDataParallelKwargs(broadcast_buffers=False)],
        )
    except ValueError as error:
        raise TrainingError(f"Training cannot begin: {error}") from error
    if accelerator.device.type == "cpu" and options.precision == "fp16":
        raise TrainingError("Precision fp16 needs a GPU, and this is a CPU. Choose bf16 or no.")
    if accelerator.distributed_type == DistributedType.FSDP and not accelerator.is_fsdp2:
        raise TrainingError("FSDP of version 1 cannot be used. Write fsdp_version: 2.")
    if accelerator.is_fsdp2 and options.precision != "no":
        plugin: Any = accelerator.state.fsdp_plugin
        plugin.mixed_precision_policy = gathered_in(options.precision)
    return accelerator


def gathered_in(precision: Precision) -> MixedPrecisionPolicy:
    """Gather shards in half precision, and nothing else: autocast sees to the rest.

    Accelerate's own policy would round inputs, outputs and so the losses, too.
    """
    dtype = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    return MixedPrecisionPolicy(
        param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False
    )


def prepare(
    accelerator: Accelerator, network: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[nn.Module, Any]:
    """Wrap a network and its optimizer for the processes of a run."""
    with warnings.catch_warnings():
        # torch has a new name for an option of DDP that accelerate does not know yet.
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
        return accelerator.prepare(network, optimizer)


def free_gathered(network: nn.Module) -> None:
    """Let go of shards that a forward pass has gathered, after which no backward pass came."""
    for module in network.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def enable_gradient_checkpointing(module: nn.Module) -> None:
    """Let every layer that can compute its activations twice instead of keeping them."""
    # KosmosG's own switch would let a frozen embedding take part in the gradient.
    for layer in module.modules():
        if isinstance(layer, GradientCheckpointingLayer):
            layer.gradient_checkpointing = True
            vars(layer)["_gradient_checkpointing_func"] = partial(checkpoint, use_reentrant=False)
    for network in module.children():
        if enable := getattr(network, "enable_gradient_checkpointing", None):  # diffusers
            enable()


def attention_kernels(device: torch.device, precision: Precision) -> AbstractContextManager:
    """Choose the kernels of attention."""
    if device.type == "cpu" and precision == "bf16":
        # The backward pass of the fused kernel takes ten times as long as in float32 there.
        return sdpa_kernel(SDPBackend.MATH)
    return nullcontext()
