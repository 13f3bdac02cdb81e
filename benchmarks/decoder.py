"""Other ways to run the decoder, several images at once, and the share of the arithmetic used."""

import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.inference import (
    PLAIN,
    Inference,
    generate,
    generate_plainly,
    plain_pipeline,
    ready_inputs,
)
from benchmarks.measuring import Row, take_turns
from kosmosg import KosmosGPipeline
from kosmosg.checkpoints.stable_diffusion import make_decoder
from kosmosg.diffusion.compiling import compile_decoder
from kosmosg.diffusion.settings import DEFAULT_STEPS

REGIONS = "repeated blocks and VAE decoder compiled, channels-last"
MODES = {"torch.compile": "default", "CUDA graphs": "reduce-overhead", "autotuning": "max-autotune"}
WORTH_COMPILING = 256  # pixels
MATRIX = {"cuda": 8192, "cpu": 2048}  # sides that keep a device busy, and no longer than needed


def measure_decoder(bench: Inference) -> Iterator[Row]:
    """Compare other ways to run the same U-Net and VAE decoder with plain diffusers."""
    precision = str(bench.fast).removeprefix("torch.")
    pipeline = bench.pipeline(bench.fast)
    plain, inputs = plain_pipeline(pipeline), ready_inputs(pipeline)
    plainer = ("attention written out", "channels-last U-Net and VAE decoder")
    for title in (*plainer, REGIONS, *MODES):
        if title in MODES and not bench.on_gpu:
            yield Row(title=title, baseline=PLAIN, missing="no CUDA device")
            continue
        if title == REGIONS and not bench.on_gpu and pipeline.default_size < WORTH_COMPILING:
            missing = "compiling takes a minute, an image of this size milliseconds"
            yield Row(title=title, baseline=PLAIN, missing=missing)
            continue
        variant = change_decoder(plain, title)
        trials = {
            "plain": partial(generate_plainly, bench, plain, inputs),
            "variant": partial(generate_plainly, bench, variant, inputs),
        }
        first = trials["variant"]().seconds
        found = take_turns(trials, bench.rounds)
        note = (
            f"{precision}, first image after {first:.0f} s"
            if title in (REGIONS, *MODES)
            else precision
        )
        yield bench.compare(title, PLAIN, found["variant"], found["plain"], note)


def change_decoder(plain: StableDiffusionPipeline, title: str) -> StableDiffusionPipeline:
    """Copy the networks and change how they are run; the original stays as it is."""
    unet, vae = copy.deepcopy(plain.unet), copy.deepcopy(plain.vae)
    if title == "attention written out":
        for network in (unet, vae):
            network.set_attn_processor(AttnProcessor())
    else:
        unet.to(memory_format=torch.channels_last)
        vae.decoder.to(memory_format=torch.channels_last)
    if title == REGIONS:
        compile_decoder(unet, vae)
    if title in MODES:
        # Each batch size is compiled for itself: guessing at others would cost speed.
        unet.compile(mode=MODES[title], dynamic=False)
        vae.decoder.compile(mode=MODES[title], dynamic=False)
    scheduler: Any = plain.scheduler
    return make_decoder(unet, vae, type(scheduler).from_config(scheduler.config))


def measure_throughput(bench: Inference) -> Iterator[Row]:
    """Several images at once, and the share of the device's arithmetic that an image uses."""
    pipeline = bench.pipeline(bench.fast)
    side = MATRIX[bench.device.type]
    # Random values: with zeros a device may run faster than it ever will in earnest.
    a, b = (torch.randn(side, side, device=bench.device).to(bench.fast) for _ in range(2))
    product = Timer("torch.mm(a, b)", globals={"torch": torch, "a": a, "b": b})
    counts = (1, 4, 8) if bench.on_gpu else (1,)
    trials: dict[str, Callable[[], float]] = {
        str(count): partial(_per_image, bench, pipeline, count) for count in counts
    }
    trials["peak"] = lambda: 2 * side**3 / product.timeit(20).mean / 1e12
    found = take_turns(trials, bench.rounds)
    operations = count_operations(pipeline, DEFAULT_STEPS)
    for count in (1, 4, 8):
        title = f"seconds per image at num_images={count}"
        if count not in counts:
            yield Row(title=title, baseline="at num_images=1", missing="no CUDA device")
        elif count > 1:
            values, single = tuple(found[str(count)]), tuple(found["1"])
            yield Row(title=title, baseline="at num_images=1", values=values, baselines=single)
        if count in counts:
            yield Row(
                title=f"arithmetic rate of {count} image{'s' * (count > 1)} at once",
                baseline="measured peak of matrix products in that precision",
                values=tuple(operations / seconds / 1e12 for seconds in found[str(count)]),
                baselines=tuple(found["peak"]),
                unit="TFLOP/s",
                note=f"{operations / 1e12:.3g} TFLOP an image",
            )


def _per_image(bench: Inference, pipeline: KosmosGPipeline, count: int) -> float:
    return generate(bench, pipeline, count).seconds / count


def count_operations(pipeline: KosmosGPipeline, steps: int) -> float:
    """Count the operations of a guided image: products and convolutions, each addition too.

    At full size a guided step takes 1.607e12, the VAE decoder 2.515e12, 50 steps 82.8e12.
    """
    config: Any = pipeline.unet.config
    with torch.device("meta"), torch.no_grad():
        unet: Any = UNet2DConditionModel.from_config(config)
        vae: Any = AutoencoderKL.from_config(pipeline.vae.config)
        shape = (config.in_channels, config.sample_size, config.sample_size)
        condition = torch.empty(2, 77, config.cross_attention_dim)
        with FlopCounterMode(display=False) as step:
            unet(torch.empty(2, *shape), torch.empty(()), condition)
        with FlopCounterMode(display=False) as decoding:
            vae.decode(torch.empty(1, *shape))
    return steps * step.get_total_flops() + decoding.get_total_flops()
