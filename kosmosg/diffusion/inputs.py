"""A request and its conditions → tensors: everything that decides the images."""

from collections.abc import Sequence

from diffusers import StableDiffusionPipeline
from jaxtyping import Float
from torch import Tensor

from kosmosg.diffusion import control as controls
from kosmosg.diffusion import init_image as init_images
from kosmosg.diffusion.control import ControlNets
from kosmosg.diffusion.request import GenerationRequest
from kosmosg.diffusion.sampling import SamplingInputs, draw_noise
from kosmosg.utils.memory import reporting_out_of_memory


def prepare_inputs(
    request: GenerationRequest,
    condition: Float[Tensor, "prompts queries dim"],
    negative: Float[Tensor, "prompts queries dim"],
    seeds: Sequence[int],
    *,
    decoder: StableDiffusionPipeline,
    controlnets: ControlNets,
) -> SamplingInputs:
    """Bring everything that decides the images to the same size and number of rows.

    Args:
        request: With both sides chosen.
        condition: For each prompt.
        negative: What guidance leads away from, likewise.
        seeds: One for each image.
        decoder: The networks that it is for.
        controlnets: Those that may fix the layout.

    Raises:
        ControlError: If a ControlNet is missing or does not fit.
        OutOfMemoryError: If there is no room for all of it.
    """
    assert request.width is not None and request.height is not None  # it has been sized
    size, scale = (request.width, request.height), decoder.vae_scale_factor
    each, control, init = request.num_images_per_prompt, request.control, request.init
    unet, device = decoder.unet, decoder._execution_device
    channels = unet.config.in_channels
    with reporting_out_of_memory("The noise of all images, or what guides them, does not"):
        return SamplingInputs(
            condition=condition.repeat_interleave(each, dim=0),
            negative=negative.repeat_interleave(each, dim=0),
            noise=draw_noise(seeds, channels, size[1] // scale, size[0] // scale),
            steps=request.num_inference_steps,
            guidance_scale=request.guidance_scale,
            guidance_end=request.guidance_end,
            seeds=seeds,
            control=control and controls.prepare(control, size, controlnets, unet, device),
            start=init and init_images.prepare(init, size, decoder.vae, scale, device),
        )
