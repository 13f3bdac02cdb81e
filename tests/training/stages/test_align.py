"""Stage 2: what is trained, the target, and the paper's corrections."""

from pathlib import Path
from typing import Any

import pytest
import torch

from kosmosg.training.losses import alignment_loss
from kosmosg.training.stage import trainable
from kosmosg.training.stages.align import AlignStage
from kosmosg.training.starting_weights import StartingWeights
from tests.training.stages.examples import align_stage, captions


@pytest.fixture(scope="module")
def stage(start: StartingWeights) -> AlignStage:
    return align_stage(start)


def test_what_is_trained(stage: AlignStage) -> None:
    every = {name for name, _ in stage.named_parameters()}
    wanted = {name for name in every if name.startswith(("kosmosg.aligner.", "reconstruction."))}
    assert set(trainable(stage)) == wanted
    assert any(name.startswith("text_encoder.") for name in every)


@pytest.mark.parametrize("frozen_dropout", [True, False])
def test_modes(start: StartingWeights, frozen_dropout: bool) -> None:
    """The dropout of the frozen model perturbs the input and what is reconstructed."""
    stage = align_stage(start, frozen_dropout=frozen_dropout)
    stage.set_modes()
    assert stage.kosmosg.kosmos2.training == frozen_dropout
    assert stage.kosmosg.kosmos2.text_model.training == frozen_dropout
    assert stage.kosmosg.aligner.training
    assert stage.reconstruction.training
    assert not stage.text_encoder.training
    batch = stage.collate(captions(start, 3))
    first, second = (stage.losses(batch)["loss"].item() for _ in range(2))
    assert (first != second) == frozen_dropout


@pytest.mark.parametrize("count_padding", [True, False])
def test_loss_by_hand(start: StartingWeights, count_padding: bool) -> None:
    stage = align_stage(start, count_padding=count_padding).eval()
    batch = stage.collate(captions(start, 5))
    prompts = batch.prompts
    assert prompts.padding_mask.any()
    assert prompts.pixels is None
    assert batch.captions is not None
    features = stage.kosmosg.features(prompts)
    condition = stage.kosmosg.aligner(features, prompts.padding_mask)
    left_out = None if count_padding else prompts.padding_mask
    rebuilt = stage.reconstruction(condition, features.shape[1], left_out)
    # CLIP's last hidden state behind its final norm, over all 32 positions, without a mask.
    target = stage.text_encoder(input_ids=batch.captions, attention_mask=None).last_hidden_state
    assert target.shape == condition.shape == (5, 32, 32)
    wanted = alignment_loss(
        condition=condition,
        target=target,
        reconstruction=rebuilt,
        features=features,
        counted=None if count_padding else ~prompts.padding_mask,
    )
    found = stage.losses(batch)
    for name, value in (
        ("mse", wanted.mse),
        ("reconstruction", wanted.reconstruction),
        ("loss", wanted.mse + wanted.reconstruction),
    ):
        torch.testing.assert_close(found[name], value, atol=1e-6, rtol=0)


def test_a_mask_would_give_another_target(stage: AlignStage, start: StartingWeights) -> None:
    """Else the test above would see no difference."""
    batch = stage.collate(captions(start, 5))
    assert batch.captions is not None
    end: Any = stage.text_encoder.config.eos_token_id
    ends = torch.eq(batch.captions, end).long()
    attended = torch.eq(ends.cumsum(1) - ends, 0).long()  # up to the first end
    masked = stage.text_encoder(input_ids=batch.captions, attention_mask=attended)
    plain = stage.text_encoder(input_ids=batch.captions)
    assert not torch.allclose(masked.last_hidden_state, plain.last_hidden_state, atol=1e-3)


def test_only_without_padding_a_loss_does_not_depend_on_its_batch(start: StartingWeights) -> None:
    """The mean over parts of a batch is that over the whole."""
    samples = sorted(captions(start, 8), key=lambda sample: len(sample.prepared.prompt.ids))
    assert len(samples[0].prepared.prompt.ids) < len(samples[-1].prepared.prompt.ids)
    for count_padding in (True, False):
        stage = align_stage(start, count_padding=count_padding).eval()
        whole = stage.losses(stage.collate(samples))["loss"].item()
        parts = [
            stage.losses(stage.collate(half))["loss"].item() for half in (samples[:4], samples[4:])
        ]
        assert (abs(sum(parts) / 2 - whole) > 1e-5) == count_padding


def test_the_result_has_the_reconstruction_half(stage: AlignStage, tmp_path: Path) -> None:
    stage.save(tmp_path / "weights")
    assert StartingWeights(directory=tmp_path / "weights").kosmosg().config.stage == "align"
    assert (tmp_path / "weights" / "reconstruction" / "model.safetensors").is_file()
