"""The composition: full size on the meta device, and properties of small models."""

import json
import shutil
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from kosmosg.checkpoints.loading import is_finite, load_model
from kosmosg.checkpoints.parameter_names import KOSMOSG, official_key
from kosmosg.errors import PromptError, WeightsError
from kosmosg.models.aligner import Reconstruction
from kosmosg.models.config import FULL_SIZE
from kosmosg.models.kosmosg import KosmosG, KosmosGConfig
from kosmosg.prompts.batch import Batch, collate
from kosmosg.prompts.tokenizer import TokenizedPrompt
from tests import tiny

IMAGE = TokenizedPrompt(
    ids=(0, 20, *[316] * 9, 317, 21), image_mask=(False,) * 3 + (True,) * 8 + (False,) * 2
)
TEXT = TokenizedPrompt(ids=(0, 20, 21, 22), image_mask=(False,) * 4)


@pytest.fixture(scope="module")
def model() -> KosmosG:
    torch.manual_seed(0)
    return KosmosG(KosmosGConfig.from_sizes(tiny.SIZES)).eval()


@pytest.fixture(scope="module")
def full_size() -> KosmosG:
    with torch.device("meta"):
        return KosmosG(KosmosGConfig.from_sizes(FULL_SIZE))


def pixels(count: int) -> list[Any]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(3, 56, 56, generator=generator).numpy() for _ in range(count)]


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


# ------------------------------------------------------------------ full size (paper, section 2)


def test_parameter_counts_of_the_full_size(full_size: KosmosG) -> None:
    language = full_size.kosmos2
    text = language.text_model.model
    aligner = full_size.aligner
    assert count(full_size) == 1_887_837_696
    assert count(language) == 1_662_375_936
    assert count(language.text_model) == 1_340_180_480
    assert count(text.embed_tokens) == 131_086_336
    assert {count(layer) for layer in text.layers} == {50_378_752}
    assert len(text.layers) == 24
    assert count(text.layer_norm) == 4_096
    assert count(language.vision_model) == 303_179_776
    assert count(language.image_to_text_projection) == 19_015_680
    assert count(aligner) == 225_461_760
    first = count(aligner.encoder) + count(aligner.input_projection) + count(aligner.positions)
    assert first == 111_887_616
    assert count(aligner.positions) == 25_165_824
    assert aligner.queries.numel() == 59_136
    assert count(aligner.decoder) == 113_515_008


def test_parameter_counts_of_the_reconstruction_half(full_size: KosmosG) -> None:
    with torch.device("meta"):
        half = Reconstruction(full_size.config.aligner_config)
    assert count(half.decoder) == 113_515_008
    output = count(half.encoder) + count(half.positions) + count(half.output_projection)
    assert output == 111_888_896
    assert half.queries.numel() == 25_165_824
    assert count(half) + count(full_size.aligner) == 476_031_488


# Names and shapes of the authors' final checkpoint, written out from its own notation.
LINEAR = {"q_proj": 1, "k_proj": 1, "v_proj": 1, "out_proj": 1}


def linear(name: str, out: int, into: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (out, into), f"{name}.bias": (out,)}


def norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def attention(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {k: v for part in LINEAR for k, v in linear(f"{name}.{part}", width, width).items()}


def layer(name: str, width: int, ffn: int, cross: bool = False) -> dict[str, tuple[int, ...]]:
    shapes = attention(f"{name}.self_attn", width) | norm(f"{name}.self_attn.inner_attn_ln", width)
    shapes |= norm(f"{name}.self_attn_layer_norm", width) | norm(f"{name}.final_layer_norm", width)
    shapes |= linear(f"{name}.ffn.fc1", ffn, width) | linear(f"{name}.ffn.fc2", width, ffn)
    shapes |= norm(f"{name}.ffn.ffn_layernorm", ffn)
    if cross:
        shapes |= attention(f"{name}.encoder_attn", width)
        shapes |= norm(f"{name}.encoder_attn_layer_norm", width)
    return shapes


def official_shapes() -> dict[str, tuple[int, ...]]:
    text, vision = "gpt_model.decoder", "img_model.visual"
    shapes: dict[str, tuple[int, ...]] = {f"{text}.embed_tokens.weight": (64007, 2048)}
    shapes |= norm(f"{text}.layer_norm", 2048)
    shapes |= {f"{vision}.class_embedding": (1024,), f"{vision}.conv1.weight": (1024, 3, 14, 14)}
    shapes |= {f"{vision}.positional_embedding": (257, 1024)}
    shapes |= norm(f"{vision}.ln_pre", 1024) | norm(f"{vision}.ln_post", 1024)
    for i in range(24):
        shapes |= layer(f"{text}.layers.{i}", 2048, 8192)
        block = f"{vision}.transformer.resblocks.{i}"
        shapes |= attention(f"{block}.ts_attn", 1024)
        shapes |= norm(f"{block}.ln_1", 1024) | norm(f"{block}.ln_2", 1024)
        shapes |= linear(f"{block}.mlp.c_fc", 4096, 1024) | linear(
            f"{block}.mlp.c_proj", 1024, 4096
        )
    shapes |= {"img_connector.latent_query": (64, 2048)}
    shapes |= linear("img_connector.dense", 2048, 1024) | attention("img_connector.x_attn", 2048)
    shapes |= {"aligner.encoder_query": (77, 768)}
    shapes |= linear("aligner.encoder_proj.embed_tokens", 768, 2048)
    shapes |= {"aligner.encoder_proj.embed_positions.weight": (32768, 768)}
    for i in range(12):
        shapes |= layer(f"aligner.encoder_proj.layers.{i}", 768, 3072)
        shapes |= layer(f"aligner.encoder.layers.{i}", 768, 3072, cross=True)
    shapes |= norm("aligner.encoder_proj.layer_norm", 768)
    return shapes | norm("aligner.encoder.layer_norm", 768)


def test_official_names_and_shapes_of_the_full_size(full_size: KosmosG) -> None:
    found = {
        official_key(KOSMOSG, name): tuple(tensor.shape)
        for name, tensor in full_size.state_dict().items()
    }
    assert found == official_shapes()


# ------------------------------------------------------------------ small models


def test_a_padded_row_equals_the_row_alone(model: KosmosG) -> None:
    shown = pixels(1)
    with torch.inference_mode():
        both = model(collate([TEXT, IMAGE], shown).to("cpu", torch.float32))
        alone = [
            model(collate([TEXT])),
            model(collate([IMAGE], shown).to("cpu", torch.float32)),
        ]
    torch.testing.assert_close(both, torch.cat(alone), atol=3e-6, rtol=0)


def test_the_image_decides(model: KosmosG) -> None:
    first, second = pixels(2)
    with torch.inference_mode():
        one = model(collate([IMAGE], [first]).to("cpu", torch.float32))
        other = model(collate([IMAGE], [second]).to("cpu", torch.float32))
    assert (one - other).abs().max() > 1e-4


def test_logits_are_never_computed(model: KosmosG) -> None:
    """No tensor as wide as the vocabulary comes out of any module; there is no output matrix."""
    widths = []
    handles = [
        module.register_forward_hook(
            lambda _, args, output: (
                widths.append(output.shape[-1]) if isinstance(output, torch.Tensor) else None
            )
        )
        for module in model.modules()
    ]
    with torch.inference_mode():
        model(collate([TEXT]))
    for handle in handles:
        handle.remove()
    assert widths
    assert model.vocabulary_size not in widths
    assert not any("lm_head" in name or "output" in name for name, _ in model.named_modules())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_near_float32(model: KosmosG, dtype: torch.dtype) -> None:
    batch = collate([IMAGE], pixels(1))
    small: Any = KosmosG(KosmosGConfig.from_sizes(tiny.SIZES)).eval()
    small.load_state_dict(model.state_dict())
    with torch.inference_mode():
        wanted = model(batch.to("cpu", torch.float32))
        found = small.to(dtype)(batch.to("cpu", dtype)).float()
    tolerance = {torch.float16: 5e-3, torch.bfloat16: 5e-2}[dtype]
    assert (found - wanted).abs().max() / wanted.abs().max() < tolerance


def test_gradient_checkpointing_gives_the_same_gradients(model: KosmosG) -> None:
    batch = collate([IMAGE], pixels(1)).to("cpu", torch.float32)

    def gradients(checkpointing: bool) -> dict[str, torch.Tensor]:
        torch.manual_seed(1)
        copy = KosmosG(KosmosGConfig.from_sizes(tiny.SIZES))
        if checkpointing:
            copy.gradient_checkpointing_enable()
            assert all(layer.gradient_checkpointing for layer in copy.aligner.encoder.layers)
        copy.train()
        torch.manual_seed(2)  # dropout
        copy(batch).square().mean().backward()
        return {name: p.grad for name, p in copy.named_parameters() if p.grad is not None}

    plain, checkpointed = gradients(False), gradients(True)
    assert "aligner.queries" in plain
    assert "kosmos2.vision_model.model.encoder.layers.0.mlp.fc1.weight" in plain
    torch.testing.assert_close(plain, checkpointed, atol=1e-6, rtol=1e-4)


def test_a_prompt_that_is_too_long(model: KosmosG) -> None:
    limit = tiny.SIZES["aligner"]["position_table"] - 2
    long = TokenizedPrompt(ids=(0, *[20] * limit), image_mask=(False,) * (limit + 1))
    fits = TokenizedPrompt(ids=long.ids[:-1], image_mask=long.image_mask[:-1])
    with torch.inference_mode():
        assert model(collate([fits])).shape == (1, 77, 32)
        with pytest.raises(PromptError, match=rf"{limit + 1} tokens .*at most {limit}"):
            model(collate([long]))


def test_null_condition_is_that_of_the_start_symbol(model: KosmosG) -> None:
    start = TokenizedPrompt(ids=(0,), image_mask=(False,))
    with torch.inference_mode():
        torch.testing.assert_close(model.null_condition(), model(collate([start])))


def test_collate_pads_on_the_right() -> None:
    batch = collate([TEXT, IMAGE], pixels(1))
    assert isinstance(batch, Batch)
    assert batch.ids[0].tolist() == [0, 20, 21, 22, *[1] * 9]
    assert batch.image_mask.sum(1).tolist() == [0, 8]
    assert batch.padding_mask.sum(1).tolist() == [9, 0]


# ------------------------------------------------------------------ loading


@pytest.fixture
def saved(model: KosmosG, tmp_path):
    model.save_pretrained(tmp_path / "kosmosg")
    return tmp_path / "kosmosg"


def edit(folder, change) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_loading_gives_the_model_back(model: KosmosG, saved) -> None:
    loaded = load_model(KosmosG, saved, dtype=torch.float32)
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    batch = collate([IMAGE], pixels(1)).to("cpu", torch.float32)
    with torch.inference_mode():
        torch.testing.assert_close(loaded(batch), model(batch), atol=0, rtol=0)


KEY = "aligner.queries"
DAMAGES = {
    "missing": (lambda t: t.pop(KEY), r"1 missing tensors .*aligner\.queries"),
    "left over": (lambda t: t.update(extra=torch.zeros(1)), "1 unexpected tensors .*extra"),
    "shape": (
        lambda t: t.update({KEY: torch.zeros(2, 2)}),
        r"1 mismatched tensors .*aligner\.queries \[2, 2\] of numbers instead of",
    ),
    "whole numbers": (
        lambda t: t.update({KEY: t[KEY].long()}),
        r"1 mismatched tensors .*aligner\.queries \[.*\] of int64 instead of",
    ),
    "nan": (lambda t: t[KEY].__setitem__((0, 0), float("nan")), f"{KEY} holds values"),
    "infinity": (lambda t: t[KEY].__setitem__((0, 0), float("inf")), f"{KEY} holds values"),
}


@pytest.mark.parametrize("name", list(DAMAGES))
def test_damaged_weights(saved, name: str) -> None:
    change, message = DAMAGES[name]
    edit(saved, change)
    with pytest.raises(WeightsError, match=message):
        load_model(KosmosG, saved, dtype=torch.float32)


def test_weights_of_another_run_beside_them(saved) -> None:
    shutil.copy(saved / "model.safetensors", saved / "model-00001-of-00001.safetensors")
    with pytest.raises(WeightsError, match=r"tensors in more than one file in .*kosmosg: aligner"):
        load_model(KosmosG, saved, dtype=torch.float32)


def test_truncated_weights(saved) -> None:
    file = saved / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(WeightsError, match="cannot be loaded"):
        load_model(KosmosG, saved, dtype=torch.float32)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_files_that_are_missing(saved, name: str) -> None:
    (saved / name).unlink()
    with pytest.raises(WeightsError, match="kosmosg"):
        load_model(KosmosG, saved, dtype=torch.float32)


@pytest.mark.parametrize(
    "key", ["auto_map", "_attn_implementation", "attn_implementation", "quantization_config"]
)
def test_configurations_that_ask_for_foreign_code(saved, key: str) -> None:
    config = json.loads((saved / "config.json").read_text())
    config["kosmos2"][key] = "somebody/something"
    (saved / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match=key):
        load_model(KosmosG, saved, dtype=torch.float32)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe"])
def test_configurations_that_are_no_json(saved, content: bytes) -> None:
    (saved / "config.json").write_bytes(content)
    with pytest.raises(WeightsError, match=r"config\.json"):
        load_model(KosmosG, saved, dtype=torch.float32)


def test_a_pickle_is_not_loaded_instead(saved) -> None:
    (saved / "model.safetensors").rename(saved / "pytorch_model.bin")
    with pytest.raises(WeightsError):
        load_model(KosmosG, saved, dtype=torch.float32)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_values_are_finite_even_where_their_sum_is_not(dtype: torch.dtype) -> None:
    tensor = torch.full((4, 3), torch.finfo(dtype).max, dtype=dtype)
    assert is_finite(tensor)
    for wrong in (float("nan"), float("inf"), -float("inf")):
        tensor[2, 1] = wrong
        assert not is_finite(tensor)
    tensor[0, 0] = float("inf")  # Cancels no other infinity.
    assert not is_finite(tensor)
