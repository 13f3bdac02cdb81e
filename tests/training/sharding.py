"""Sharded training on CPUs: accelerate refuses it there, torch does not.

``prepare`` does what accelerate does on GPUs, with its functions and the settings of
``runs/accelerate/fsdp.yaml``.
"""

import os
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import torch
from accelerate import Accelerator, FullyShardedDataParallelPlugin
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.fsdp_utils import fsdp2_prepare_model
from accelerate.utils.launch import prepare_multi_gpu_env
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from kosmosg.training import accelerator
from kosmosg.training.accelerator import gathered_in
from kosmosg.training.options import LoopOptions
from kosmosg.training.stage import Stage
from tests.conftest import ROOT
from tests.dying import dying
from tests.training import killers
from tests.training.toy import WIDTH, ToyStage, train_toy


def launch_environment(config: str) -> dict[str, str]:
    """Say what ``accelerate launch`` sets for the processes that it starts."""
    file = str(ROOT / "runs" / "accelerate" / config)
    options = launch_command_parser().parse_args(["--config_file", file, "-m", "kosmosg"])
    checked, *_ = _validate_launch_command(options)
    return prepare_multi_gpu_env(checked)


class ShardingAccelerator(Accelerator):
    """Shards where accelerate would replicate."""

    prepared = False

    @property
    def is_fsdp2(self) -> bool:  # as the loop asks; accelerate itself is to know of nothing
        return self.prepared

    def no_sync(self, model: Any) -> Any:
        raise AssertionError("every process would keep whole gradients")

    def prepare(self, stage: Stage, optimizer: torch.optim.Optimizer) -> Any:  # type: ignore[override]
        names = [name for name, p in stage.named_parameters() if p.requires_grad]
        plugin: Any = FullyShardedDataParallelPlugin()
        assert plugin.fsdp_version == 2
        if self.mixed_precision != "no":
            plugin.mixed_precision_policy = gathered_in(self.mixed_precision)  # type: ignore[arg-type]
        self.state.fsdp_plugin = plugin
        fsdp2_prepare_model(self, stage)
        parameters = dict(stage.named_parameters())
        assert all(isinstance(parameter, DTensor) for parameter in parameters.values())
        sharded = {type(m).__name__ for m in stage.modules() if isinstance(m, FSDPModule)}
        assert len(sharded) > 1, "only the stage as a whole"
        optimizer.param_groups[0]["params"] = [parameters[name] for name in names]
        self.prepared = True
        return stage, optimizer


@contextmanager
def sharding():
    """Let the loop shard."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in launch_environment("fsdp.yaml").items():
            if name.startswith("FSDP_"):
                patch.setitem(os.environ, name, value)
        patch.setattr(accelerator, "Accelerator", ShardingAccelerator)
        yield


class Block(nn.Module):
    """A layer that is sharded on its own."""

    def __init__(self, width: int):
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden + self.linear(hidden).tanh()


class Blocks(nn.Sequential):
    """As libraries do, it names the classes that are to be sharded."""

    _no_split_modules = ("Block", "NotHere")


class DeepStage(ToyStage):
    """A toy in blocks, of which one is frozen, and with odd sizes."""

    def __init__(self) -> None:
        super().__init__(dropout=0.0, hidden=5)
        self.network = Blocks(Block(WIDTH), Block(WIDTH), nn.Linear(WIDTH, 5), nn.Linear(5, 1))
        self.network[1].requires_grad_(False)


def train_sharded(options: LoopOptions) -> None:
    """Train a deep toy on shards."""
    with sharding():
        train_toy(options, build=DeepStage)


def train_sharded_and_die(options: LoopOptions) -> None:
    """The same, and be killed while the second checkpoint is being written."""
    with dying(*killers.MOMENTS["between files"]):
        train_sharded(options)


train_whole = partial(train_toy, build=DeepStage)
