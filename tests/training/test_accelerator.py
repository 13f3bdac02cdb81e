"""Gradient checkpointing, kernels and surroundings."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.utils import DistributedType
from torch import Tensor
from torch.nn import functional as F

from kosmosg.errors import TrainingError
from kosmosg.training import accelerator
from kosmosg.training.accelerator import (
    attention_kernels,
    enable_gradient_checkpointing,
    make_accelerator,
)
from kosmosg.training.stage import Stage, trainable
from kosmosg.training.starting_weights import StartingWeights
from tests.training.stages.examples import (
    align_stage,
    captions,
    instruct_stage,
    lm_stage,
    prompts,
    sequences,
)
from tests.training.toy import toy_options

CASES: dict[
    str, tuple[Callable[[StartingWeights], Stage], Callable[[StartingWeights], Any], list[str]]
] = {
    "lm": (
        lm_stage,
        lambda start: sequences(start, "documents", count=2),
        ["kosmosg.kosmos2.text_model.model.layers.0.ffn"],
    ),
    "align": (
        align_stage,
        lambda start: captions(start, 2),
        ["kosmosg.aligner.decoder.layers.0.feed_forward", "reconstruction.encoder.layers.1"],
    ),
    "instruct": (
        instruct_stage,
        lambda start: prompts(start, "edits", count=2),
        [
            "kosmosg.kosmos2.vision_model.model.encoder.layers.1.mlp",
            "kosmosg.aligner.encoder.layers.0.feed_forward",
            "unet.up_blocks.0.resnets.0.conv1",
        ],
    ),
}


def compute(stage: Stage, batch: Any, watched: list[str]) -> tuple[float, list[Tensor], list[int]]:
    """Compute loss and gradients, and how often some modules were called."""
    calls = [0] * len(watched)

    def count(number: int) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            calls[number] += 1

        return hook

    # Inside of what is checkpointed: a hook of the layer itself is called once.
    hooks = [
        next(stage.get_submodule(name).children(), stage.get_submodule(name)).register_forward_hook(
            count(number)
        )
        for number, name in enumerate(watched)
    ]
    stage.zero_grad()
    stage.set_modes()
    torch.manual_seed(0)  # dropout is on
    loss = stage.losses(batch)["loss"]
    loss.backward()
    for hook in hooks:
        hook.remove()
    gradients = [parameter.grad for parameter in trainable(stage).values()]
    assert all(gradient is not None for gradient in gradients)
    return loss.item(), [gradient.clone() for gradient in gradients if gradient is not None], calls


@pytest.mark.parametrize("name", CASES)
def test_gradient_checkpointing_changes_nothing(start: StartingWeights, name: str) -> None:
    build, samples, watched = CASES[name]
    stage = build(start)
    batch = stage.collate(samples(start))
    loss, gradients, once = compute(stage, batch, watched)
    enable_gradient_checkpointing(stage)
    again, others, twice = compute(stage, batch, watched)
    assert again == loss
    for found, wanted in zip(others, gradients, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-5)
    assert twice == [2 * calls for calls in once], watched


def test_the_kernel_for_bfloat16_on_a_cpu() -> None:
    cpu = torch.device("cpu")
    with attention_kernels(cpu, "bf16"):
        assert not torch.backends.cuda.flash_sdp_enabled()
        assert torch.backends.cuda.math_sdp_enabled()
        same = torch.ones(1, 1, 2, 4, dtype=torch.bfloat16)
        F.scaled_dot_product_attention(same, same, same)
    for device, precision in ((cpu, "no"), (torch.device("cuda"), "bf16")):
        with attention_kernels(device, precision):  # type: ignore[arg-type]
            assert torch.backends.cuda.flash_sdp_enabled()


def test_old_sharding_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Old:
        device = torch.device("cuda")
        distributed_type = DistributedType.FSDP
        is_fsdp2 = False

    monkeypatch.setattr(accelerator, "Accelerator", lambda **_: Old())
    with pytest.raises(TrainingError, match="Write fsdp_version: 2"):
        make_accelerator(toy_options(tmp_path))


def test_what_accelerate_refuses_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: Any) -> None:
        raise ValueError("no such surrounding")

    monkeypatch.setattr(accelerator, "Accelerator", refuse)
    with pytest.raises(TrainingError, match="cannot begin: no such surrounding"):
        make_accelerator(toy_options(tmp_path))


def test_what_is_sharded_one_by_one(start: StartingWeights) -> None:
    """The transformer blocks of Kosmos-2, AlignerNet and the U-Net; only what is there."""
    assert align_stage(start)._no_split_modules[-3:] == [
        "Kosmos2TextBlock",
        "Kosmos2VisionEncoderLayer",
        "Layer",
    ]
    found = instruct_stage(start)._no_split_modules
    assert {"BasicTransformerBlock", "ResnetBlock2D", "Kosmos2TextBlock", "Layer"} <= set(found)
    classes = {type(module).__name__ for module in instruct_stage(start).modules()}
    assert set(found) <= classes
