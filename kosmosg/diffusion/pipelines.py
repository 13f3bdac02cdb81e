"""Which pipeline of diffusers denoises a request: with a map or not, from noise or an image."""

from typing import Any

from diffusers import StableDiffusionControlNetPipeline, StableDiffusionPipeline
from jaxtyping import Float
from torch import Tensor

from kosmosg.diffusion.control import ControlMap
from kosmosg.diffusion.init_image import ControlledImageToImage, ImageToImage, Start


def choose_pipeline(
    decoder: StableDiffusionPipeline,
    noise: Float[Tensor, "rows channels height width"],
    control: ControlMap | None,
    start: Start | None,
) -> tuple[Any, dict[str, Any]]:
    """Choose the pipeline for a request, and what it is called with besides the condition.

    Args:
        decoder: Text to image, its scheduler set.
        noise: Initial noise on the U-Net's device, in its precision.
        control: What fixes the layout, if anything does.
        start: What to start from, if not from noise.
    """
    height, width = (side * decoder.vae_scale_factor for side in noise.shape[-2:])
    sides = {"width": width, "height": height}
    if control is None and start is None:
        return decoder, {"latents": noise, **sides}
    if start is None:
        assert control is not None
        pipeline = _derive(StableDiffusionControlNetPipeline, decoder, control)
        return pipeline, {"latents": noise, "image": control.image, **sides, **control.arguments}
    arguments: dict[str, Any] = {"image": start.image, "strength": start.strength}
    if control is None:
        pipeline = _derive(ImageToImage, decoder)
    else:
        pipeline = _derive(ControlledImageToImage, decoder, control)
        arguments |= {"control_image": control.image, **sides, **control.arguments}
    pipeline.start, pipeline.noise = start, noise
    return pipeline, arguments


def _derive(kind: Any, decoder: StableDiffusionPipeline, control: ControlMap | None = None) -> Any:
    parts = dict(decoder.components)
    if control is not None:
        parts["controlnet"] = control.network
    pipeline = kind(**parts, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
