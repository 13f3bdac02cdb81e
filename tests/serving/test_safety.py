"""The safety checker: some images flagged, or all."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kosmosg.errors import PromptError, UnsafeImageError
from kosmosg.serving.service import Service
from tests import tiny
from tests.serving.client import Server


@pytest.fixture(scope="module")
def strict_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights whose safety checker flags everything."""
    directory = tmp_path_factory.mktemp("strict") / "weights"
    checker = tiny.make_safety_checker(flag_all=True)
    return tiny.write_weights(directory, scale=8, safety_checker=checker)


def test_all_flagged(strict_weights: Path, tmp_path: Path) -> None:
    with Server(strict_weights, tmp_path) as server:
        response = server.post({"input": {"prompt": "a cat", "num_inference_steps": 1}})
        answer = response.json()
        assert answer["status"] == "failed"
        assert "safety checker flagged every image" in answer["error"]
        assert "Try another seed or prompt" in answer["error"]
        assert "output" not in answer
        assert not server.leftovers()
        assert server.generate(num_images=2, disable_safety_checker=True).shape == (2, 64, 64, 3)


class Checker:
    """Gives the verdicts that it is told to."""

    dtype, device = torch.float32, torch.device("cpu")

    def __init__(self, *verdicts: bool):
        self.verdicts = list(verdicts)
        self.asked = 0

    def __call__(self, images: np.ndarray, clip_input: torch.Tensor) -> tuple[Any, list[bool]]:
        self.asked += 1
        assert len(images) == len(clip_input) == len(self.verdicts)
        return images, self.verdicts


INPUTS: dict[str, Any] = {
    "prompt": "a cat",
    "negative_prompt": "",
    "text_guidance_scale": 6.0,
    "num_inference_steps": 1,
    "num_images": 3,
    "width": 64,
    "height": 64,
    "scheduler": "DDIM",
    "seed": 40,
    "output_format": "png",
    "output_quality": 90,
    "disable_safety_checker": False,
    "metric": lambda name, value: None,
}


def generate(service: Service, **changes: Any) -> list[Path]:
    inputs: Any = INPUTS | changes
    return service.run([], **inputs)


@pytest.fixture(scope="module")
def service(weights: Path) -> Iterator[Service]:
    opened = Service.open(weights)
    yield opened
    with suppress(PromptError):  # even a refused request removes the files of the one before
        generate(opened, prompt="")


def run(service: Service, *verdicts: bool, **changes: Any) -> tuple[list[Path], dict[str, float]]:
    metrics: dict[str, float] = {}
    pipeline: Any = service.pipeline
    pipeline.safety_checker = Checker(*verdicts)
    pipeline.feature_extractor = tiny.make_safety_checker()["feature_extractor"]
    changes["metric"] = metrics.__setitem__
    return generate(service, **changes), metrics


def test_some_flagged(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    """The others come back under their own seeds, and the log says what is missing."""
    files, metrics = run(service, False, True, False)
    assert [file.name for file in files] == ["0-seed-40.png", "2-seed-42.png"]
    assert all(file.is_file() for file in files)
    assert metrics["image_output_count"] == 2
    lines = [line for line in capsys.readouterr().out.splitlines() if "flagged" in line]
    assert len(lines) == 1
    assert "seed 41" in lines[0]


def test_every_one_flagged(service: Service) -> None:
    files, _ = run(service, False, False, False)
    with pytest.raises(UnsafeImageError, match="every image"):
        run(service, True, True, True)
    assert not any(file.exists() for file in files)  # those of the request before


def test_checker_is_not_asked(service: Service) -> None:
    files, _ = run(service, True, True, True, disable_safety_checker=True)
    assert len(files) == 3
    checker: Any = service.pipeline.safety_checker
    assert checker.asked == 0


def test_no_checker(service: Service) -> None:
    """Small weights may come without one."""
    service.pipeline.safety_checker = None
    assert len(generate(service)) == 3
