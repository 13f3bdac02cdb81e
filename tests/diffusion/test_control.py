"""ControlNet: small random networks in the layout of the real ones, and the maps they read."""

import hashlib
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    ControlNetModel,
    StableDiffusionControlNetPipeline,
    UNet2DConditionModel,
)
from PIL import Image, ImageDraw, ImageOps
from transformers import (
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    Dinov2Config,
    DPTImageProcessorPil,
    SegformerImageProcessorPil,
    UperNetConfig,
    UperNetForSemanticSegmentation,
)

from kosmosg import Control, InitImage, KosmosGPipeline, LoRA
from kosmosg.diffusion.control import ControlNets
from kosmosg.diffusion.control_maps import (
    FEATURES,
    PALETTE,
    make_map,
    open_map_maker,
    read_map,
)
from kosmosg.diffusion.settings import CONTROL_TYPES
from kosmosg.errors import ControlError, SettingError
from tests.diffusion import loras
from tests.diffusion.generation import difference, generate, noise_image, pixels

IMAGE = noise_image()
STAGES = ["stage1", "stage2", "stage3", "stage4"]


def write_controlnet(folder: Path, unet: Any, seed: int = 0, **changes: Any) -> None:
    """Write a network that fits a U-Net; its output layers are not zero, so that it acts."""
    torch.manual_seed(seed)
    network: Any = ControlNetModel.from_unet(unet, load_weights_from_unet=False)
    if changes:
        network = ControlNetModel.from_config({**network.config, **changes})
    for name, parameter in network.named_parameters():
        if name.startswith(("controlnet_down", "controlnet_mid", "controlnet_cond_embedding")):
            torch.nn.init.normal_(parameter, std=0.2)
    network.save_pretrained(folder)


@pytest.fixture(scope="module")
def folder(pipe: KosmosGPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ControlNets of all kinds."""
    folder = tmp_path_factory.mktemp("weights") / "controlnet"
    for seed, kind in enumerate(CONTROL_TYPES):
        changes = {"global_pool_conditions": True} if kind == "shuffle" else {}
        write_controlnet(folder / kind, pipe.unet, seed, **changes)
    return folder


@pytest.fixture
def controlled(
    pipe: KosmosGPipeline, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> KosmosGPipeline:
    monkeypatch.setattr(pipe, "controlnets", ControlNets([folder]))
    return pipe


def ready(kind: str = "depth", **options: Any) -> Control:
    """Make a control whose map is ready."""
    return Control(kind=kind, image=IMAGE, preprocess=False, **options)


# ------------------------------------------------------------------ what it does


@pytest.mark.parametrize("kind", CONTROL_TYPES)
def test_every_kind_acts_and_at_zero_does_not(controlled: KosmosGPipeline, kind: str) -> None:
    plain = generate(controlled)
    assert difference(plain, generate(controlled, control=ready(kind, scale=0))) == 0
    assert difference(plain, generate(controlled, control=ready(kind))) > 8


def test_it_is_the_pipeline_of_diffusers(controlled: KosmosGPipeline, folder: Path) -> None:
    condition, negative = controlled.encode_prompt("a cat")
    decoder = controlled.decoder_with("DDIM")
    plain: Any = StableDiffusionControlNetPipeline(
        **decoder.components,
        controlnet=ControlNetModel.from_pretrained(folder / "depth"),
        requires_safety_checker=False,
    )
    plain.set_progress_bar_config(disable=True)
    theirs = plain(
        image=IMAGE,
        prompt_embeds=condition,
        negative_prompt_embeds=negative,
        num_inference_steps=4,
        guidance_scale=6.0,
        controlnet_conditioning_scale=0.7,
        control_guidance_end=0.5,
        generator=torch.Generator().manual_seed(5),
    ).images[0]
    ours = generate(controlled, scheduler="DDIM", control=ready(scale=0.7, end=0.5))
    assert difference(ours, theirs) <= 1


def test_when_it_acts(controlled: KosmosGPipeline) -> None:
    settings: list[dict[str, Any]] = [{}, {"end": 0.5}, {"start": 0.5}]
    whole, first, last = (generate(controlled, control=ready(**times)) for times in settings)
    assert difference(whole, first) > 0
    assert difference(first, last) > 0


def test_without_guidance(controlled: KosmosGPipeline) -> None:
    plain = generate(controlled, guidance_scale=1)
    assert difference(plain, generate(controlled, guidance_scale=1, control=ready())) > 0
    assert difference(plain, generate(controlled, guidance_scale=1, control=ready(scale=0))) == 0


def test_with_several_prompts_and_images(controlled: KosmosGPipeline) -> None:
    settings: dict[str, Any] = {"num_inference_steps": 2, "control": ready()}
    together = controlled(["a cat", "a dog"], seed=5, num_images_per_prompt=2, **settings).images
    alone = controlled("a dog", seed=8, **settings).images[0]
    assert difference(together[3], alone) <= 1


def test_with_a_lora_at_its_own_strength(controlled: KosmosGPipeline, tmp_path: Path) -> None:
    unet = controlled.unet
    file = loras.write(tmp_path / "x.safetensors", loras.peft(loras.make_factors(unet)))
    control = ready(scale=0.001)  # not so strong that nothing else is seen
    base = generate(controlled, control=control)
    none, half, full = (
        generate(controlled, control=control, lora=LoRA(file=file, scale=scale))
        for scale in (0, 0.5, 1)
    )
    assert difference(base, none) == 0
    assert difference(half, full) > 0
    assert difference(base, full) > 8
    assert difference(base, generate(controlled, control=control)) == 0


def test_with_a_image_to_start_from(controlled: KosmosGPipeline) -> None:
    init = InitImage(image=noise_image(seed=1), strength=0.5)
    plain = generate(controlled, init=init)
    assert difference(plain, generate(controlled, init=init, control=ready(scale=0))) == 0
    assert difference(plain, generate(controlled, init=init, control=ready())) > 8
    full = InitImage(image=noise_image(seed=1), strength=1)
    controlled_only = generate(controlled, control=ready())
    assert difference(controlled_only, generate(controlled, init=full, control=ready())) == 0


def test_the_recipe_says_how(controlled: KosmosGPipeline) -> None:
    result = controlled("a cat", num_inference_steps=1, control=ready(scale=0.5))
    assert result.recipes[0]["control_type"] == "depth"
    assert result.recipes[0]["control_scale"] == 0.5
    pixels_of = hashlib.sha256(IMAGE.tobytes()).hexdigest()
    assert result.recipes[0]["control_image"] == f"pixels-sha256:{pixels_of}"


def test_images_of_two_proportions(controlled: KosmosGPipeline) -> None:
    tall = InitImage(image=noise_image(32, 64))
    with pytest.raises(SettingError, match="init_image has 32 × 64"):
        generate(controlled, init=tall, control=ready())


# ------------------------------------------------------------------ where networks come from


def test_one_network_is_in_memory_at_a_time(pipe: KosmosGPipeline, folder: Path) -> None:
    nets = ControlNets([folder])
    first = nets.get("canny", pipe.unet)
    assert nets.get("canny", pipe.unet) is first
    other = nets.get("depth", pipe.unet)
    assert other is not first
    assert nets.get("canny", pipe.unet) is not first


def test_weights_may_bring_their_own(
    pipe: KosmosGPipeline, folder: Path, own_weights: Path, tmp_path: Path
) -> None:
    weights = tmp_path / "weights"
    shutil.copytree(own_weights, weights)
    shutil.copytree(folder / "canny", weights / "controlnet" / "canny")
    own = KosmosGPipeline.from_pretrained(weights)
    control = Control(kind="canny", image=IMAGE)
    assert difference(generate(own), generate(own, control=control)) > 8


def test_one_that_is_not_there(pipe: KosmosGPipeline, tmp_path: Path) -> None:
    nets = ControlNets([tmp_path])
    with pytest.raises(ControlError, match="python -m kosmosg download controlnet mlsd"):
        nets.get("mlsd", pipe.unet)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"cross_attention_dim": 48}, "cross_attention_dim is 48, not 32"), ({"in_channels": 9}, "9")],
)
def test_one_for_another_base_model(
    pipe: KosmosGPipeline, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    write_controlnet(tmp_path / "canny", pipe.unet, **changes)
    with pytest.raises(ControlError, match=message):
        ControlNets([tmp_path]).get("canny", pipe.unet)


def test_one_that_is_cut_off(pipe: KosmosGPipeline, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "canny", tmp_path / "canny")
    file = tmp_path / "canny" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    nets = ControlNets([folder, tmp_path])
    nets.get("depth", pipe.unet)
    broken = ControlNets([tmp_path])
    with pytest.raises(ControlError, match="cannot be loaded"):
        broken.get("canny", pipe.unet)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "edges"}, "control_type 'edges' is unknown"),
        ({"kind": "canny", "scale": 3}, "control_scale"),
        ({"kind": "canny", "start": 0.5, "end": 0.5}, "end after it starts"),
        ({"kind": "canny", "end": 1.5}, "end"),
    ],
)
def test_settings_out_of_bounds(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        Control(image=IMAGE, **options)


# ------------------------------------------------------------------ maps


CPU = torch.device("cpu")


def make(kind: str, image: Image.Image, size: tuple[int, int], folder: Path) -> Image.Image:
    return make_map(kind, open_map_maker(kind, folder, CPU), image, size)


def test_canny_draws_edges(tmp_path: Path) -> None:
    image = Image.new("RGB", (128, 64))
    image.paste("white", (64, 0, 128, 64))
    drawn = pixels(make("canny", image, (64, 32), tmp_path))
    edge = np.flatnonzero(drawn.sum(axis=(0, 2)))
    assert drawn.shape == (32, 64, 3)
    assert edge.size
    assert set(edge) <= {30, 31, 32, 33}


def test_canny_needs_no_download(controlled: KosmosGPipeline) -> None:
    control = Control(kind="canny", image=IMAGE)
    assert difference(generate(controlled), generate(controlled, control=control)) > 8


def test_instruct_pix2pix_reads_the_image_itself(tmp_path: Path) -> None:
    assert difference(make("ip2p", IMAGE, (64, 64), tmp_path), IMAGE) == 0


def test_shuffle_keeps_colours_and_loses_the_layout(tmp_path: Path) -> None:
    image = Image.new("RGB", (256, 256), "red")
    image.paste("blue", (128, 0, 256, 256))
    shuffled, again = (make("shuffle", image, (256, 256), tmp_path) for _ in "ab")
    assert difference(shuffled, again) == 0
    values = pixels(shuffled)
    assert (values[..., 1] <= 8).all()
    assert values[..., 0].max() > 240
    assert values[..., 2].max() > 240
    assert np.abs(values - pixels(image)).mean() > 20


def write_depth(folder: Path) -> None:
    """Write a small random network of the kind that estimates depth."""
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "image_size": 56,
        "out_features": STAGES,
        "reshape_hidden_states": False,
    }
    backbone = Dinov2Config(**sizes)
    config = DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=32,
        neck_hidden_sizes=[8, 16, 32, 32],
        fusion_hidden_size=16,
        head_hidden_size=8,
    )
    torch.manual_seed(0)
    DepthAnythingForDepthEstimation(config).save_pretrained(folder)
    DPTImageProcessorPil(size={"height": 56, "width": 56}).save_pretrained(folder)


def test_depth_is_between_black_and_white(tmp_path: Path) -> None:
    write_depth(tmp_path)
    assert open_map_maker("depth", tmp_path, CPU)(IMAGE).getextrema() == (0, 255)
    made = make("depth", IMAGE, (96, 64), tmp_path)
    assert (made.size, made.mode) == ((96, 64), "RGB")


def test_segmentation_paints_in_the_colours_of_classes(tmp_path: Path) -> None:
    backbone = {
        "model_type": "convnext",
        "hidden_sizes": [8, 8, 8, 8],
        "depths": [1, 1, 1, 1],
        "out_features": STAGES,
    }
    sizes: dict[str, Any] = {"hidden_size": 16, "num_labels": 150, "auxiliary_channels": 8}
    config = UperNetConfig(backbone_config=backbone, **sizes)
    torch.manual_seed(0)
    UperNetForSemanticSegmentation(config).eval().save_pretrained(tmp_path)
    SegformerImageProcessorPil(size={"height": 64, "width": 64}).save_pretrained(tmp_path)
    made = open_map_maker("segmentation", tmp_path, CPU)(IMAGE)
    colours = {tuple(colour) for colour in pixels(made).reshape(-1, 3)}
    assert colours <= {tuple(colour) for colour in PALETTE.astype(int)}
    assert len(colours) > 1


@pytest.mark.parametrize("kind", ["depth", "segmentation"])
def test_a_map_whose_network_is_not_there(tmp_path: Path, kind: str) -> None:
    with pytest.raises(ControlError, match=f"download controlnet {kind}"):
        make(kind, IMAGE, (64, 64), tmp_path / kind)


# ------------------------------------------------------------------ maps that are ready

LINES = [kind for kind in FEATURES if kind != "depth"]


def outlines(side: int) -> Image.Image:
    """White lines, one pixel wide, on black."""
    image, s = Image.new("L", (side, side)), side / 64
    drawing = ImageDraw.Draw(image)
    drawing.ellipse((14 * s, 20 * s, 46 * s, 54 * s), outline=255)
    drawing.line((0, 57 * s, side, 57 * s), fill=255)
    return image


def on_transparent(lines: Image.Image) -> Image.Image:
    return Image.merge("RGBA", (lines, lines, lines, lines))


@pytest.mark.parametrize("kind", FEATURES)
def test_lines_on_a_transparent_ground_are_lines_on_black(kind: str) -> None:
    size = (64, 64)
    layer = read_map(kind, on_transparent(outlines(64)), size)
    assert difference(layer, read_map(kind, outlines(64).convert("RGB"), size)) == 0


@pytest.mark.parametrize("kind", ["normal", "segmentation"])
def test_maps_that_have_a_colour_everywhere(kind: str) -> None:
    with pytest.raises(ControlError, match=r"transparent parts.* without transparency"):
        read_map(kind, on_transparent(outlines(64)), (64, 64))


@pytest.mark.parametrize("kind", LINES)
@pytest.mark.parametrize("side", [128, 256, 1000])
def test_lines_stay_lines_when_a_map_shrinks(kind: str, side: int) -> None:
    small = read_map(kind, outlines(64).convert("RGB"), (64, 64))
    shrunk = read_map(kind, outlines(side).convert("RGB"), (64, 64))
    there, wanted = (np.asarray(each)[..., 0] >= 128 for each in (shrunk, small))
    near = np.stack([np.roll(there, shift, axis) for axis in (0, 1) for shift in (-1, 0, 1)])
    assert near.max(axis=0)[wanted].mean() > 0.95  # every line is there,
    assert there.sum() < 1.5 * wanted.sum()  # and about as wide


def test_labels_are_not_mixed() -> None:
    sheet = Image.fromarray(PALETTE[np.arange(144).reshape(12, 12)]).resize((120, 120), 0)
    found = read_map("segmentation", sheet, (64, 64))
    colours = {tuple(colour) for colour in pixels(found).reshape(-1, 3)}
    assert colours <= {tuple(colour) for colour in PALETTE.astype(int)}


@pytest.mark.parametrize("kind", FEATURES)
def test_a_map_without_anything(kind: str) -> None:
    with pytest.raises(ControlError, match=f"no {FEATURES[kind]}: .* all black"):
        read_map(kind, Image.new("RGB", (64, 64)), (64, 64))
    black_lines = Image.new("RGBA", (64, 64), "black")
    black_lines.putalpha(outlines(64))
    with pytest.raises(ControlError, match=f"no {FEATURES[kind]} on its transparent ground"):
        read_map(kind, black_lines, (64, 64))


@pytest.mark.parametrize("kind", LINES)
def test_black_lines_on_white(kind: str) -> None:
    with pytest.raises(ControlError, match=r"is white to 9\d%.* Invert it"):
        read_map(kind, ImageOps.invert(outlines(64)).convert("RGB"), (64, 64))


def test_an_image_without_edges(controlled: KosmosGPipeline) -> None:
    with pytest.raises(ControlError, match="No edge was found in control_image"):
        generate(
            controlled, control=Control(kind="canny", image=Image.new("RGB", (64, 64), "teal"))
        )


# ------------------------------------------------------------------ what makes maps


def test_what_makes_maps_is_read_once(pipe: KosmosGPipeline, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "depth", tmp_path / "controlnet" / "depth")
    write_depth(tmp_path / "annotators" / "depth")
    nets = ControlNets([tmp_path / "controlnet"])
    first = nets.map_maker("depth", CPU)
    shutil.rmtree(tmp_path / "annotators")
    assert nets.map_maker("depth", CPU) is first
    assert first(IMAGE).size == (56, 56)
    assert nets.map_maker("canny", CPU) is not first
    with pytest.raises(ControlError, match="download controlnet depth"):
        nets.map_maker("depth", CPU)


def test_a_network_in_memory_must_fit_every_unet(pipe: KosmosGPipeline, folder: Path) -> None:
    nets = ControlNets([folder])
    nets.get("canny", pipe.unet)
    wider: Any = UNet2DConditionModel.from_config({**pipe.unet.config, "cross_attention_dim": 48})
    with pytest.raises(ControlError, match="cross_attention_dim is 32, not 48"):
        nets.get("canny", wider)


class Detector:
    """Reads its file as those of controlnet-aux do, which need a torchvision of their own."""

    @classmethod
    def from_pretrained(cls, folder: str) -> "Detector":
        torch.load(f"{folder}/body.pth")
        return cls()

    def to(self, device: torch.device) -> "Detector":
        return self

    def __call__(self, image: Image.Image, **options: Any) -> Image.Image:
        return image


class Program:
    """Unpickled, it would leave a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_detectors_read_tensors_alone_and_change_no_surroundings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    standing_in = SimpleNamespace(OpenposeDetector=Detector)
    monkeypatch.setitem(sys.modules, "controlnet_aux", standing_in)
    (folder := tmp_path / "openpose").mkdir()
    torch.save({"weight": torch.ones(1)}, folder / "body.pth")
    surroundings = dict(os.environ)
    assert difference(make("openpose", IMAGE, (64, 64), folder), IMAGE) == 0
    assert dict(os.environ) == surroundings
    torch.save({"weight": Program(tmp_path / "ran")}, folder / "body.pth")
    with pytest.raises(
        ControlError, match=r"cannot be loaded from .* download controlnet openpose"
    ):
        make("openpose", IMAGE, (64, 64), folder)
    assert not (tmp_path / "ran").exists()


def test_the_palette_has_a_colour_for_each_class() -> None:
    assert PALETTE.shape == (150, 3)
    assert PALETTE[0].tolist() == [120, 120, 120]  # wall
    assert len({tuple(colour) for colour in PALETTE}) == 149  # the data set has one twice
