"""What a stage costs is what its own losses cost when they are computed with values."""

from pathlib import Path

import pytest
import torch

from kosmosg.errors import TrainingError
from kosmosg.prompts.batch import Batch
from kosmosg.training.accelerator import enable_gradient_checkpointing
from kosmosg.training.estimate import StageEstimate, check_room
from kosmosg.training.footprint import Pass, Sizes, find_footprint
from kosmosg.training.meter import Cost, measure
from kosmosg.training.options import StageName
from kosmosg.training.stage import Stage, trainable
from kosmosg.training.stages.common import PromptBatch
from kosmosg.training.starting_weights import StartingWeights
from tests.training.stages.examples import align_stage, instruct_stage, lm_stage

SAMPLES, TOKENS = 6, 96
IMAGES: dict[StageName, int] = {"lm": 2, "align": 0, "instruct": 2}


@pytest.fixture(scope="module")
def weights(quiet: Path) -> StartingWeights:
    """Without dropout in attention: on a CPU it would keep what a card's kernels do not."""
    return StartingWeights(directory=quiet)


def make_stage(name: StageName, weights: StartingWeights, alone: bool) -> Stage:
    if name == "lm":
        return lm_stage(weights)
    if name == "align":
        return align_stage(weights)
    return instruct_stage(weights, aligner_only=alone)


def make_batch(name: StageName, weights: StartingWeights) -> PromptBatch:
    """Make prompts of one length, whose images stand before their text."""
    sizes, images = weights.sizes(), IMAGES[name]
    ids = torch.full((SAMPLES, TOKENS), 20)
    mask = torch.zeros_like(ids, dtype=torch.bool)
    mask[:, : images * sizes.image_slots] = True
    side = sizes.image_size
    return PromptBatch(
        prompts=Batch(
            ids=ids,
            image_mask=mask,
            pixels=torch.rand(SAMPLES * images, 3, side, side) if images else None,
        ),
        captions=torch.ones(SAMPLES, sizes.aligner_config.queries, dtype=torch.int64),
        targets=torch.rand(SAMPLES, 3, 64, 64),
        seeds=tuple(range(SAMPLES)),
    )


def cost_of(stage: Stage, batch: PromptBatch, *, checkpointing: bool) -> Cost:
    """Measure an update's pass with values."""
    stage.set_modes()
    if checkpointing:
        enable_gradient_checkpointing(stage)
    stage.losses(batch)  # what is made once and kept

    def compute() -> None:
        for parameter in trainable(stage).values():
            parameter.grad = torch.zeros_like(parameter)
        stage.losses(batch)["loss"].backward()

    return measure(compute, [*stage.parameters(), *stage.buffers()])


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(
    ("name", "alone"), [("lm", False), ("align", False), ("instruct", False), ("instruct", True)]
)
def test_it_is_that_of_the_stage(
    weights: StartingWeights, name: StageName, alone: bool, checkpointing: bool
) -> None:
    stage = make_stage(name, weights, alone)
    real = cost_of(stage, make_batch(name, weights), checkpointing=checkpointing)
    found = find_footprint(
        Sizes.of(weights.directory),
        Pass(
            stage=name,
            tokens=TOKENS,
            images=IMAGES[name],
            gradient_checkpointing=checkpointing,
            aligner_only=alone,
        ),
    )
    assert found.parameters == sum(p.numel() for p in stage.parameters())
    assert found.trained == sum(p.numel() for p in trainable(stage).values())
    assert found.flops(SAMPLES) == pytest.approx(real.flops, rel=0.01)
    assert found.activations(SAMPLES) + 4 * found.trained == pytest.approx(real.peak, rel=0.15)


def test_the_sizes_of_the_released_model() -> None:
    """What is known of them: 225 million in AlignerNet, 24 and 71 billion operations and more."""
    found = find_footprint(Sizes.full(), Pass(stage="align", tokens=40))
    assert found.parameters == pytest.approx(2261e6, rel=0.01)
    assert found.trained == 476_031_488
    assert found.flops(1) == pytest.approx(233e9, rel=0.01)


def test_a_card_that_is_too_small(weights: StartingWeights) -> None:
    sizes, what = Sizes.of(weights.directory), Pass(stage="instruct", tokens=60, images=2)
    needed = {
        samples: StageEstimate(footprint=find_footprint(sizes, what)).memory(samples)
        for samples in (1, 4, 8)
    }
    assert needed[1] < needed[4] < needed[8]
    assert check_room(sizes, what, 8, needed[8]) == ""
    told = check_room(sizes, what, 8, needed[8] - 1)
    assert "--micro-batch-size 4 would fit" in told
    with pytest.raises(TrainingError, match=r"needs about .* GB free\. It does not fit"):
        check_room(sizes, what, 8, 1e6)


def test_mixed_precision_halves_what_is_kept(weights: StartingWeights) -> None:
    sizes = Sizes.of(weights.directory)
    whole, half = (
        find_footprint(sizes, Pass(stage="align", tokens=60, precision=precision))
        for precision in ("no", "bf16")
    )
    assert half.flops(4) == whole.flops(4)
    assert half.activations(64) < 0.8 * whole.activations(64)
