"""The contrastive loss by hand."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import CLIPModel

from kosmosg.checkpoints.stable_diffusion import encode_captions, load_clip_tokenizer
from kosmosg.training.data import image_preparer
from kosmosg.training.stage import trainable
from kosmosg.training.stages.common import with_seed
from miniature.pretraining.clip import MAX_LOGIT_SCALE, ClipStage, begin_with_sines
from tests.training.stages.examples import data
from tests.training.world import World


@pytest.fixture(scope="module")
def stage(world: World) -> ClipStage:
    folder = world.folder / "clip" / "weights"
    clip: Any = CLIPModel.from_pretrained(folder / "clip")
    return ClipStage(clip, load_clip_tokenizer(folder / "clip_tokenizer"))


@pytest.fixture(scope="module")
def batch(stage: ClipStage, world: World) -> Any:
    prepare = with_seed(image_preparer(image_size=32))
    stream = data(world.folder, "images").mixture(prepare, 0, 1)
    return stage.collate([next(stream) for _ in range(6)])


def test_loss_by_hand(stage: ClipStage, batch: Any) -> None:
    found = stage.losses(batch)
    clip: Any = stage.clip
    images = clip.visual_projection(clip.vision_model(batch.pixels).pooler_output)
    texts = clip.text_projection(clip.text_model(batch.ids, batch.attended).pooler_output)
    images, texts = (x / x.norm(dim=1, keepdim=True) for x in (images, texts))
    logits = clip.logit_scale.exp() * images @ texts.T
    rows = [-logits.log_softmax(1)[n, n] for n in range(6)]
    columns = [-logits.log_softmax(0)[n, n] for n in range(6)]
    wanted = (torch.stack(rows).mean() + torch.stack(columns).mean()) / 2
    torch.testing.assert_close(found["contrast"], wanted, atol=1e-5, rtol=0)
    torch.testing.assert_close(found["loss"], wanted + 0.2 * found["words"], atol=1e-5, rtol=0)
    right = sum(int(logits[n].argmax()) == n for n in range(6))
    assert found["right"].item() == pytest.approx(right / 6)


def test_loss_of_words_by_hand(stage: ClipStage, batch: Any) -> None:
    clip: Any = stage.clip
    states = clip.vision_model(batch.pixels).last_hidden_state[:, 1:]
    mean, std = states.mean(-1, keepdim=True), states.var(-1, correction=0, keepdim=True).sqrt()
    logits = stage.words((states - mean) / std).exp().sum(1).log()
    wanted = torch.zeros(())
    for row, ids in zip(logits, batch.ids, strict=True):
        for word, logit in enumerate(row):
            there = word in ids.tolist()
            wanted = wanted - torch.nn.functional.logsigmoid(logit if there else -logit)
    torch.testing.assert_close(stage.losses(batch)["words"], wanted / 6, rtol=1e-3, atol=1e-3)


def test_the_layer_of_words_is_thrown_away(stage: ClipStage, tmp_path: Path) -> None:
    stage.save(tmp_path)
    names = load_file(tmp_path / "clip" / "model.safetensors").keys()
    assert not any("words" in name for name in names)


def test_positions_begin_with_sines(world: World) -> None:
    clip: Any = CLIPModel.from_pretrained(world.folder / "clip" / "weights" / "clip")
    begin_with_sines(clip)
    weight = clip.vision_model.embeddings.position_embedding.weight
    assert weight.requires_grad
    assert not weight[0].any()
    places = weight[1:].detach().view(2, 2, 4, -1)  # rows, columns; sine and cosine of each
    assert torch.equal(places[:, 0, :2], places[:, 1, :2])
    assert torch.equal(places[0, :, 2:], places[1, :, 2:])
    torch.testing.assert_close(places[1, 0, 0, 0], 0.5 * torch.sin(torch.tensor(2.0)))
    torch.testing.assert_close(places[0, 1, 3, 0], 0.5 * torch.cos(torch.tensor(2.0)))


def test_everything_is_trained_and_the_scale_is_bounded(stage: ClipStage, batch: Any) -> None:
    assert len(trainable(stage)) == len(list(stage.parameters()))
    with torch.no_grad():
        stage.clip.logit_scale.fill_(9.0)
    stage.losses(batch)["loss"].backward()
    assert stage.clip.logit_scale.item() == pytest.approx(MAX_LOGIT_SCALE)
    assert all(parameter.grad is not None for parameter in stage.parameters())


def test_captions_are_padded_and_cut(stage: ClipStage) -> None:
    tokenizer = stage._tokenizer
    ids, attended = encode_captions(tokenizer, ["a red fox", "a fox " * 50])
    assert ids.shape == attended.shape == (2, 32)
    assert attended.sum(1).tolist() == [5, 32]
    assert ids[:, 0].tolist() == [tokenizer.bos_token_id] * 2
    assert ids[0, 4] == ids[1, 31] == tokenizer.eos_token_id
