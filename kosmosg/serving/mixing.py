"""A strip of images from one input image to another (paper, section 4.4: interpolation)."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from PIL import Image

from kosmosg.diffusion.interpolation import interpolate
from kosmosg.diffusion.output import KosmosGOutput
from kosmosg.diffusion.request import GenerationRequest
from kosmosg.diffusion.sampling import Progress, Watch
from kosmosg.diffusion.settings import FEWEST_FRAMES, MOST_FRAMES, choose_seeds
from kosmosg.errors import PromptError
from kosmosg.pipeline import KosmosGPipeline
from kosmosg.prompts.images import identify
from kosmosg.prompts.prompt import MARKER
from kosmosg.utils.checks import check_integer


def mix(
    pipeline: KosmosGPipeline,
    ends: Sequence[Image.Image],
    *,
    prompt: str = MARKER,
    frames: int,
    seed: int | None = None,
    progress: Progress | None = None,
    watch: Watch | None = None,
    **sampling: Any,
) -> KosmosGOutput:
    """Generate images in between, all from the noise of one seed.

    Args:
        pipeline: What generates.
        ends: Two images, at the left and at the right end.
        prompt: Text with one marker, which both images take turns in.
        frames: Images of the strip, ends included.
        seed: Random if there is none.
        progress: See ``KosmosGPipeline.generate``.
        watch: Likewise.
        sampling: Of a ``GenerationRequest``: steps, guidance, scheduler, size.

    Raises:
        PromptError: If the prompt has not exactly one marker.
        SettingError: If a number is out of bounds.
    """
    frames = check_integer("frames", frames, FEWEST_FRAMES, MOST_FRAMES)
    if prompt.count(MARKER) != 1:
        raise PromptError(
            f"prompt must have exactly one {MARKER}, which both images take turns in."
        )
    (seed,) = choose_seeds(seed, 1)
    # Before the conditions are computed: it refuses numbers that are out of bounds.
    request = GenerationRequest(seed=[seed] * frames, **sampling)
    conditions, _ = pipeline.encode_prompt([prompt] * 2, [[end] for end in ends])
    output = pipeline.generate(
        replace(request, prompt_embeds=interpolate(conditions[0], conditions[1], frames)),
        progress=progress,
        watch=watch,
    )
    for frame, recipe in enumerate(output.recipes):
        for key in ("prompt_embeds", "num_images_per_prompt"):
            del recipe[key]
        recipe |= {"prompt": prompt, "images": [*map(identify, ends)]}
        recipe |= {"frame": frame, "frames": frames}
    return output
