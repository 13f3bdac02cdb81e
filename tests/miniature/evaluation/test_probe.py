"""The probe as a network: files, sizes, batches. How well it reads is measured by its training."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from kosmosg.errors import WeightsError
from miniature.evaluation.probe import BATCH, Probe, ProbeConfig
from miniature.evaluation.probe_labels import HEADS
from miniature.world.stream import RenderingStream

SMALL = ProbeConfig(channels=(8, 16), further=1, hidden=16)


def make_probe() -> Probe:
    """Build a random probe that says something else of every image."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        probe = Probe(SMALL)
    for parameter in probe.parameters():
        parameter.data = parameter.data * 4
    return probe.eval()


def renderings(count: int) -> list[Image.Image]:
    stream = RenderingStream(0)
    return [Image.fromarray(next(stream).rendering.image) for _ in range(count)]


def test_there_are_logits_for_every_head() -> None:
    logits = make_probe()(torch.zeros(2, 3, 64, 64))
    assert [part.shape for part in logits] == [(2, len(names)) for names in HEADS.values()]


def test_the_default_is_small() -> None:
    assert 250_000 < sum(p.numel() for p in Probe().parameters()) < 500_000


def test_a_saved_probe_reads_the_same(tmp_path: Path) -> None:
    probe, images = make_probe(), renderings(12)
    probe.save_pretrained(tmp_path / "probe")
    again = Probe.from_pretrained(tmp_path / "probe")
    assert again.config == SMALL
    assert not again.training
    assert again.read(images) == probe.read(images)
    assert len(set(map(str, probe.read(images)))) > 1
    assert {path.name for path in (tmp_path / "probe").iterdir()} == {
        "config.json",
        "model.safetensors",
    }


def test_reading_does_not_depend_on_batches_modes_or_formats() -> None:
    probe, images = make_probe(), renderings(6)
    expected = probe.read(images)
    assert [probe.read([image])[0] for image in images] == expected
    assert probe.read(images * (BATCH // 6 + 2))[-6:] == expected
    assert probe.train().read(images) == expected
    assert probe.training
    assert probe.read([image.convert("RGBA") for image in images]) == expected
    assert probe.read([]) == []


def test_larger_renderings_are_scaled() -> None:
    probe, images = make_probe(), renderings(1)
    assert len(probe.read([images[0].resize((96, 128))])) == 1


def test_a_missing_or_foreign_probe(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"config\.json is missing"):
        Probe.from_pretrained(tmp_path / "none")
    make_probe().save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    sizes = json.loads(config.read_text())
    for change in ({"hidden": 24}, {"channels": [8, 24]}):
        config.write_text(json.dumps(sizes | change))
        with pytest.raises(WeightsError, match="cannot be loaded"):
            Probe.from_pretrained(tmp_path)
    for broken in (sizes | {"hidden": "many"}, sizes | {"more": 1}, {"hidden": 16}):
        config.write_text(json.dumps(broken))
        with pytest.raises(WeightsError, match="is not of a probe"):
            Probe.from_pretrained(tmp_path)
    config.write_text("[1]")
    with pytest.raises(WeightsError, match="no settings"):
        Probe.from_pretrained(tmp_path)
