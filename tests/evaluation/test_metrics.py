"""Scores against numbers worked out by hand, and against torchmetrics' own."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchmetrics.functional.multimodal import clip_score
from torchmetrics.image.fid import FrechetInceptionDistance
from transformers import CLIPModel

from kosmosg.errors import EvaluationError
from kosmosg.evaluation import metrics
from kosmosg.evaluation.evaluator import Job
from kosmosg.evaluation.features import ClipExtractor
from kosmosg.evaluation.metrics import FrechetDistance, cosines, mean_score, summarise
from tests.evaluation.fabricated import Fabricated, photograph

CPU = torch.device("cpu")


def test_cosines() -> None:
    features = torch.tensor([[1.0, 0.0], [3.0, 4.0], [-2.0, 0.0], [5.0, 5.0]])
    others = torch.tensor([[1.0, 1.0], [30.0, 40.0], [7.0, 0.0], [-1.0, 1.0]])
    assert cosines(features, others) == pytest.approx([math.sqrt(0.5), 1.0, -1.0, 0.0])


def test_the_mean_alone_is_kept_from_falling_below_zero() -> None:
    mean = mean_score(np.array([-0.5, 0.5, 0.3]), ["a", "b", "c"])
    assert mean.value == pytest.approx(0.1)
    assert mean.low == 0.0
    assert mean.high > 0.1
    below = mean_score(np.array([-0.2, -0.1]), ["a", "b"])
    assert (below.value, below.low, below.high) == (0.0, 0.0, 0.0)


def job(subject: str, kind: str, text: str) -> Job:
    return Job(name=text, prompt=text, images=(), seed=0, text=text, subject=subject, kind=kind)


def test_a_summary_of_subjects_and_kinds() -> None:
    jobs = [
        job("cat", "scene", "a cat in the snow"),
        job("cat", "scene", "a cat in the snow"),
        job("cat", "colour", "a red cat"),
        job("can", "scene", "a can in the snow"),
        job("can", "colour", "a red can"),
    ]
    scores = {"DINO": np.array([0.1, 0.3, 0.5, 0.6, 1.0]), "CLIP-T": np.zeros(5)}
    found = dict(summarise(scores, jobs))
    assert {name: each.value for name, each in found.items() if name.startswith("DINO")} == {
        "DINO": pytest.approx(0.5),
        "DINO/kind/scene": pytest.approx(1 / 3),
        "DINO/kind/colour": pytest.approx(0.75),
        "DINO/subject/cat": pytest.approx(0.3),
        "DINO/subject/can": pytest.approx(0.8),
    }
    assert found["DINO"].samples == 2  # subjects
    assert (found["DINO"].low, found["DINO"].high) == pytest.approx((0.3, 0.8))
    assert found["DINO/subject/cat"].samples == 2  # prompts
    assert {each.value for name, each in found.items() if name.startswith("CLIP-T")} == {0.0}


class WithTensors(nn.Module):
    """CLIP as torchmetrics knows it: its methods give tensors, not outputs that hold them."""

    def __init__(self, network: CLIPModel):
        super().__init__()
        self.network = network
        self.config = network.config

    def get_image_features(self, pixels: Tensor) -> Tensor:
        output: Any = self.network.get_image_features(pixels)
        return output.pooler_output

    def get_text_features(self, tokens: Tensor, mask: Tensor) -> Tensor:
        output: Any = self.network.get_text_features(tokens, mask)
        return output.pooler_output


def test_clip_scores_are_those_of_torchmetrics(fabricated: Fabricated) -> None:
    clip = ClipExtractor(fabricated.clip, CPU)
    sizes = [(64, 64), (80, 64), (50, 90), (64, 64)]
    images = [photograph(n, size) for n, size in enumerate(sizes)]
    texts = ["a dog", "a red cat in the snow", "a vase", "a can wearing pink glasses"]

    def model_and_processor() -> Any:
        def process(text: Any = None, images: Any = None, **options: Any) -> Any:
            if text is not None:
                return clip.tokenizer(text, **options)
            return clip.processor(images=images, return_tensors="pt")

        return WithTensors(clip.network), process

    tensors: list[Tensor] = [torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in images]
    others = tensors[1:] + tensors[:1]
    features = clip(images)
    for target, found in (
        (texts, cosines(features, clip.texts(texts))),
        (others, cosines(features, features.roll(-1, dims=0))),
    ):
        theirs = clip_score(tensors, target, model_and_processor)  # type: ignore[arg-type]
        assert 100 * max(found.mean(), 0.0) == pytest.approx(float(theirs), abs=1e-3)
        assert found.std() > 0.01


def test_a_distance_by_hand() -> None:
    """Of normal distributions on a line: squared differences of means and of deviations."""
    real, drawn = torch.tensor([[-1.0], [1.0]]), torch.tensor([[0.0], [4.0]])
    expected = 2.0**2 + (math.sqrt(2) - math.sqrt(8)) ** 2
    assert FrechetDistance(real, CPU).to(drawn) == pytest.approx(expected)
    assert FrechetDistance(drawn, CPU).to(drawn) == pytest.approx(0, abs=1e-9)


class RandomFeatures(nn.Module):
    """A small random network from pictures to features."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 12, 5, stride=3)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.convolution(pixels.float() / 255).relu().mean(dim=(2, 3))


def test_distances_are_those_of_torchmetrics() -> None:
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(0)
        network = RandomFeatures()
        real = torch.randint(0, 200, (70, 3, 24, 24), dtype=torch.uint8)
        drawn = torch.randint(50, 256, (60, 3, 24, 24), dtype=torch.uint8)
        theirs = FrechetInceptionDistance(feature=network, input_img_size=(3, 24, 24))
        theirs.update(real, real=True)
        theirs.update(drawn, real=False)
        distance = FrechetDistance(network(real), CPU)
        assert distance.to(network(drawn)) == pytest.approx(float(theirs.compute()), rel=1e-3)


def test_the_interval_of_a_distance() -> None:
    rng = torch.Generator().manual_seed(0)
    real, drawn = (torch.randn(200, 4, generator=rng) + shift for shift in (0.0, 1.0))
    distance = FrechetDistance(real, CPU)
    found = distance.estimate(drawn, seed=1)
    assert found.value == distance.to(drawn)
    assert found.low < found.value < found.high
    assert found.high - found.value == pytest.approx(found.value - found.low)
    assert found.samples == 200
    assert found == distance.estimate(drawn, seed=1)
    fewer = distance.estimate(drawn[:50], seed=1)
    assert fewer.high - fewer.low > 1.4 * (found.high - found.low)


def test_a_distance_needs_two_of_each() -> None:
    two = torch.zeros(2, 3)
    with pytest.raises(EvaluationError, match="at least 2 photographs, and there is 1"):
        FrechetDistance(two[:1], CPU)
    with pytest.raises(EvaluationError, match="at least 2 pictures"):
        FrechetDistance(two, CPU).to(two[:1])


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "find_spec", lambda name: None)
    with pytest.raises(EvaluationError, match=r"pip install -e '\.\[eval\]'"):
        FrechetDistance(torch.zeros(2, 3), CPU)


def test_pictures_of_any_kind_are_scored(fabricated: Fabricated) -> None:
    clip = ClipExtractor(fabricated.clip, CPU)
    grey = Image.new("L", (40, 50), 128)
    assert clip([grey]).shape == (1, clip.dim)
