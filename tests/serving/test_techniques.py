"""LoRA, ControlNet and initial images through the running server."""

import io
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save

from kosmosg import KosmosGPipeline
from kosmosg.diffusion.settings import CONTROL_TYPES, SAMPLER_NAMES
from kosmosg.serving.request_file import read_data_url
from tests.diffusion import loras
from tests.diffusion.test_control import write_controlnet
from tests.serving.client import SMALL, Server, encode, photo, url
from tests.serving.test_inputs import contains
from tests.serving.test_protocol import LONG, cancel, start_long

IMAGE = url(photo(size=(48, 48)))


@pytest.fixture(scope="module")
def unet(weights: Path) -> Any:
    return KosmosGPipeline.from_pretrained(weights).unet


@pytest.fixture(scope="module")
def served(weights: Path, unet: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose weights bring two ControlNets."""
    own = tmp_path_factory.mktemp("techniques") / "weights"
    own.mkdir()
    for part in weights.iterdir():
        (own / part.name).symlink_to(part)
    for seed, kind in enumerate(("canny", "depth")):
        write_controlnet(own / "controlnet" / kind, unet, seed)
    with Server(own, tmp_path_factory.mktemp("server")) as running:
        yield running


def lora(tensors: dict[str, torch.Tensor]) -> str:
    return url(save({name: tensor.contiguous() for name, tensor in tensors.items()}))


@pytest.fixture(scope="module")
def style(unet: Any) -> str:
    return lora(loras.kohya(loras.make_factors(unet)))


def square(side: int, colour: str = "teal") -> str:
    return url(encode(Image.new("RGB", (side, side), colour)))


def mask(width: int = 64, height: int = 64, white: bool = True) -> str:
    image = Image.new("L", (width, height))
    if white:
        image.paste(255, (0, 0, width // 2, height))
    return url(encode(image))


# ------------------------------------------------------------------ what works


def test_base_and_lora_by_turns(served: Server, style: str) -> None:
    base, with_lora, again, with_it_again = (
        served.generate(lora_weights=style) if on else served.generate() for on in (0, 1, 0, 1)
    )
    np.testing.assert_array_equal(base, again)
    np.testing.assert_array_equal(with_lora, with_it_again)
    assert (base != with_lora).any()
    np.testing.assert_array_equal(base, served.generate(lora_weights=style, lora_scale=0))


def test_parts_for_a_text_encoder_are_told_in_the_log(served: Server, unet: Any) -> None:
    tensors = loras.kohya(loras.make_factors(unet))
    tensors["lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight"] = torch.ones(4, 8)
    answer = served.answer(lora_weights=lora(tensors))
    assert "1 tensors for a text encoder are left out" in answer["logs"]


def test_a_control_by_edges(served: Server) -> None:
    base = served.generate()
    assert (base != served.generate(control_image=IMAGE)).any()
    np.testing.assert_array_equal(base, served.generate(control_image=IMAGE, control_scale=0))
    np.testing.assert_array_equal(base, served.generate())


def test_a_map_that_is_ready(served: Server) -> None:
    settings = {"control_type": "depth", "control_preprocess": False}
    assert (served.generate() != served.generate(control_image=IMAGE, **settings)).any()


def test_an_image_to_start_from(served: Server) -> None:
    steps = {"num_inference_steps": 4}
    base = served.generate(**steps)
    assert (base != served.generate(init_image=IMAGE, prompt_strength=0.5, **steps)).any()
    full = served.generate(init_image=IMAGE, prompt_strength=1, **steps)
    np.testing.assert_array_equal(base, full)


def test_a_mask(served: Server) -> None:
    painted = served.generate(init_image=square(64), init_mask=mask(), prompt_strength=1)
    assert (painted[0, :, 32:] == np.asarray(Image.new("RGB", (1, 1), "teal"))).all()
    assert (painted[0, :, :32] != np.asarray(Image.new("RGB", (1, 1), "teal"))).any()


def test_everything_at_once(served: Server, style: str) -> None:
    served.generate(
        lora_weights=style,
        lora_scale=0.5,
        control_image=IMAGE,
        init_image=IMAGE,
        init_mask=mask(512, 512),
        scheduler="EulerAncestral",
        num_inference_steps=4,
        num_images=2,
    )
    served.check_normal()


@pytest.mark.parametrize("scheduler", SAMPLER_NAMES)
def test_every_scheduler(served: Server, scheduler: str) -> None:
    settings = {"scheduler": scheduler, "num_inference_steps": 4}
    first = served.generate(num_images=2, **settings)
    np.testing.assert_array_equal(first, served.generate(num_images=2, **settings))
    assert (first[0] != first[1]).any()


@pytest.mark.parametrize("side", [1, 8000])
def test_initial_images_of_any_size(served: Server, side: int) -> None:
    served.generate(init_image=square(side), num_inference_steps=4)


def test_sides_follow_a_guide(served: Server) -> None:
    wide = url(encode(Image.new("RGB", (200, 100), "teal")))
    inputs = {key: value for key, value in SMALL.items() if key not in ("width", "height")}
    response = served.post({"input": inputs | {"init_image": wide, "num_inference_steps": 4}})
    (image,) = response.json()["output"]
    size = Image.open(io.BytesIO(read_data_url(image)[0])).size
    assert size[0] == 2 * size[1]


# ------------------------------------------------------------------ what is refused


def bad_loras(unet: Any) -> dict[str, tuple[str, tuple[str, ...]]]:
    factors = loras.make_factors(unet)
    whole = save(loras.peft(factors))
    name = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k"
    sdxl = {f"{name}.lora_down.weight": torch.ones(4, 2048)}
    sdxl[f"{name}.lora_up.weight"] = torch.ones(640, 4)
    layer = loras.LAYERS[0]
    outputs, inputs = loras.weight_of(unet, layer).shape
    empty = loras.peft({layer: (torch.empty(0, inputs), torch.empty(outputs, 0))})
    down, up = factors[layer]
    nan = loras.peft({layer: (down, up * float("nan"))})
    huge = loras.peft({name: (a, b * 1e37) for name, (a, b) in factors.items()})
    return {
        "cut off": (url(whole[:-50]), ("lora_weights", "cut off")),
        "pickle": (url(pickle.dumps({"a": 1})), ("lora_weights is a pickle",)),
        "image": (IMAGE, ("lora_weights is not a safetensors file",)),
        "empty": (url(b""), ("lora_weights",)),
        "SDXL": (lora(sdxl), ("another base model", "Stable Diffusion v1.5")),
        "rank 0": (lora(empty), ("rank 0",)),
        "NaN": (lora(nan), ("not finite",)),
        "huge": (lora(huge), ("not finite", "LoRA", "lower its strength")),
        "path": ("/etc/passwd", ("lora_weights must be sent as a file",)),
    }


@pytest.mark.parametrize(
    "case", ["cut off", "pickle", "image", "empty", "SDXL", "rank 0", "NaN", "huge", "path"]
)
def test_loras_that_cannot_be_used(served: Server, unet: Any, case: str) -> None:
    sent, words = bad_loras(unet)[case]
    contains(served.refuse(lora_weights=sent), words)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"lora_scale": 0.5}, ("lora_scale needs lora_weights",)),
        ({"lora_scale": 3}, ("lora_scale", "maximum of 2")),
        ({"control_scale": 0.5}, ("control_scale needs control_image",)),
        ({"control_type": "depth"}, ("control_type needs control_image",)),
        ({"control_preprocess": False}, ("control_preprocess needs control_image",)),
        ({"control_type": "edges", "control_image": IMAGE}, ("control_type",)),
        ({"prompt_strength": 0.5}, ("prompt_strength needs init_image",)),
        ({"init_mask": mask()}, ("init_mask needs init_image",)),
        ({"init_image": IMAGE, "init_mask": mask(white=False)}, ("no white part",)),
        ({"init_image": square(64), "init_mask": mask(64, 32)}, ("init_mask has 64 × 32",)),
        ({"init_image": square(64), "prompt_strength": 0}, ("leaves no step to take",)),
        ({"init_image": "/etc/passwd"}, ("init_image must be sent as a file",)),
        ({"control_image": "/etc/passwd"}, ("control_image must be sent as a file",)),
        ({"init_mask": "/etc/passwd"}, ("init_mask must be sent as a file",)),
        ({"init_image": url(b"nonsense")}, ("init_image is not an image",)),
        ({"control_image": mask(64, 32)}, ("control_image has 64 × 32", "64 × 64")),
        ({"control_image": mask(640, 64)}, ("control_image", "more than 8 times")),
        ({"scheduler": "LCM", "num_inference_steps": 51}, ("LCM takes at most 50",)),
        ({"scheduler": "TCD", "num_inference_steps": 51}, ("TCD takes at most 50",)),
        ({"control_image": IMAGE, "control_type": "mlsd"}, ("download controlnet mlsd",)),
    ],
)
def test_inputs_that_do_not_go_together(
    served: Server, inputs: dict[str, Any], words: tuple[str, ...]
) -> None:
    contains(served.refuse(**inputs), words)


def on_transparent(strokes: Image.Image) -> str:
    """White where an image is white, and nothing elsewhere, as a paint program's layer."""
    return url(encode(Image.merge("LA", (strokes, strokes))))


def test_layers_of_a_paint_program(served: Server) -> None:
    """A mask and a finished map on a transparent ground are those on black."""
    strokes = Image.new("L", (64, 64))
    strokes.paste(255, (20, 20, 44, 44))
    sent: list[dict[str, Any]] = [
        {"init_image": square(64), "prompt_strength": 1, "init_mask": ...},
        {"control_preprocess": False, "control_image": ...},
    ]
    for inputs in sent:
        layer, plain = (
            served.generate(**{k: file if v is ... else v for k, v in inputs.items()})
            for file in (on_transparent(strokes), url(encode(strokes)))
        )
        np.testing.assert_array_equal(layer, plain)


@pytest.mark.parametrize("name", ["control_image", "init_image"])
def test_a_side_that_an_image_gives_is_bounded_too(served: Server, name: str) -> None:
    inputs = {key: value for key, value in SMALL.items() if key not in ("width", "height")}
    inputs |= {"width": 1024, "num_inference_steps": 2, name: mask(64, 512)}
    message = served.refused(served.post({"input": inputs}))
    contains(message, (f"{name} has 64 × 512", "1024 × 8192", "1024 at most"))


def test_a_map_that_cannot_be_made_here(served: Server) -> None:
    """The ControlNet is there, but not the network that makes its map."""
    message = served.refuse(control_image=IMAGE, control_type="depth")
    contains(message, ("download controlnet depth", "control_preprocess=false"))


def test_a_cancelled_request_leaves_no_lora(served: Server, style: str) -> None:
    served.check_normal()
    start_long(served, "slow", input=LONG | {"lora_weights": style})
    assert cancel(served, "slow").status_code == 200
    served.wait_idle(20)
    served.check_normal()


def test_all_kinds_are_known(served: Server) -> None:
    for kind in CONTROL_TYPES[2:]:
        message = served.refuse(control_image=IMAGE, control_type=kind)
        contains(message, (f"download controlnet {kind}",))
