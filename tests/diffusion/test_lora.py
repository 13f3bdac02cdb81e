"""LoRA: what it changes, that it leaves nothing behind, and which files are refused."""

import copy
import json
import logging
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
from torch import Tensor

from kosmosg import KosmosGPipeline
from kosmosg.diffusion.lora import LoRA, attached, read_lora
from kosmosg.errors import LoRAError, SettingError
from tests.diffusion import loras
from tests.diffusion.generation import difference, generate
from tests.diffusion.loras import LAYERS, NAMINGS, count_adapters, make_factors, merge, write


@pytest.fixture
def file(pipe: KosmosGPipeline, tmp_path: Path) -> Path:
    return write(tmp_path / "lora.safetensors", loras.peft(make_factors(pipe.unet)))


def generate_merged(pipe: KosmosGPipeline, factors: loras.Factors, strength: float = 1.0):
    """Draw with the corrections in the weights: what a LoRA should look like."""
    unet = pipe.unet
    kept = copy.deepcopy(unet.state_dict())
    try:
        merge(unet, factors, strength)
        return generate(pipe)
    finally:
        unet.load_state_dict(kept)


# ------------------------------------------------------------------ what it does


@pytest.mark.parametrize("naming", NAMINGS)
@pytest.mark.parametrize("strength", [1.0, 0.5, -1.0])
def test_a_lora_is_what_its_product_adds_to_the_weights(
    pipe: KosmosGPipeline, tmp_path: Path, naming: str, strength: float
) -> None:
    factors = make_factors(pipe.unet)
    file = write(tmp_path / "x.safetensors", NAMINGS[naming](factors))
    drawn = generate(pipe, lora=LoRA(file=file, scale=strength))
    assert difference(drawn, generate_merged(pipe, factors, strength)) <= 1
    assert difference(drawn, generate(pipe)) > 8


def test_names_that_diffusers_once_wrote(pipe: KosmosGPipeline, tmp_path: Path) -> None:
    factors = make_factors(pipe.unet, LAYERS[:2])
    old = write(tmp_path / "old.safetensors", loras.old_diffusers(factors))
    bare = {key.removeprefix("unet."): t for key, t in loras.old_diffusers(factors).items()}
    older = write(tmp_path / "older.safetensors", bare)
    wanted = generate_merged(pipe, factors)
    for file in (old, older):
        assert difference(generate(pipe, lora=LoRA(file=file)), wanted) <= 1


def test_every_layer_is_found_by_its_flat_name(pipe: KosmosGPipeline, tmp_path: Path) -> None:
    unet = pipe.unet
    layers = [
        name
        for name, module in unet.named_modules()
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d)
    ]
    file = write(tmp_path / "x.safetensors", loras.kohya(make_factors(unet, layers, rank=1)))
    _, settings = read_lora(LoRA(file=file), unet)
    assert sorted(settings["target_modules"]) == sorted(layers)


def test_alpha_and_rank_may_differ_from_layer_to_layer(
    pipe: KosmosGPipeline, tmp_path: Path
) -> None:
    unet = pipe.unet
    factors = make_factors(unet, LAYERS[:2], rank=2) | make_factors(unet, LAYERS[2:], rank=8)
    alphas = {LAYERS[0]: 1.0, LAYERS[2]: 16.0}
    file = write(tmp_path / "x.safetensors", loras.kohya(factors, alphas))
    scaled = {
        layer: (down, up * alphas.get(layer, len(down)) / len(down))
        for layer, (down, up) in factors.items()
    }
    assert difference(generate(pipe, lora=LoRA(file=file)), generate_merged(pipe, scaled)) <= 1


def test_the_alpha_that_diffusers_writes_beside_the_tensors(
    pipe: KosmosGPipeline, tmp_path: Path
) -> None:
    factors = make_factors(pipe.unet)
    settings = {"unet.r": 4, "unet.lora_alpha": 2, "unet.alpha_pattern": {LAYERS[0]: 8}}
    file = write_with_settings(tmp_path, factors, settings)
    scaled = {
        layer: (down, up * (2.0 if layer == LAYERS[0] else 0.5))
        for layer, (down, up) in factors.items()
    }
    assert difference(generate(pipe, lora=LoRA(file=file)), generate_merged(pipe, scaled)) <= 1


def write_with_settings(folder: Path, factors: loras.Factors, settings: Any) -> Path:
    text = settings if isinstance(settings, str) else json.dumps(settings)
    metadata = {LORA_ADAPTER_METADATA_KEY: text}
    return write(folder / "x.safetensors", loras.peft(factors), metadata)


def test_rank_stabilised_scaling(pipe: KosmosGPipeline, tmp_path: Path) -> None:
    """Alpha over the root of the rank: with 4 and 16 it is that of alpha and rank alike."""
    factors = make_factors(pipe.unet, rank=16)
    settings = {"unet.r": 16, "unet.lora_alpha": 4, "unet.use_rslora": True}
    file = write_with_settings(tmp_path, factors, settings)
    assert difference(generate(pipe, lora=LoRA(file=file)), generate_merged(pipe, factors)) <= 1


def test_a_dora_of_peft(pipe: KosmosGPipeline, tmp_path: Path) -> None:
    """Its weights have lengths of their own (arXiv 2402.09353, equation 5)."""
    unet = pipe.unet
    factors, tensors = make_factors(unet, LAYERS[:3]), {}
    kept = copy.deepcopy(unet.state_dict())
    merge(unet, factors)
    for number, layer in enumerate(factors):
        weight = loras.weight_of(unet, layer)
        lengths = weight.detach().flatten(1).norm(dim=1)
        wanted = lengths * torch.linspace(0.5, 2, len(lengths)) * (number + 1)
        with torch.no_grad():
            weight *= (wanted / lengths).view(-1, *[1] * (weight.ndim - 1))
        shape = (-1,) if weight.ndim == 2 else (1, -1, 1, 1)
        tensors[f"unet.{layer}.lora_magnitude_vector"] = wanted.view(shape)
    merged = generate(pipe)
    unet.load_state_dict(kept)
    file = write(tmp_path / "x.safetensors", loras.peft(factors) | tensors)
    assert difference(generate(pipe, lora=LoRA(file=file)), merged) <= 1
    plain = generate(pipe)
    assert difference(generate(pipe, lora=LoRA(file=file, scale=0)), plain) == 0
    assert difference(merged, plain) > 8


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_files_of_any_precision(pipe: KosmosGPipeline, tmp_path: Path, dtype: torch.dtype) -> None:
    factors = {
        layer: (down.to(dtype), up.to(dtype))
        for layer, (down, up) in make_factors(pipe.unet).items()
    }
    file = write(tmp_path / "x.safetensors", loras.peft(factors))
    rounded = {layer: (down.float(), up.float()) for layer, (down, up) in factors.items()}
    assert difference(generate(pipe, lora=LoRA(file=file)), generate_merged(pipe, rounded)) <= 1


def test_strength_zero_is_no_lora(pipe: KosmosGPipeline, file: Path) -> None:
    assert difference(generate(pipe, lora=LoRA(file=file, scale=0)), generate(pipe)) == 0


def test_the_recipe_names_file_and_strength(pipe: KosmosGPipeline, file: Path) -> None:
    result = pipe("a cat", num_inference_steps=1, lora=LoRA(file=file, scale=0.5))
    assert result.recipes[0]["lora"].startswith("sha256:")
    assert result.recipes[0]["lora_scale"] == 0.5


# ------------------------------------------------------------------ nothing stays


def test_base_and_lora_by_turns(pipe: KosmosGPipeline, file: Path) -> None:
    first, with_lora, again, with_it_again = (
        generate(pipe, lora=LoRA(file=file) if on else None) for on in (0, 1, 0, 1)
    )
    assert difference(first, again) == 0
    assert difference(with_lora, with_it_again) == 0
    assert difference(first, with_lora) > 8


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_what_fails_on_the_way_leaves_nothing(
    pipe: KosmosGPipeline, file: Path, failure: type[BaseException]
) -> None:
    before = generate(pipe)

    def stop(done: int, total: int) -> None:
        assert count_adapters(pipe.unet) > 0
        raise failure

    with pytest.raises(failure):
        generate(pipe, lora=LoRA(file=file), progress=stop)
    assert count_adapters(pipe.unet) == 0
    assert difference(before, generate(pipe)) == 0


def test_what_was_cut_off_while_cleaning_is_cleaned_by_the_next(
    pipe: KosmosGPipeline, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unet: Any = pipe.unet
    before, unload, calls = generate(pipe), unet.unload_lora, []

    def cut_off_once() -> None:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        unload()

    monkeypatch.setattr(unet, "unload_lora", cut_off_once)
    with pytest.raises(KeyboardInterrupt):
        generate(pipe, lora=LoRA(file=file))
    assert count_adapters(unet) > 0
    assert difference(before, generate(pipe)) == 0


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    "others",
    [
        (
            "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight",
            "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_up.weight",
        ),
        ("bundle_emb.mycat.string_to_param.*", "bundle_emb.mycat.other"),
    ],
)
def test_parts_for_a_text_encoder_are_left_out_and_told(
    pipe: KosmosGPipeline,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    others: tuple[str, str],
) -> None:
    factors = make_factors(pipe.unet)
    tensors = loras.kohya(factors) | dict.fromkeys(others, torch.ones(4, 768))
    file = write(tmp_path / "x.safetensors", tensors)
    with caplog.at_level(logging.WARNING):
        drawn = generate(pipe, lora=LoRA(file=file))
    assert "2 tensors for a text encoder are left out" in caplog.text
    assert difference(drawn, generate_merged(pipe, factors)) <= 1


def sdxl() -> dict[str, Tensor]:
    name = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k"
    return {
        f"{name}.lora_down.weight": torch.ones(4, 2048),
        f"{name}.lora_up.weight": torch.ones(640, 4),
    }


def wider(unet: Any) -> dict[str, Tensor]:
    layer = LAYERS[0]
    outputs = len(loras.weight_of(unet, layer))
    return loras.peft({layer: (torch.ones(4, 2048), torch.ones(outputs, 4))})


def with_nan(factors: loras.Factors) -> loras.Factors:
    down, up = factors[LAYERS[0]]
    return factors | {LAYERS[0]: (down, torch.full_like(up, float("nan")))}


def tensors_that_are_refused(unet: Any) -> dict[str, tuple[dict[str, Tensor], str]]:
    factors = make_factors(unet)
    whole = loras.peft(factors)
    half = {key: tensor for key, tensor in whole.items() if "lora_B" not in key}
    dora = {f"unet.{LAYERS[0]}.lora_magnitude_vector": torch.ones(16)}
    return {
        "SDXL, by its names": (sdxl(), "another base model"),
        "SDXL, by its sizes": (wider(unet), "2048.*another base model"),
        "rank 0": (loras.peft(make_factors(unet, rank=1) | _empty(unet)), "rank 0"),
        "NaN": (loras.peft(with_nan(factors)), "not finite"),
        "infinite alpha": (loras.kohya(factors, {LAYERS[0]: float("inf")}), "not finite"),
        "one factor only": (half, "only some of the factors"),
        "half a DoRA": (whole | dora, "only some of the factors"),
        "text encoder only": ({"lora_te_x.lora_down.weight": torch.ones(4, 4)}, "nothing for the"),
        "nothing at all": ({}, "nothing for the U-Net"),
        "a norm": ({"unet.conv_norm_out.lora_A.weight": torch.ones(4)}, "another base model"),
        "a number": ({"lora_unet_x": torch.tensor(1.0)}, "of another kind"),
        "a checkpoint": ({"model.weight": torch.ones(4)}, "another base model"),
    }


def _empty(unet: Any) -> loras.Factors:
    outputs, inputs = loras.weight_of(unet, LAYERS[0]).shape
    return {LAYERS[0]: (torch.empty(0, inputs), torch.empty(outputs, 0))}


CASES = [
    *("SDXL, by its names", "SDXL, by its sizes", "rank 0", "NaN", "infinite alpha"),
    *("one factor only", "half a DoRA", "text encoder only", "nothing at all"),
    *("a norm", "a number", "a checkpoint"),
]


@pytest.mark.parametrize("case", CASES)
def test_files_that_cannot_be_used(pipe: KosmosGPipeline, tmp_path: Path, case: str) -> None:
    tensors, message = tensors_that_are_refused(pipe.unet)[case]
    file = write(tmp_path / "x.safetensors", tensors)
    with (
        pytest.raises(LoRAError, match=message),
        attached(pipe.unet, LoRA(file=file, name="lora_weights")),
    ):
        pass
    assert count_adapters(pipe.unet) == 0


@pytest.mark.parametrize(
    ("part", "kind"),
    [
        ("hada_w1_a", "a LoHa"),
        ("lokr_w1", "a LoKr"),
        ("oft_diag", "an OFT"),
        ("dora_scale", "a DoRA in the names of LyCORIS"),
        ("lora_mid.weight", "in Tucker form"),
        ("a1.weight", "a GLoRA"),
        ("on_input", "an IA3"),
        ("diff", "whole differences"),
    ],
)
def test_other_kinds_are_called_by_their_names(
    pipe: KosmosGPipeline, tmp_path: Path, part: str, kind: str
) -> None:
    layer = "lora_unet_" + LAYERS[0].replace(".", "_")
    tensors = loras.kohya(make_factors(pipe.unet)) | {f"{layer}.{part}": torch.ones(4, 4)}
    file = write(tmp_path / "x.safetensors", tensors)
    with pytest.raises(LoRAError, match=kind) as refused:
        read_lora(LoRA(file=file), pipe.unet)
    assert "base model" not in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("[]", "cannot be read as a LoRA"),
        ("{", "cannot be read as a LoRA"),
        ("[" * 100_000, "cannot be read as a LoRA"),
        ({"unet.lora_alpha": "abc"}, "cannot be read as a LoRA"),
        ({"unet.lora_alpha": None}, "cannot be read as a LoRA"),
        ({"unet.lora_alpha": float("nan")}, "alpha that is not finite"),
        ({"unet.lora_alpha": 4, "unet.alpha_pattern": [1]}, "cannot be read as a LoRA"),
        ({"unet.lora_alpha": 4, "unet.alpha_pattern": {"((.*)*)*x": 1}}, "by expressions"),
        ({"unet.init_lora_weights": "pissa_niter_4"}, "trained on changed weights"),
    ],
)
def test_settings_that_cannot_be_used(
    pipe: KosmosGPipeline, tmp_path: Path, settings: Any, message: str
) -> None:
    file = write_with_settings(tmp_path, make_factors(pipe.unet), settings)
    with pytest.raises(LoRAError, match=message), attached(pipe.unet, LoRA(file=file)):
        pass
    assert count_adapters(pipe.unet) == 0


class Program:
    """Unpickled, it would leave a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_pickles_are_not_opened(pipe: KosmosGPipeline, tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    torch.save({"x": Program(trace)}, tmp_path / "zip.safetensors")
    (tmp_path / "bare.safetensors").write_bytes(pickle.dumps(Program(trace)))
    for name in ("zip", "bare"):
        with pytest.raises(LoRAError, match="is a pickle"):
            generate(pipe, lora=LoRA(file=tmp_path / f"{name}.safetensors"))
    assert not trace.exists()


def test_a_length_that_begins_like_a_pickle(pipe: KosmosGPipeline, tmp_path: Path) -> None:
    """Safetensors files begin with the length of their header."""
    tensors = loras.peft(make_factors(pipe.unet))
    for filling in range(256):
        file = write(tmp_path / "x.safetensors", tensors, {"note": "x" * filling})
        if file.read_bytes().startswith(b"\x80"):
            break
    assert file.read_bytes().startswith(b"\x80")
    factors, _ = read_lora(LoRA(file=file), pipe.unet)
    assert len(factors) == 2 * len(LAYERS)


@pytest.mark.parametrize("length", [0, 4, 100, -1])
def test_files_that_are_cut_off(pipe: KosmosGPipeline, file: Path, length: int) -> None:
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(LoRAError, match="cut off"):
        generate(pipe, lora=LoRA(file=file))


def test_strengths_that_are_out_of_bounds(file: Path) -> None:
    for scale in (11, -11, float("nan")):
        with pytest.raises(SettingError, match="scale"):
            LoRA(file=file, scale=scale)
