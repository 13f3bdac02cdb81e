"""Variants draw the same picture and leave the decoder that they are made from as it is."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0

from benchmarks.arithmetic import count_operations, matrix_rate
from benchmarks.measuring import psnr_of_pictures
from benchmarks.variants import make_variant
from kosmosg.checkpoints.stable_diffusion import (
    SD15_SCHEDULER,
    StableDiffusionSource,
    make_decoder,
    make_pndm,
)
from kosmosg.pipeline import KosmosGPipeline


@pytest.fixture(scope="module")
def decoder(tiny_weights: Path) -> Any:
    return KosmosGPipeline.from_pretrained(tiny_weights, device="cpu").decoder


def picture(decoder: Any) -> Any:
    width = decoder.unet.config.cross_attention_dim
    generator = torch.Generator().manual_seed(0)
    return decoder(
        prompt_embeds=torch.randn(1, 77, width, generator=generator),
        negative_prompt_embeds=torch.randn(1, 77, width, generator=generator),
        generator=generator,
        num_inference_steps=3,
    ).images[0]


@pytest.mark.parametrize("name", ["attention", "channels-last"])
def test_a_variant_draws_the_same(decoder: Any, name: str) -> None:
    before = copy.deepcopy(decoder.unet.state_dict())
    variant = make_variant(decoder, name)
    assert psnr_of_pictures(picture(variant), picture(decoder)) > 50
    processors = set(map(type, variant.unet.attn_processors.values()))
    assert processors == {AttnProcessor if name == "attention" else AttnProcessor2_0}
    last = variant.unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    assert last == (name == "channels-last")
    assert set(map(type, decoder.unet.attn_processors.values())) == {AttnProcessor2_0}
    for key, tensor in decoder.unet.state_dict().items():
        assert torch.equal(tensor, before[key])
        assert tensor.is_contiguous()


def test_operations_of_the_full_size() -> None:
    """One guided step is 1.607e12, a decode 2.51e12, a picture of 50 steps 82.8e12."""
    source = StableDiffusionSource(location="none: sizes of Stable Diffusion v1.5")
    full = make_decoder(source.empty("unet"), source.empty("vae"), make_pndm(SD15_SCHEDULER))
    decode, picture = (count_operations(full, steps) for steps in (0, 50))
    assert (picture - decode) / 50 == pytest.approx(1.607e12, rel=1e-3)
    assert decode == pytest.approx(2.51e12, rel=3e-3)
    assert picture == pytest.approx(82.8e12, rel=1e-3)


def test_the_rate_of_matrix_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.arithmetic.SIDES", {"cpu": 64})
    rate = matrix_rate(torch.device("cpu"), "float32")()
    assert 1e-6 < rate < 1e3
