"""The probe as a network: files, sizes, batches. How well it reads is measured by its training."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from kosmosg.errors import WeightsError
from miniature.evaluation.probe import BATCH, Probe, ProbeConfig
from miniature.evaluation.probe_labels import make_heads
from miniature.world import World
from miniature.world.stream import RenderingStream


def small(world: World) -> ProbeConfig:
    return ProbeConfig(heads=make_heads(world), channels=(8, 16), further=1, hidden=16)


def make_probe(world: World) -> Probe:
    """Build a random probe that says something else of every image."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        probe = Probe(small(world))
    for parameter in probe.parameters():
        parameter.data = parameter.data * 4
    return probe.eval()


def renderings(world: World, count: int) -> list[Image.Image]:
    stream = RenderingStream(world, 0)
    return [Image.fromarray(next(stream).rendering.image) for _ in range(count)]


def test_there_are_logits_for_every_head(world: World) -> None:
    logits = make_probe(world)(torch.zeros(2, 3, 128, 128))
    assert [part.shape for part in logits] == [
        (2, len(names)) for names in make_heads(world).values()
    ]


def test_the_default_is_small(world: World) -> None:
    probe = Probe(ProbeConfig(heads=make_heads(world)))
    assert 400_000 < sum(p.numel() for p in probe.parameters()) < 800_000


def test_a_saved_probe_reads_the_same(world: World, tmp_path: Path) -> None:
    probe, images = make_probe(world), renderings(world, 12)
    probe.save_pretrained(tmp_path / "probe")
    again = Probe.from_pretrained(tmp_path / "probe")
    assert again.config == small(world)
    assert not again.training
    assert again.read(images) == probe.read(images)
    assert len(set(map(str, probe.read(images)))) > 1
    assert {path.name for path in (tmp_path / "probe").iterdir()} == {
        "config.json",
        "model.safetensors",
    }


def test_reading_does_not_depend_on_batches_modes_or_formats(world: World) -> None:
    probe, images = make_probe(world), renderings(world, 6)
    expected = probe.read(images)
    assert [probe.read([image])[0] for image in images] == expected
    assert probe.read(images * (BATCH // 6 + 2))[-6:] == expected
    assert probe.train().read(images) == expected
    assert probe.training
    assert probe.read([image.convert("RGBA") for image in images]) == expected
    assert probe.read([]) == []


def test_larger_renderings_are_scaled(world: World) -> None:
    probe, images = make_probe(world), renderings(world, 1)
    assert len(probe.read([images[0].resize((192, 256))])) == 1


def test_a_missing_or_foreign_probe(world: World, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"config\.json is missing"):
        Probe.from_pretrained(tmp_path / "none")
    make_probe(world).save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    sizes = json.loads(config.read_text())
    for change in ({"hidden": 24}, {"channels": [8, 24]}):
        config.write_text(json.dumps(sizes | change))
        with pytest.raises(WeightsError, match="cannot be loaded"):
            Probe.from_pretrained(tmp_path)
    for broken in (
        sizes | {"hidden": "many"},
        sizes | {"more": 1},
        {"hidden": 16},
        sizes | {"heads": 3},
    ):
        config.write_text(json.dumps(broken))
        with pytest.raises(WeightsError, match="is not of a probe"):
            Probe.from_pretrained(tmp_path)
    config.write_text("[1]")
    with pytest.raises(WeightsError, match="no settings"):
        Probe.from_pretrained(tmp_path)
