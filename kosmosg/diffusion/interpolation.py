"""From one picture to another: conditions in between, drawn from the same noise."""

from typing import Any

import torch
from PIL import Image

from kosmosg.diffusion.sampling import Request, draw_noise, sample
from kosmosg.diffusion.settings import Settings
from kosmosg.models.encoder import interpolate
from kosmosg.pipeline import KosmosGPipeline
from kosmosg.prompts.images import identify


@torch.inference_mode()
def mix(
    pipeline: KosmosGPipeline,
    prompt: str,
    first: Image.Image,
    second: Image.Image,
    settings: Settings,
) -> tuple[Image.Image, int, dict[str, Any]]:
    """Draw a prompt with one picture, with mixtures of both, and with the other picture.

    Args:
        pipeline: With the decoder; pictures that its safety checker flags become black.
        prompt: With one ``<i>``.
        first: The picture at the left end.
        second: The picture at the right end.
        settings: ``num_images_per_prompt`` is the number of pictures in all, at least 2.

    Returns:
        All pictures side by side, how many of them were flagged, and what makes the strip again.

    Raises:
        PromptError: If the prompt has not exactly one marker.
    """
    count, size = settings.num_images_per_prompt, (settings.width, settings.height)
    ends, negative = pipeline.encode_prompt([prompt, prompt], [[first], [second]])
    shares = torch.linspace(0, 1, count).tolist()
    condition = torch.cat([interpolate(ends[:1], ends[1:], share) for share in shares])
    channels, scale = pipeline.decoder.unet.config.in_channels, pipeline.decoder.vae_scale_factor
    seeds = [settings.seed] * count
    request = Request(
        condition=condition,
        negative=negative[:1].expand_as(condition),
        noise=draw_noise(seeds, channels, size[1] // scale, size[0] // scale),
        steps=settings.num_inference_steps,
        guidance_scale=settings.guidance_scale,
        seeds=seeds,
    )
    decoder = pipeline.decoder_with(settings.scheduler, settings.num_inference_steps)
    images, _ = sample(decoder, request)
    checker = pipeline.safety_checker
    flagged = checker.flagged(images) if checker else [False] * count
    strip = Image.new("RGB", (size[0] * count, size[1]))
    for place, (image, unsafe) in enumerate(zip(images, flagged, strict=True)):
        if not unsafe:
            strip.paste(image, (place * size[0], 0))
    recipe = settings.recipe(prompt, "", settings.seed)
    del recipe["num_images_per_prompt"]
    recipe |= {"images": [identify(first), identify(second)], "frames": count}
    return strip, sum(flagged), recipe
