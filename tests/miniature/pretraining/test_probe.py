"""Training the probe: what a batch is, what is minimised, and that it can be."""

from itertools import islice
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from miniature.evaluation.probe import Probe, ProbeConfig, to_unit
from miniature.evaluation.probe_labels import ABSENT, from_labels, make_heads, true_reading
from miniature.pretraining.probe import ProbeStage, spoil
from miniature.world import World
from miniature.world.stream import RenderingStream, StreamedRendering


@pytest.fixture
def stage(art_world: World) -> ProbeStage:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return ProbeStage(
            Probe(
                ProbeConfig(heads=make_heads(art_world), channels=(8, 16, 32), further=1, hidden=32)
            )
        )


def samples(world: World, count: int) -> list[StreamedRendering]:
    return [*islice(RenderingStream(world, 1), count)]


def test_a_batch_holds_renderings_and_what_they_show(stage: ProbeStage, art_world: World) -> None:
    drawn = samples(art_world, 8)
    batch = stage.collate(drawn).to("cpu")
    assert len(batch) == 8
    assert batch.seeds == tuple(range(8))
    for row, sample in enumerate(drawn):
        reading = true_reading(sample.rendering)
        labels = batch.labels[row].clamp(min=0).tolist()
        assert from_labels(labels, stage.probe.config.heads) == reading
        assert (batch.labels[row] == ABSENT).any() == (len(reading.figures) == 1)
        image = torch.from_numpy(sample.rendering.image).permute(2, 0, 1)
        torch.testing.assert_close(batch.pixels[row], image)


def test_the_loss_sums_what_each_rendering_has_to_say(
    stage: ProbeStage, art_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("miniature.pretraining.probe.spoil", lambda pixels, seeds: pixels)
    stage.eval()
    batch = stage.collate(samples(art_world, 6))
    expected = 0.0
    for row in range(6):
        logits = stage.probe(to_unit(batch.pixels[row : row + 1]))
        for scores, label in zip(logits, batch.labels[row], strict=True):
            if label != ABSENT:
                expected += F.cross_entropy(scores, label[None]).item()
    assert stage.losses(batch)["loss"].item() == pytest.approx(expected / 6, rel=1e-4)


def test_parts_of_a_batch_add_up_to_it(stage: ProbeStage, art_world: World) -> None:
    stage.eval()
    drawn = samples(art_world, 6)
    whole, *parts = (stage.collate(some) for some in (drawn, drawn[:2], drawn[2:]))
    losses = [stage(part)["loss"] * stage.weigh(part) for part in parts]
    torch.testing.assert_close(sum(losses) / 6, stage(whole)["loss"], rtol=1e-4, atol=1e-5)


def test_renderings_are_spoilt_by_their_own_seeds_and_not_much(art_world: World) -> None:
    pixels = to_unit(
        torch.stack([torch.from_numpy(s.rendering.image) for s in samples(art_world, 5)])
    )
    pixels = pixels.permute(0, 3, 1, 2).contiguous()
    spoilt = spoil(pixels, range(5))
    assert spoilt.shape == pixels.shape
    torch.testing.assert_close(spoil(pixels[2:3], [2]), spoilt[2:3])
    differences = (spoilt - pixels).abs().mean(dim=(1, 2, 3))
    assert (differences > 1e-3).all()
    assert (differences < 0.2).all()
    assert not torch.equal(spoil(pixels[2:3], [3]), spoilt[2:3])


def test_a_few_renderings_can_be_learned_by_heart(
    stage: ProbeStage, art_world: World, tmp_path: Path
) -> None:
    drawn = samples(art_world, 6)
    batch = stage.collate(drawn)
    optimizer = torch.optim.AdamW(stage.parameters(), lr=2e-3)
    stage.set_modes()
    assert stage.probe.training
    first = stage(batch)["loss"].item()
    for _ in range(150):
        loss = stage(batch)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss.item() < first / 20
    stage.save(tmp_path / "probe")
    probe = Probe.from_pretrained(tmp_path / "probe")
    images = [Image.fromarray(sample.rendering.image) for sample in drawn]
    found = probe.read(images)  # of the images as they were before they were spoilt
    assert sum(a == true_reading(b.rendering) for a, b in zip(found, drawn, strict=True)) >= 5
