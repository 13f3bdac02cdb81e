"""A compiled decoder: the same images, nothing compiled in a request, no compiler no harm."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch._dynamo.utils import counters

from kosmosg.serving import service
from kosmosg.serving.service import COMPILE, Service
from tests import tiny
from tests.diffusion import loras

pytestmark = pytest.mark.slow

INPUTS: dict[str, Any] = {
    "prompt": "a cat",
    "negative_prompt": "",
    "text_guidance_scale": 6.0,
    "num_inference_steps": 2,
    "num_images": 1,
    "width": None,
    "height": None,
    "scheduler": "DDIM",
    "seed": 40,
    "output_format": "png",
    "output_quality": 90,
    "disable_safety_checker": True,
    "metric": lambda name, value: None,
}


@pytest.fixture(scope="module")
def own_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_weights(tmp_path_factory.mktemp("compiling") / "weights", scale=8)


@pytest.fixture(scope="module")
def compiled(own_weights: Path) -> Iterator[Service]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(COMPILE, "1")
        environment.setattr(service, "WARMED", (1,))  # each number takes as long as all the rest
        yield Service.open(own_weights)


@pytest.fixture(scope="module")
def plain(own_weights: Path) -> Service:
    return Service.open(own_weights)


def generate(opened: Service, **changes: Any) -> np.ndarray:
    files = opened.run([], **INPUTS | changes)
    pixels = np.stack([np.asarray(Image.open(file)) for file in files]).astype(int)
    opened._discard_outputs()
    return pixels


@pytest.fixture
def style(compiled: Service, tmp_path: Path) -> Path:
    factors = loras.make_factors(compiled.pipeline.unet)
    return loras.write(tmp_path / "style.safetensors", loras.peft(factors))


def test_the_default_size_runs_compiled(compiled: Service, plain: Service) -> None:
    blocks = [m for m in compiled.pipeline.unet.modules() if m._compiled_call_impl is not None]
    assert {type(block).__name__ for block in blocks} == {"BasicTransformerBlock"}
    assert compiled.pipeline.vae.decoder._compiled_call_impl is not None
    assert counters["stats"]["unique_graphs"] > 0
    assert abs(generate(compiled) - generate(plain)).max() <= 2


@pytest.mark.parametrize(
    "changes",
    [
        {"width": 72},
        {"num_images": 3},
        {"text_guidance_scale": 1.0},
        {"guidance_end": 0.5},
        {"lora": True},
    ],
)
def test_no_request_compiles(
    compiled: Service, plain: Service, style: Path, changes: dict[str, Any]
) -> None:
    if changes.pop("lora", False):
        changes = {"lora_weights": style}
    before = counters["stats"]["unique_graphs"]
    found = generate(compiled, **changes)
    assert abs(found - generate(plain, **changes)).max() <= 2
    generate(compiled)
    assert counters["stats"]["unique_graphs"] == before


def test_without_a_compiler_it_draws_all_the_same(own_weights: Path, tmp_path: Path) -> None:
    code = (
        "import logging; logging.basicConfig()\n"
        "from tests.serving.test_compiling import generate\n"
        "from kosmosg.serving.service import Service\n"
        f"print('pixels', generate(Service.open({str(own_weights)!r})).size)\n"
    )
    environment = os.environ | {
        COMPILE: "1",
        "CXX": str(tmp_path / "no-such-compiler"),
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache"),
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"pixels {64 * 64 * 3}" in done.stdout
    warnings = [line for line in done.stderr.splitlines() if line.startswith("WARNING")]
    assert len(warnings) == 1
    assert f"{COMPILE}=1: the decoder could not be compiled" in warnings[0]
    assert "A C++ compiler (g++) is needed" in warnings[0]
