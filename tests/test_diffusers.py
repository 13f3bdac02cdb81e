"""What users of diffusers expect of a pipeline holds for KosmosGPipeline."""

import json
from pathlib import Path
from typing import Any

import accelerate
import numpy as np
import pytest
import torch
from accelerate.hooks import CpuOffload
from diffusers import (
    ControlNetModel,
    DDIMScheduler,
    DiffusionPipeline,
    StableDiffusionControlNetPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
)
from PIL import Image

from kosmosg import InitImage, KosmosG, KosmosGPipeline, KosmosGTokenizer
from kosmosg.checkpoints.folder import COMPONENTS, OPTIONAL_COMPONENTS
from kosmosg.errors import PromptError, SettingError, WeightsError
from tests import tiny

RED = Image.new("RGB", (64, 64), "red")
NETWORKS = ("kosmosg", "unet", "vae")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a safety checker, so that every component is there."""
    directory = tmp_path_factory.mktemp("diffusers") / "weights"
    return tiny.write_weights(directory, safety_checker=tiny.make_safety_checker())


@pytest.fixture
def pipe(weights: Path) -> KosmosGPipeline:
    return KosmosGPipeline.from_pretrained(weights)


def difference(one: np.ndarray, other: np.ndarray) -> int:
    """The largest, in levels; weights at another address may round the last bit otherwise."""
    return int(np.abs(one - other).max())


def pixels(pipe: Any, prompt: Any = "<i> on the beach", images: Any = RED, **options) -> np.ndarray:
    settings: dict[str, Any] = {"num_inference_steps": 2, "seed": 5} | options
    return np.stack([np.asarray(each, int) for each in pipe(prompt, images, **settings).images])


# ------------------------------------------------------------------ components


def test_components_make_the_same_pipeline(pipe: KosmosGPipeline) -> None:
    assert list(pipe.components) == [*COMPONENTS, *OPTIONAL_COMPONENTS]
    again = KosmosGPipeline(**pipe.components)
    assert again.unet is pipe.unet
    assert (pixels(again) == pixels(pipe)).all()


def test_a_component_can_be_replaced(pipe: KosmosGPipeline, weights: Path) -> None:
    before = pixels(pipe)
    other = KosmosGPipeline.from_pretrained(weights, unet=pipe.unet, safety_checker=None)
    assert other.unet is pipe.unet
    assert other.safety_checker is None
    pipe.kosmosg = tiny.enliven(KosmosG(pipe.kosmosg.config).eval())
    assert (pixels(pipe) != before).any()
    assert (pixels(other) == before).all()


def test_components_that_do_not_fit(pipe: KosmosGPipeline) -> None:
    parts: dict[str, Any] = pipe.components | {"feature_extractor": None}
    with pytest.raises(WeightsError, match="but no feature_extractor"):
        KosmosGPipeline(**parts)


def test_device_and_precision(pipe: KosmosGPipeline) -> None:
    whole = pixels(pipe)
    assert pipe.to("cpu", torch.bfloat16) is pipe
    assert {getattr(pipe, name).dtype for name in NETWORKS} == {torch.bfloat16}
    assert pipe.dtype == torch.bfloat16
    assert np.abs(pixels(pipe) - whole).max() <= 24


def test_a_precision_for_each_component(weights: Path) -> None:
    dtypes = {"kosmosg": torch.bfloat16, "vae": torch.float64, "default": torch.float32}
    pipe = KosmosGPipeline.from_pretrained(weights, torch_dtype=dtypes)
    for name in ("kosmosg", "vae", "unet", "safety_checker"):
        assert getattr(pipe, name).dtype == dtypes.get(name, torch.float32)
    assert pixels(pipe, init=InitImage(image=RED)).shape == (1, 64, 64, 3)


# ------------------------------------------------------------------ folders


def test_diffusers_opens_what_is_saved(pipe: KosmosGPipeline, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path / "w")
    assert not [file for file in tmp_path.rglob("*") if file.suffix in (".bin", ".pt", ".py")]
    opened: Any = DiffusionPipeline.from_pretrained(tmp_path / "w", torch_dtype=torch.float32)
    assert type(opened) is KosmosGPipeline
    assert type(opened.kosmosg) is KosmosG
    assert type(opened.tokenizer) is KosmosGTokenizer
    opened.save_pretrained(tmp_path / "again")
    again = KosmosGPipeline.from_pretrained(tmp_path / "again")
    for each in (opened, again):
        assert difference(pixels(each), pixels(pipe)) <= 1
    index = json.loads((tmp_path / "again" / "model_index.json").read_text())
    assert index["kosmosg"] == ["kosmosg", "KosmosG"]


@pytest.mark.parametrize("options", [{"safe_serialization": False}, {"variant": "fp16"}])
def test_what_is_not_saved(pipe: KosmosGPipeline, tmp_path: Path, options: dict) -> None:
    with pytest.raises(SettingError, match="Leave both out"):
        pipe.save_pretrained(tmp_path / "w", **options)
    assert not (tmp_path / "w").exists()


def test_options_that_are_not_known(weights: Path) -> None:
    with pytest.raises(SettingError, match=r"no option variant.*kosmosg, tokenizer, unet"):
        KosmosGPipeline.from_pretrained(weights, variant="fp16")


# ------------------------------------------------------------------ memory


def test_model_offload(pipe: KosmosGPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU nothing has to move, but the hooks that would move it run in their order."""
    wanted = pixels(pipe)
    pipe.enable_model_cpu_offload(device="cpu")
    order: list[str] = []
    load = CpuOffload.pre_forward

    def noted(hook: CpuOffload, module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        order.append(type(module).__name__)
        return load(hook, module, *args, **kwargs)

    monkeypatch.setattr(CpuOffload, "pre_forward", noted)
    assert difference(pixels(pipe), wanted) <= 1
    assert list(dict.fromkeys(order)) == ["KosmosG", "UNet2DConditionModel", "AutoencoderKL"]
    assert all(hasattr(getattr(pipe, name), "_hf_hook") for name in NETWORKS)


@pytest.mark.parametrize("options", [{}, {"init": InitImage(image=RED, strength=0.6)}])
def test_weights_that_are_elsewhere_until_needed(pipe: KosmosGPipeline, options: dict) -> None:
    """As ``enable_sequential_cpu_offload`` lays them out, with the CPU for an accelerator."""
    wanted = pixels(pipe, **options)
    for name in NETWORKS:
        accelerate.cpu_offload(getattr(pipe, name), torch.device("cpu"))
    assert {getattr(pipe, name).device.type for name in NETWORKS} == {"meta"}
    for _ in range(2):
        assert difference(pixels(pipe, **options), wanted) <= 1


# ------------------------------------------------------------------ other pipelines


def test_parts_go_into_other_pipelines_and_back(pipe: KosmosGPipeline) -> None:
    condition, negative = pipe.encode_prompt("<i> on the beach", RED)
    scheduler = DDIMScheduler.from_config(pipe.scheduler.config, timestep_spacing="leading")
    parts: dict[str, Any] = {"text_encoder": None, "tokenizer": None, "scheduler": scheduler}
    for kind in (StableDiffusionPipeline, StableDiffusionImg2ImgPipeline):
        other: Any = kind.from_pipe(pipe, **parts)
        assert other.unet is pipe.unet
        other.set_progress_bar_config(disable=True)
        image = {} if kind is StableDiffusionPipeline else {"image": RED}
        embeds = {"prompt_embeds": condition, "negative_prompt_embeds": negative}
        assert other(**embeds, **image, num_inference_steps=2).images[0].size == (64, 64)
        ours = {"kosmosg": pipe.kosmosg, "tokenizer": pipe.tokenizer, "scheduler": pipe.scheduler}
        back = KosmosGPipeline.from_pipe(other, **ours)
        assert (pixels(back) == pixels(pipe)).all()


def test_a_controlnet_of_ones_own(tmp_path: Path) -> None:
    pipe = KosmosGPipeline.from_pretrained(tiny.write_weights(tmp_path / "w", scale=8))
    network = ControlNetModel.from_unet(pipe.unet)
    other: Any = StableDiffusionControlNetPipeline.from_pipe(
        pipe, text_encoder=None, tokenizer=None, controlnet=network
    )
    other.set_progress_bar_config(disable=True)
    condition, negative = pipe.encode_prompt("a cat")
    embeds = {"prompt_embeds": condition, "negative_prompt_embeds": negative}
    assert other(**embeds, image=RED, num_inference_steps=2).images[0].size == (64, 64)


# ------------------------------------------------------------------ embeddings


def test_embeddings_stand_in_for_prompts(pipe: KosmosGPipeline) -> None:
    prompts, images = ["<i> on the beach", "a cat"], [[RED], []]
    condition, negative = pipe.encode_prompt(prompts, images, negative_prompt="blue")
    given = pipe(
        prompt_embeds=condition,
        negative_prompt_embeds=negative[:1],
        num_inference_steps=2,
        seed=5,
        num_images_per_prompt=2,
    )
    wanted = pixels(pipe, prompts, images, negative_prompt="blue", num_images_per_prompt=2)
    assert (np.stack([np.asarray(each, int) for each in given.images]) == wanted).all()
    mixed = pixels(pipe, prompts, images, negative_prompt_embeds=negative, num_images_per_prompt=2)
    assert (mixed == wanted).all()
    told = [recipe["prompt_embeds"] for recipe in given.recipes]
    assert told[0] == told[1] != told[2]
    assert all(name.startswith("values-sha256:") for name in told)
    assert "prompt" not in given.recipes[0]


def test_embeddings_without_a_negative_prompt(pipe: KosmosGPipeline) -> None:
    condition, _ = pipe.encode_prompt("a cat")
    assert (pixels(pipe, None, None, prompt_embeds=condition) == pixels(pipe, "a cat", None)).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "Give a prompt, or prompt_embeds"),
        ({"prompt": "a cat", "prompt_embeds": torch.zeros(1, 77, 32)}, "Give either"),
        ({"images": RED, "prompt_embeds": torch.zeros(1, 77, 32)}, "Give either"),
        ({"prompt_embeds": torch.zeros(77, 32)}, r"\(prompts, tokens, 32\).*float32, \(77, 32\)"),
        ({"prompt_embeds": torch.zeros(1, 77, 768)}, r"tokens, 32\).*\(1, 77, 768\)"),
        ({"prompt_embeds": torch.zeros(0, 77, 32)}, r"\(0, 77, 32\)"),
        ({"prompt_embeds": torch.zeros(1, 77, 32, dtype=torch.int)}, "not torch.int32"),
        ({"prompt_embeds": [[0.0]]}, "not list"),
        (
            {
                "prompt": "a",
                "negative_prompt": "b",
                "negative_prompt_embeds": torch.zeros(1, 77, 32),
            },
            "in place of negative_prompt",
        ),
        ({"prompt": "a", "negative_prompt_embeds": torch.zeros(2, 77, 32)}, "2 rows of negative"),
        ({"prompt": "a", "negative_prompt_embeds": torch.zeros(1, 7, 32)}, "as many tokens"),
    ],
)
def test_embeddings_that_cannot_be_used(
    pipe: KosmosGPipeline, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(PromptError, match=message):
        pipe(**options, num_inference_steps=1)


def test_seeds_one_by_one(pipe: KosmosGPipeline) -> None:
    found = pipe(["a cat", "a dog"], num_inference_steps=2, seed=[7, 7])
    assert found.seeds == [7, 7]
    assert difference(np.asarray(found.images[1], int), pixels(pipe, "a dog", None, seed=7)) <= 1
    for seeds, message in (([1], "1 seeds for 2 images"), ([1, -1], "seed is -1")):
        with pytest.raises(SettingError, match=message):
            pipe(["a cat", "a dog"], num_inference_steps=2, seed=seeds)


def test_a_generator_chooses_the_seeds(pipe: KosmosGPipeline) -> None:
    def generate(count: int, generator: Any) -> Any:
        return pipe(["a cat"] * count, num_inference_steps=2, generator=generator)

    both = generate(2, torch.Generator().manual_seed(3))
    assert both.seeds == generate(2, torch.Generator().manual_seed(3)).seeds
    assert both.seeds[0] != both.seeds[1]
    each = generate(2, [torch.Generator().manual_seed(3), torch.Generator().manual_seed(4)])
    assert each.seeds[0] == both.seeds[0] != each.seeds[1]
    alone = pixels(pipe, "a cat", None, seed=both.seeds[1])
    assert difference(np.asarray(both.images[1], int), alone) <= 1
    with pytest.raises(SettingError, match="Both seed and generator"):
        pipe("a cat", seed=1, generator=torch.Generator())
    wrong: Any = [1]
    with pytest.raises(SettingError, match=r"generator must be one of torch.*not 1"):
        pipe("a cat", generator=wrong)


def test_kinds_of_output(pipe: KosmosGPipeline) -> None:
    wanted = pixels(pipe, "a cat", None)
    options: dict[str, Any] = {"num_inference_steps": 2, "seed": 5}
    arrays = pipe("a cat", output_type="np", **options).images
    tensors = pipe("a cat", output_type="pt", return_dict=False, **options)[0]
    assert (arrays * 255).round().astype(int).tolist() == wanted.tolist()
    assert tensors.permute(0, 2, 3, 1).numpy().tolist() == arrays.tolist()
    with pytest.raises(SettingError, match=r"output_type is 'latent'\. Choose one of"):
        pipe("a cat", output_type="latent", **options)


def test_the_output_is_one_of_diffusers(pipe: KosmosGPipeline) -> None:
    found = pipe("a cat", num_inference_steps=1, seed=5)
    assert found["images"] is found.images is found[0] is found.to_tuple()[0]
