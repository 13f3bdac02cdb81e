"""Scores and intervals against numbers worked out by hand, and against torchmetrics and scipy."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import binomtest
from torch import Tensor, nn
from torchmetrics.functional.multimodal import clip_score
from torchmetrics.image.fid import FrechetInceptionDistance
from transformers import CLIPModel

from kosmosg.errors import EvaluationError
from kosmosg.evaluation import metrics
from kosmosg.evaluation.features import ClipExtractor
from kosmosg.evaluation.metrics import (
    FrechetDistance,
    bootstrap_mean,
    bootstrap_ratio,
    cosines,
    mean_score,
    summarise,
    wilson,
)
from kosmosg.evaluation.protocol import ImageJob
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


def job(subject: str, kind: str, text: str) -> ImageJob:
    return ImageJob(
        name=text, prompt=text, images=(), seed=0, text=text, subject=subject, kind=kind
    )


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
    real, generated = torch.tensor([[-1.0], [1.0]]), torch.tensor([[0.0], [4.0]])
    expected = 2.0**2 + (math.sqrt(2) - math.sqrt(8)) ** 2
    assert FrechetDistance(real, CPU).to(generated) == pytest.approx(expected)
    assert FrechetDistance(generated, CPU).to(generated) == pytest.approx(0, abs=1e-9)


class RandomFeatures(nn.Module):
    """A small random network from images to features."""

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
        generated = torch.randint(50, 256, (60, 3, 24, 24), dtype=torch.uint8)
        theirs = FrechetInceptionDistance(feature=network, input_img_size=(3, 24, 24))
        theirs.update(real, real=True)
        theirs.update(generated, real=False)
        distance = FrechetDistance(network(real), CPU)
        assert distance.to(network(generated)) == pytest.approx(float(theirs.compute()), rel=1e-3)


def test_the_interval_of_a_distance() -> None:
    rng = torch.Generator().manual_seed(0)
    real, generated = (torch.randn(200, 4, generator=rng) + shift for shift in (0.0, 1.0))
    distance = FrechetDistance(real, CPU)
    found = distance.estimate(generated, seed=1)
    assert found.value == distance.to(generated)
    assert found.low < found.value < found.high
    assert found.high - found.value == pytest.approx(found.value - found.low)
    assert found.samples == 200
    assert found == distance.estimate(generated, seed=1)
    fewer = distance.estimate(generated[:50], seed=1)
    assert fewer.high - fewer.low > 1.4 * (found.high - found.low)


def test_a_distance_needs_two_of_each() -> None:
    two = torch.zeros(2, 3)
    with pytest.raises(EvaluationError, match="at least 2 photographs, and there is 1"):
        FrechetDistance(two[:1], CPU)
    with pytest.raises(EvaluationError, match="at least 2 images"):
        FrechetDistance(two, CPU).to(two[:1])


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "find_spec", lambda name: None)
    with pytest.raises(
        EvaluationError, match=r"scipy and torchmetrics.* pip install -e '\.\[eval\]'"
    ):
        FrechetDistance(torch.zeros(2, 3), CPU)


def test_images_of_any_kind_are_scored(fabricated: Fabricated) -> None:
    clip = ClipExtractor(fabricated.clip, CPU)
    grey = Image.new("L", (40, 50), 128)
    assert clip([grey]).shape == (1, clip.dim)


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [
        # z = 1.96: (0.8 + 0.19207) / 1.38415 ∓ 1.96 / 1.38415 · √(0.016 + 0.0096036), and so on
        (8, 10, 0.4902, 0.9433),
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (160, 200, 0.7391, 0.8496),
    ],
)
def test_wilson(right: int, total: int, low: float, high: float) -> None:
    found = wilson(right, total)
    assert found.value == right / total
    assert found.low == pytest.approx(low, abs=1e-4)
    assert found.high == pytest.approx(high, abs=1e-4)
    assert found.samples == total
    theirs = binomtest(right, total).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=1e-7)


def test_fewer_independent_samples_are_less_sure() -> None:
    whole, images = wilson(800, 1000), wilson(800, 1000, samples=200)
    assert images == wilson(160, 200)
    assert images.low < whole.low < whole.high < images.high


def test_a_ratio_of_equals_is_one() -> None:
    counts = [(number % 3, 3) for number in range(50)]
    found = bootstrap_ratio(counts, counts)
    assert (found.value, found.low, found.high, found.samples) == (1.0, 1.0, 1.0, 50)


def test_a_ratio_of_shares() -> None:
    ours, theirs = [(1, 4), (3, 4)] * 100, [(4, 4)] * 200
    found = bootstrap_ratio(ours, theirs, seed=3)
    assert found.value == 0.5
    # The standard error of the mean of 200 numbers, each 0.25 from 0.5.
    assert found.low == pytest.approx(0.5 - 1.96 * 0.25 / math.sqrt(200), abs=4e-3)
    assert found.high == pytest.approx(0.5 + 1.96 * 0.25 / math.sqrt(200), abs=4e-3)
    assert found == bootstrap_ratio(ours, theirs, seed=3)


def test_the_same_prompts_are_compared() -> None:
    """Where both models fail on the same prompts, the ratio is surer than the shares."""
    counts = [(number % 2, 1) for number in range(100)]
    assert bootstrap_ratio(counts, counts).low == 1.0
    assert bootstrap_ratio(counts, counts[1:] + counts[:1]).low < 0.8


def test_nothing_to_compare_with() -> None:
    found = bootstrap_ratio([(1, 1)] * 5, [(0, 1)] * 5)
    assert math.isnan(found.value)
    assert math.isnan(found.low)


def test_what_has_nothing_to_compare_with_in_some_resamples() -> None:
    found = bootstrap_ratio([(1, 2), (1, 2)], [(1, 2), (0, 2)])
    assert (found.value, found.low, found.high) == (2.0, 1.0, 2.0)
    alone = bootstrap_ratio([(1, 2)], [(2, 2)])
    assert alone.value == 0.5
    assert math.isnan(alone.low)


def test_a_mean_over_clusters() -> None:
    """Clusters of other sizes: the mean is one of values, and whole clusters are resampled."""
    values, clusters = [1.0, 1.0, 1.0, 0.0], ["a", "a", "a", "b"]
    found = bootstrap_mean(values, clusters)
    assert (found.value, found.samples) == (0.75, 2)
    assert (found.low, found.high) == (0.0, 1.0)


def test_values_of_a_cluster_make_a_mean_no_surer() -> None:
    rng = np.random.default_rng(0)
    means = rng.normal(size=50)
    once = bootstrap_mean(means, [str(n) for n in range(50)])
    often = bootstrap_mean(means.repeat(20), [str(n) for n in range(50) for _ in range(20)])
    assert often.samples == once.samples == 50
    assert often.value == pytest.approx(once.value)
    assert (often.low, often.high) == pytest.approx((once.low, once.high))
    error = 1.96 * means.std() / math.sqrt(50)
    assert once.low == pytest.approx(once.value - error, abs=0.05)
    assert once.high == pytest.approx(once.value + error, abs=0.05)


def test_one_cluster_has_no_interval() -> None:
    found = bootstrap_mean([0.2, 0.4], ["a", "a"])
    assert found.value == pytest.approx(0.3)
    assert math.isnan(found.low)
    assert math.isnan(found.high)
