"""What ``processes.run_task`` runs: ``python -m benchmarks.tasks NAME JSON``.

Each task imports what it needs before it starts its clock: an import is not what it measures.
The last line of the output is the report.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.measuring import synchronise
from benchmarks.processes import read_status

Report = dict[str, Any]


def open_weights(directory: str, precision: str, device: str) -> Report:
    """Open a weights directory in a given precision."""
    from kosmosg.pipeline import KosmosGPipeline

    start = time.perf_counter()
    pipeline = KosmosGPipeline.from_pretrained(
        directory, torch_dtype=getattr(torch, precision), device=device
    )
    synchronise(pipeline.kosmosg.device)
    return {"seconds": time.perf_counter() - start}


def set_up(directory: str, device: str) -> Report:
    """Do what the server does before it is ready."""
    from kosmosg.serving.service import Service

    start = time.perf_counter()
    service = Service.open(directory)
    synchronise(service.pipeline.kosmosg.device)
    assert service.pipeline.kosmosg.device.type == device
    return {"seconds": time.perf_counter() - start}


def convert_checkpoint(
    checkpoint: str, output: str, tokenizer: str, stable_diffusion: str, sizes: dict[str, Any]
) -> Report:
    """Convert a checkpoint that holds everything but the safety checker."""
    from kosmosg.checkpoints.convert import convert

    start = time.perf_counter()
    convert(
        checkpoint,
        output,
        tokenizer=tokenizer,
        stable_diffusion=stable_diffusion,
        sizes=sizes,
        safety_checker=False,
        progress=False,
    )
    return {"seconds": time.perf_counter() - start}


def first_picture(directory: str, precision: str, device: str, steps: int) -> Report:
    """Open weights and draw one picture."""
    from benchmarks.request import GUIDANCE, PICTURE, PROMPT, SAMPLER, SEED
    from kosmosg.pipeline import KosmosGPipeline
    from kosmosg.prompts.images import open_image

    pipeline = KosmosGPipeline.from_pretrained(
        directory, torch_dtype=getattr(torch, precision), device=device
    )
    pipeline(
        PROMPT,
        [open_image(PICTURE)],
        num_inference_steps=steps,
        guidance_scale=GUIDANCE,
        scheduler=SAMPLER,
        seed=SEED,
        check_safety=False,
    )
    return {"device_peak": device_peak(device)}


def first_plain_picture(directory: str, precision: str, device: str, steps: int) -> Report:
    """Do the same in plain diffusers, from embeddings that are there."""
    from diffusers import (
        AutoencoderKL,
        DPMSolverMultistepScheduler,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )

    from benchmarks.request import GUIDANCE

    dtype = getattr(torch, precision)
    parts: dict[str, Any] = {
        "unet": UNet2DConditionModel.from_pretrained(f"{directory}/unet", torch_dtype=dtype),
        "vae": AutoencoderKL.from_pretrained(f"{directory}/vae", torch_dtype=dtype),
        "scheduler": DPMSolverMultistepScheduler.from_pretrained(f"{directory}/scheduler"),
    }
    for absent in ("text_encoder", "tokenizer", "safety_checker", "feature_extractor"):
        parts[absent] = None
    plain: Any = StableDiffusionPipeline(**parts, requires_safety_checker=False).to(device)
    plain.set_progress_bar_config(disable=True)
    embeddings = torch.randn(
        2, 1, 77, parts["unet"].config.cross_attention_dim, device=device, dtype=dtype
    )
    plain(
        prompt_embeds=embeddings[0],
        negative_prompt_embeds=embeddings[1],
        num_inference_steps=steps,
        guidance_scale=GUIDANCE,
    )
    return {"device_peak": device_peak(device)}


def device_peak(device: str) -> int:
    """Bytes that tensors took of the device's memory at most; 0 on a CPU."""
    return torch.cuda.max_memory_allocated() if device == "cuda" else 0


TASKS: dict[str, Callable[..., Report]] = {
    task.__name__: task
    for task in (open_weights, set_up, convert_checkpoint, first_picture, first_plain_picture)
}


def main() -> None:
    """Run the task that the command line names and print its report."""
    name, arguments = sys.argv[1:]
    report = TASKS[name](**json.loads(arguments))
    # Linux counts from one origin for all processes, so the caller can compare.
    report["finished"] = time.perf_counter()
    report["peak"] = read_status("self", "VmHWM")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
