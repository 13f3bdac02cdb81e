"""Image to image and inpainting."""

import re
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionImg2ImgPipeline, StableDiffusionInpaintPipeline
from PIL import Image, ImageDraw

from kosmosg import InitImage, KosmosGPipeline
from kosmosg.diffusion.init_image import prepare
from kosmosg.diffusion.schedulers import SAMPLERS
from kosmosg.errors import ImageError, SettingError
from tests.diffusion.generation import difference, generate, noise_image, pixels

SCENE = noise_image()


def half_mask(width: int = 64, height: int = 64) -> Image.Image:
    """White on the left."""
    mask = Image.new("L", (width, height))
    mask.paste(255, (0, 0, width // 2, height))
    return mask


# ------------------------------------------------------------------ image to image


@pytest.mark.parametrize("scheduler", list(SAMPLERS))
def test_full_strength_is_text_to_image(pipe: KosmosGPipeline, scheduler: str) -> None:
    plain = generate(pipe, scheduler=scheduler)
    drawn = generate(pipe, scheduler=scheduler, init=InitImage(image=SCENE, strength=1))
    assert difference(plain, drawn) == 0


def test_less_strength_stays_closer(pipe: KosmosGPipeline) -> None:
    def distance(strength: float) -> float:
        drawn = generate(
            pipe, num_inference_steps=20, init=InitImage(image=SCENE, strength=strength)
        )
        return float(np.abs(pixels(drawn) - decoded).mean())

    decoded = _round_trip(pipe, SCENE)
    least, half, most = (distance(strength) for strength in (0.05, 0.5, 1.0))
    assert least < half < most


def _round_trip(pipe: KosmosGPipeline, image: Image.Image) -> np.ndarray:
    """What the VAE makes of an image: the least that image to image changes."""
    vae: Any = pipe.vae
    values = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.inference_mode():
        decoded = vae.decode(vae.encode(values).latent_dist.mode()).sample
    levels = (decoded / 2 + 0.5).clamp(0, 1) * 255
    return levels[0].permute(1, 2, 0).round().numpy().astype(int)


def test_the_steps_are_those_of_diffusers(pipe: KosmosGPipeline) -> None:
    """With the VAE's noise taken away, diffusers' own pipeline draws the same."""
    condition, negative = pipe.encode_prompt("a cat")
    plain: Any = StableDiffusionImg2ImgPipeline.from_pipe(
        pipe, text_encoder=None, tokenizer=None, scheduler=_ddim(pipe)
    )
    plain.set_progress_bar_config(disable=True)
    latents = plain.vae.encode(plain.image_processor.preprocess(SCENE)).latent_dist.mode()
    theirs = plain(
        image=latents * plain.vae.config.scaling_factor,
        prompt_embeds=condition,
        negative_prompt_embeds=negative,
        strength=0.5,
        num_inference_steps=4,
        guidance_scale=6.0,
        generator=torch.Generator().manual_seed(5),
    ).images[0]
    ours = generate(pipe, scheduler="DDIM", init=InitImage(image=SCENE, strength=0.5))
    assert difference(ours, theirs) <= 1


def _ddim(pipe: KosmosGPipeline) -> DDIMScheduler:
    made: Any = DDIMScheduler.from_config(pipe.scheduler.config, timestep_spacing="leading")
    return made


def test_several_images_are_those_of_seeds_that_follow(pipe: KosmosGPipeline) -> None:
    init = InitImage(image=SCENE, strength=0.5)
    settings: dict[str, Any] = {"num_inference_steps": 4, "init": init}
    together = pipe("a cat", seed=5, num_images_per_prompt=3, **settings).images
    alone = [pipe("a cat", seed=seed, **settings).images[0] for seed in (5, 6, 7)]
    assert max(map(difference, together, alone)) <= 1
    assert difference(*together[:2]) > 8


def test_the_proportions_are_those_of_the_image(pipe: KosmosGPipeline) -> None:
    wide = InitImage(image=noise_image(90, 45), strength=0.5)
    assert generate(pipe, init=wide).size == (64, 32)
    with pytest.raises(SettingError, match="init_image has 90 × 45"):
        generate(pipe, init=wide, width=64, height=64)


@pytest.mark.parametrize("size", [(1, 1), (8000, 8000)])
def test_the_smallest_and_the_largest(pipe: KosmosGPipeline, size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, "teal")
    assert generate(pipe, init=InitImage(image=image, strength=0.5)).size == (64, 64)


def test_a_strength_that_leaves_no_step(pipe: KosmosGPipeline) -> None:
    with pytest.raises(SettingError, match=r"leaves no step to take. Give at least 0.250"):
        generate(pipe, init=InitImage(image=SCENE, strength=0.2))


@pytest.mark.parametrize("strength", [0, 0.0005])
def test_the_strength_that_is_advised_works(strength: float) -> None:
    for steps in range(1, 1000):
        with pytest.raises(SettingError, match="at least") as refused:
            InitImage(image=SCENE, strength=strength).check_steps(steps)
        advised = re.findall(r"at least (\d\.\d+)\.$", str(refused.value))
        InitImage(image=SCENE, strength=float(advised[0])).check_steps(steps)


# ------------------------------------------------------------------ inpainting


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_what_the_mask_leaves_out_does_not_change(pipe: KosmosGPipeline, strength: float) -> None:
    init = InitImage(image=SCENE, mask=half_mask(), strength=strength)
    drawn = pixels(generate(pipe, init=init))
    assert (drawn[:, 32:] == pixels(SCENE)[:, 32:]).all()
    assert np.abs(drawn[:, :32] - pixels(SCENE)[:, :32]).mean() > 8


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_inpainting_is_that_of_diffusers(pipe: KosmosGPipeline, strength: float) -> None:
    condition, negative = pipe.encode_prompt("a cat")
    plain: Any = StableDiffusionInpaintPipeline.from_pipe(
        pipe, text_encoder=None, tokenizer=None, scheduler=_ddim(pipe)
    )
    plain.set_progress_bar_config(disable=True)
    latents = plain.vae.encode(plain.image_processor.preprocess(SCENE)).latent_dist.mode()
    theirs = plain(
        image=latents * plain.vae.config.scaling_factor,
        mask_image=half_mask(),
        masked_image_latents=torch.zeros_like(latents),  # only for U-Nets that read a mask
        prompt_embeds=condition,
        negative_prompt_embeds=negative,
        strength=strength,
        num_inference_steps=4,
        guidance_scale=6.0,
        width=64,
        height=64,
        generator=torch.Generator().manual_seed(5),
    ).images[0]
    init = InitImage(image=SCENE, mask=half_mask(), strength=strength)
    ours = generate(pipe, scheduler="DDIM", init=init)
    assert np.abs(pixels(ours) - pixels(theirs))[:, :32].max() <= 1


@pytest.mark.parametrize("scheduler", list(SAMPLERS))
def test_every_sampler_keeps_what_it_should(pipe: KosmosGPipeline, scheduler: str) -> None:
    init = InitImage(image=SCENE, mask=half_mask(), strength=0.75)
    drawn = pixels(generate(pipe, scheduler=scheduler, init=init))
    assert (drawn[:, 32:] == pixels(SCENE)[:, 32:]).all()
    assert drawn[:, :32].std() > 1


def test_a_white_mask_is_no_mask(pipe: KosmosGPipeline) -> None:
    white = Image.new("L", (128, 128), 255)
    with_mask = generate(pipe, init=InitImage(image=SCENE, mask=white, strength=0.5))
    assert difference(with_mask, generate(pipe, init=InitImage(image=SCENE, strength=0.5))) == 0


def test_a_speck_of_white_is_repainted(pipe: KosmosGPipeline) -> None:
    mask = Image.new("L", (64, 64))
    mask.putpixel((20, 20), 255)
    drawn = pixels(generate(pipe, init=InitImage(image=SCENE, mask=mask, strength=1)))
    changed = np.argwhere((drawn != pixels(SCENE)).any(axis=2))
    assert changed.tolist() == [[20, 20]]


def test_an_empty_mask() -> None:
    with pytest.raises(ImageError, match="no white part"):
        InitImage(image=SCENE, mask=Image.new("RGB", (64, 64), (90, 90, 90)))


def on_transparent(strokes: Image.Image, colour: str = "white") -> Image.Image:
    """Strokes of a colour where an image is white, and nothing elsewhere."""
    painted = Image.new("RGBA", strokes.size, colour)
    painted.putalpha(strokes)
    return painted


@pytest.mark.parametrize("form", ["RGBA", "LA", "palette"])
def test_white_strokes_on_a_transparent_ground(pipe: KosmosGPipeline, form: str) -> None:
    """As a paint program exports a layer."""
    mask = on_transparent(half_mask())
    if form == "palette":
        mask = mask.quantize(2)
        assert mask.has_transparency_data
    elif form == "LA":
        mask = mask.convert("LA")
    plain = generate(pipe, init=InitImage(image=SCENE, mask=half_mask(), strength=0.5))
    layer = generate(pipe, init=InitImage(image=SCENE, mask=mask, strength=0.5))
    assert difference(plain, layer) == 0


def erased_photograph() -> Image.Image:
    image = SCENE.convert("RGBA")
    image.putalpha(half_mask())
    return image


@pytest.mark.parametrize(
    "mask",
    [
        on_transparent(half_mask(), "black"),
        on_transparent(half_mask(), "red"),
        on_transparent(Image.new("L", (64, 64))),
        erased_photograph(),
    ],
    ids=["black", "coloured", "empty", "a photograph with a hole"],
)
def test_transparency_that_leaves_it_open_what_may_change(mask: Image.Image) -> None:
    with pytest.raises(ImageError, match=r"init_mask has transparent parts.*without transparency"):
        InitImage(image=SCENE, mask=mask)


def test_a_thin_mask_covers_all_that_it_touches(pipe: KosmosGPipeline) -> None:
    """A scratch of 6 pixels in an image eight times as wide as what is drawn."""
    mask = Image.new("L", (512, 512))
    ImageDraw.Draw(mask).line((30, 256, 480, 250), fill=255, width=6)
    scene = SCENE.resize((512, 512))
    start = prepare(InitImage(image=scene, mask=mask), (64, 64), pipe.vae, 8, pipe.device)
    assert start.pixel_mask is not None
    touched = np.asarray(mask).reshape(64, 8, 64, 8).max(axis=(1, 3)) > 0
    assert touched.sum() > 80
    assert (np.asarray(start.pixel_mask) == touched).all()


def test_a_photograph_that_lies_on_its_side(pipe: KosmosGPipeline) -> None:
    """Its size is that of what the user sees, with the mask likewise."""
    lying, exif = noise_image(64, 32), Image.Exif()
    exif[0x0112] = 6
    lying.info["exif"] = exif.tobytes()
    init = InitImage(image=lying, mask=half_mask(32, 64), strength=0.5)
    drawn = pixels(generate(pipe, init=init))
    upright = lying.transpose(Image.Transpose.ROTATE_270)
    assert (drawn[:, 16:] == pixels(upright.resize((32, 64)))[:, 16:]).all()


@pytest.mark.parametrize("image", ["cat.png", np.zeros((8, 8, 3)), None])
def test_what_is_no_image(image: Any) -> None:
    with pytest.raises(ImageError, match=r"not an image of Pillow.*PIL\.Image\.open"):
        InitImage(image=image)


def test_a_mask_of_other_proportions() -> None:
    with pytest.raises(ImageError, match="init_mask has 64 × 32 pixels, and init_image 64 × 64"):
        InitImage(image=SCENE, mask=half_mask(64, 32))


def test_a_mask_of_another_size_but_the_same_proportions(pipe: KosmosGPipeline) -> None:
    init = InitImage(image=SCENE, mask=half_mask(640, 640), strength=0.5)
    drawn = pixels(generate(pipe, init=init))
    assert (drawn[:, 32:] == pixels(SCENE)[:, 32:]).all()


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_strengths_that_are_out_of_bounds(strength: float) -> None:
    with pytest.raises(SettingError, match="prompt_strength"):
        InitImage(image=SCENE, strength=strength)
