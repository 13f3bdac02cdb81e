"""A prediction request: files and numbers in, image files out.

This is everything between the Cog surface (``predict.py``) and the pipeline that does not need
Cog: what the log says, where the outputs lie and when they go.
"""

import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from kosmosg.checkpoints.folder import find_weights
from kosmosg.diffusion.compiling import (
    compile_decoder,
    compiling,
    forget_compiled,
    not_compiling,
)
from kosmosg.diffusion.output import KosmosGOutput
from kosmosg.diffusion.request import GenerationRequest
from kosmosg.diffusion.sampling import Progress, Watch
from kosmosg.errors import SettingError, UnsafeImageError, WeightsError
from kosmosg.models.config import DTYPES
from kosmosg.pipeline import KosmosGPipeline
from kosmosg.serving.inputs import read_request
from kosmosg.serving.metadata import save_image
from kosmosg.utils.checks import check_integer
from kosmosg.utils.devices import choose_device
from kosmosg.utils.memory import reporting_out_of_memory

logger = logging.getLogger(__name__)

ALLOW_NO_CHECKER = "KOSMOSG_ALLOW_NO_SAFETY_CHECKER"
DTYPE = "KOSMOSG_DTYPE"
COMPILE = "KOSMOSG_COMPILE"
OFFLOAD = "KOSMOSG_OFFLOAD"
WARMED = (4, 1)  # images of a request: as many as predict.py draws by default, and one
LARGEST_SIDE = 1024  # pixels: the bound of width and height in predict.py
FULL_SIZE_PIXELS = 256  # a decoder trained on larger images draws what a checker should see

Metric = Callable[[str, float], Any]


class Service:
    """A loaded pipeline and the outputs of its last request."""

    def __init__(self, pipeline: KosmosGPipeline):
        self.pipeline = pipeline
        self._outputs: tempfile.TemporaryDirectory | None = None

    @classmethod
    def open(
        cls,
        weights: str | os.PathLike | None = None,
        *,
        device: str | None = None,
        dtype: torch.dtype | None = None,
    ) -> "Service":
        """Load weights and compute what every request needs.

        Args:
            weights: Their folder, see ``find_weights``.
            device: CUDA if there is one, by default.
            dtype: Precision; that which the environment asks for, by default.

        Raises:
            WeightsError: If they are missing, damaged, or lack the safety checker without leave.
            SettingError: If there is no such device, or the environment asks for a precision that
                there is not, or is unclear.
        """
        start = time.perf_counter()
        dtype = dtype or read_dtype()
        offload, compiled, unchecked = map(read_switch, (OFFLOAD, COMPILE, ALLOW_NO_CHECKER))
        directory = find_weights(weights)
        if offload:
            pipeline = open_offloaded(directory, device, dtype)
        else:
            pipeline = KosmosGPipeline.from_pretrained(directory, torch_dtype=dtype, device=device)
        pipeline.encoder.check_vocabulary()
        if (
            pipeline.safety_checker is None
            and pipeline.default_size > FULL_SIZE_PIXELS
            and not unchecked
        ):
            raise WeightsError(
                f"{directory} has no safety checker. Convert again with --stable-diffusion naming "
                f"a folder that has one, or set {ALLOW_NO_CHECKER}=1 to serve without."
            )
        pipeline.encoder.null_condition()
        arrange(pipeline)
        if compiled:
            warm_compiled(pipeline)
        model, seconds = pipeline.kosmosg, time.perf_counter() - start
        print(f"weights: {directory} on {model.device}, {model.dtype}, in {seconds:.1f} s")
        return cls(pipeline)

    def run(
        self,
        images: Iterable[tuple[str, Any]],
        *,
        metric: Metric,
        output_format: str,
        output_quality: int,
        disable_safety_checker: bool,
        progress: Progress | None = None,
        watch: Watch | None = None,
        **inputs: Any,
    ) -> list[Path]:
        """Generate the images of a request.

        Args:
            images: Pairs of an input's name and what came under it, in the order of the markers.
            metric: Takes the name and value of a measurement.
            output_format: ``webp``, ``jpg`` or ``png``.
            output_quality: 0 to 100, for the formats that lose something.
            disable_safety_checker: Return what the checker would flag.
            progress: Called with steps done and steps in all; prints them by default.
            watch: See ``KosmosGPipeline.generate``.
            inputs: The other inputs, see ``read_request``.

        Returns:
            Files that stay until the next request.

        Raises:
            KosmosGError: If the request cannot be carried out; the message is for the caller.
        """
        self._discard_outputs()
        # The pipeline reports what it knows to be large; anything else may be the last straw.
        with reporting_out_of_memory("This request does not"), not_compiling():
            quality = check_integer("output_quality", output_quality, 0, 100)
            request = read_request(images, **inputs)
            print(f"seed: {request.seed}", flush=True)
            largest = max(LARGEST_SIDE, self.pipeline.default_size)
            output = self.pipeline.generate(
                self.pipeline.sized(request, largest=largest),
                check_safety=not disable_safety_checker,
                progress=progress or print_progress,
                watch=watch,
            )
            files = self._save(output, output_format, quality)
        metric("image_output_count", len(files))
        metric("encode_seconds", round(output.timings.encode, 3))
        metric("denoise_seconds", round(output.timings.denoise, 3))
        metric("decode_seconds", round(output.timings.decode, 3))
        return files

    def _save(self, output: KosmosGOutput, suffix: str, quality: int) -> list[Path]:
        if all(output.flagged):
            raise UnsafeImageError
        self._outputs = tempfile.TemporaryDirectory(prefix="kosmosg-")
        files = []
        for index, image in enumerate(output.images):
            seed = output.seeds[index]
            if output.flagged[index]:
                print(f"image {index} (seed {seed}) left out: flagged by the safety checker")
                continue
            path = Path(self._outputs.name) / f"{index}-seed-{seed}.{suffix}"
            files.append(save_image(image, path, quality=quality, recipe=output.recipes[index]))
        return files

    def _discard_outputs(self) -> None:
        """Remove the files of the request before: nothing of it may show in this one."""
        if self._outputs:
            self._outputs.cleanup()
            self._outputs = None


def read_dtype() -> torch.dtype | None:
    """Read from the environment which precision to serve in; nothing is the device's default.

    Raises:
        SettingError: If it is none that there is.
    """
    name = os.environ.get(DTYPE, "")
    if name and name not in DTYPES:
        raise SettingError(f"{DTYPE} is {name!r}. Choose one of {', '.join(DTYPES)}.")
    return getattr(torch, name) if name else None


def read_switch(name: str) -> bool:
    """Read from the environment whether something is asked for; nothing is no.

    Raises:
        SettingError: If that is neither ``1`` nor ``0``: it was meant, and would be lost.
    """
    value = os.environ.get(name, "")
    if value not in ("", "0", "1"):
        raise SettingError(f"{name} is {value!r}. Set it to 1, or to 0 or nothing for no.")
    return value == "1"


def arrange(pipeline: KosmosGPipeline) -> None:
    """Lay convolutions out as they run fastest: on GPUs, and where our benchmark has shown it.

    What is computed in float32 there may be rounded as TF32 in between.
    """
    unet, vae = pipeline.unet, pipeline.vae
    on_gpu = pipeline._execution_device.type == "cuda"  # the weights themselves may be elsewhere
    if on_gpu or (unet.device.type == "cpu" and unet.dtype == torch.bfloat16):
        for network in (unet, vae.decoder):
            network.to(memory_format=torch.channels_last)
    if on_gpu:
        torch.set_float32_matmul_precision("high")


def open_offloaded(
    directory: Path, device: str | None, dtype: torch.dtype | None
) -> KosmosGPipeline:
    """Open weights that stay in the machine's memory, each network until it is needed.

    Raises:
        SettingError: If there is no GPU that they could go to.
    """
    target = choose_device(device)
    if device is None and target.type == "cpu":
        raise SettingError(
            f"{OFFLOAD}=1 keeps the networks off the GPU until they are needed, and there is no "
            f"GPU here. Leave {OFFLOAD} out."
        )
    if dtype is None and target.type == "cuda":
        dtype = torch.float16
    pipeline = KosmosGPipeline.from_pretrained(directory, torch_dtype=dtype, device="cpu")
    pipeline.enable_model_cpu_offload(device=target)
    return pipeline


def warm_compiled(pipeline: KosmosGPipeline) -> None:
    """Compile the decoder for requests of the default size; without success it stays as it is."""
    start = time.perf_counter()
    compile_decoder(pipeline.unet, pipeline.vae)
    try:
        with compiling():
            for images in WARMED:
                request = GenerationRequest(
                    prompt="a", num_images_per_prompt=images, num_inference_steps=2, seed=0
                )
                pipeline.generate(request, check_safety=False)
    except (RuntimeError, OSError, ImportError) as error:
        forget_compiled(pipeline.unet, pipeline.vae)
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        logger.warning(
            "%s=1: the decoder could not be compiled (%.200s), and runs as it is. A C++ compiler "
            "(g++) is needed.",
            COMPILE,
            reason,
        )
        return
    side, seconds = pipeline.default_size, time.perf_counter() - start
    print(f"compiled for {side} × {side} pixels in {seconds:.1f} s; other sizes run as they are")


def print_progress(done: int, total: int) -> None:
    """Print a line in the form that the platform's clients read progress from."""
    tenths = done * 10 // total
    bar = "█" * tenths + " " * (10 - tenths)
    print(f"{done * 100 // total:3d}%|{bar}| {done}/{total}", flush=True)
