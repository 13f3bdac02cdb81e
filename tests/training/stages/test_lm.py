"""Stage 1: what is trained, and on which tokens."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from kosmosg.data.preprocessing import Prepared
from kosmosg.prompts.batch import Batch
from kosmosg.prompts.tokenizer import BOS_ID, EOS_ID, PAD_ID, TokenizedPrompt
from kosmosg.training.losses import IGNORED
from kosmosg.training.stage import trainable
from kosmosg.training.stages.common import read_prompts
from kosmosg.training.stages.lm import LanguageStage
from kosmosg.training.starting_weights import StartingWeights
from tests.training.stages.examples import lm_stage, sequences

VISION = "kosmosg.kosmos2.vision_model.model."


@pytest.fixture(scope="module")
def stage(start: StartingWeights) -> LanguageStage:
    return lm_stage(start)


def test_what_is_trained(stage: LanguageStage) -> None:
    """Of the vision tower, the last block and the final norm alone (paper, section 2.1)."""
    trained, every = set(trainable(stage)), {name for name, _ in stage.named_parameters()}
    assert {name for name in every if name.startswith("kosmosg.aligner")} & trained == set()
    vision = {name for name in trained if name.startswith(VISION)}
    assert vision == {
        name
        for name in every
        if name.startswith((f"{VISION}encoder.layers.1.", f"{VISION}post_layernorm."))
    }
    assert f"{VISION}embeddings.patch_embedding.weight" in every - trained
    rest = {name for name in every if name.startswith("kosmosg.kosmos2") and VISION not in name}
    assert rest <= trained
    assert "kosmosg.kosmos2.text_model.model.embed_tokens.weight" in rest
    assert any("image_to_text_projection" in name for name in rest)


def test_labels_of_five_tokens(stage: LanguageStage, start: StartingWeights) -> None:
    """<s> <image> slot </image> word: the word is predicted, and nothing else."""
    symbols = start.tokenizer().symbols
    image, end, word = symbols.index("<image>"), symbols.index("</image>"), 20
    ids = torch.tensor([[BOS_ID, image, image, end, word], [BOS_ID, 7, EOS_ID, 8, PAD_ID]])
    mask = torch.zeros(2, 5, dtype=torch.bool)
    mask[0, 2] = True
    labels = stage.labels(Batch(ids=ids, image_mask=mask, pixels=None))
    ignored = IGNORED
    assert labels.tolist() == [
        [BOS_ID, ignored, ignored, ignored, word],  # no position predicts the first one
        [BOS_ID, 7, EOS_ID, 8, ignored],
    ]


def test_a_slot_counts_by_its_mask_whatever_its_id(stage: LanguageStage) -> None:
    mask = torch.tensor([[False, True, False]])
    labels = stage.labels(Batch(ids=torch.tensor([[0, 9, 9]]), image_mask=mask, pixels=None))
    assert labels.tolist() == [[0, IGNORED, 9]]


def test_loss_by_hand(stage: LanguageStage, start: StartingWeights) -> None:
    stage.eval()
    batch = stage.collate(sequences(start, "documents", "text", count=3))
    labels = stage.labels(batch.prompts)
    features = stage.kosmosg.features(batch.prompts)
    logits = features @ stage.kosmosg.kosmos2.text_model.model.embed_tokens.weight.T
    each = [
        F.cross_entropy(logits[row, k], labels[row, k + 1])
        for row in range(3)
        for k in range(labels.shape[1] - 1)
        if labels[row, k + 1] != IGNORED
    ]
    assert stage.weigh(batch) == len(each)
    found = stage.losses(batch)["loss"]
    torch.testing.assert_close(found, torch.stack(each).mean(), atol=1e-5, rtol=0)


def test_a_batch_of_images_alone_weighs_nothing(
    stage: LanguageStage, start: StartingWeights
) -> None:
    image = start.tokenizer().symbols.index("<image>")
    prompt = TokenizedPrompt(ids=(BOS_ID, image), image_mask=(False, False))
    batch = stage.collate([Prepared(prompt=prompt, pixels=(), target=None, caption="")])
    assert stage.weigh(batch) == 0
    loss = stage.losses(batch)["loss"]
    loss.backward()
    assert loss.item() == 0


def test_dropout_is_on(stage: LanguageStage, start: StartingWeights) -> None:
    batch = stage.collate(sequences(start, "text", count=2))
    stage.set_modes()
    assert stage.losses(batch)["loss"].item() != stage.losses(batch)["loss"].item()
    stage.eval()
    assert stage.losses(batch)["loss"].item() == stage.losses(batch)["loss"].item()


def test_without_an_image_a_blank_one_is_looked_at(
    stage: LanguageStage, start: StartingWeights
) -> None:
    """The features are those of the text; the vision tower has a gradient, which is zero."""
    stage.eval()
    stage.zero_grad()
    prompts = stage.collate(sequences(start, "text", count=2)).prompts
    assert prompts.pixels is None
    found = read_prompts(stage.kosmosg, prompts)
    assert torch.equal(found, stage.kosmosg.features(prompts))
    found.sum().backward()
    gradients = {name: p.grad for name, p in trainable(stage).items()}
    for name, gradient in gradients.items():
        assert gradient is not None, name
        assert bool(gradient.any()) != ("vision" in name or "image_to_text" in name), name


def test_the_result_is_of_stage_1(stage: LanguageStage, tmp_path: Path) -> None:
    stage.save(tmp_path / "weights")
    assert StartingWeights(directory=tmp_path / "weights").kosmosg().config.stage == "lm"
