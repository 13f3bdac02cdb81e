"""Conversion: every key at its place, or an error that says which is not."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from kosmosg.checkpoints.convert import convert_checkpoint
from kosmosg.checkpoints.parameter_names import (
    ALIASES,
    DEAD,
    KOSMOSG,
    RECONSTRUCTION,
    TABLE,
    UNET,
    VAE,
    find_target,
    official_key,
    why_dead,
)
from kosmosg.checkpoints.stable_diffusion import SD15_UNET, SD15_VAE, StableDiffusionSource
from kosmosg.cli import main as cli
from kosmosg.errors import CheckpointError, KosmosGError, WeightsError
from kosmosg.models.aligner import Reconstruction
from kosmosg.models.config import FULL_SIZE, check_sizes, read_sizes
from kosmosg.models.kosmosg import KosmosG, KosmosGConfig
from kosmosg.pipeline import KosmosGPipeline
from tests import tiny

Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer, a Stable Diffusion folder with a checker, and one without weights."""
    folder = tmp_path_factory.mktemp("surroundings")
    tiny.write_tokenizer(folder / "tokenizer", tiny.SIZES["vocab_size"])
    decoder = tiny.make_random_decoder(tiny.SIZES["aligner"]["dim"])
    decoder.save_pretrained(folder / "sd")
    for name, part in tiny.make_safety_checker().items():
        part.save_pretrained(folder / "sd" / name)
    for part in ("unet", "vae", "scheduler"):
        target = folder / "sd-configs" / part
        target.mkdir(parents=True)
        for file in (folder / "sd" / part).glob("*.json"):
            (target / file.name).write_text(file.read_text())
    return folder


def run(surroundings: Path, tensors: Tensors, output: Path, sd: str = "sd", **options: Any):
    checkpoint = output.with_suffix(".pt")
    torch.save({"model": tensors, "cfg": None}, checkpoint)
    return convert_checkpoint(
        checkpoint,
        output,
        tokenizer=surroundings / "tokenizer",
        stable_diffusion=str(surroundings / sd),
        sizes=options.pop("sizes", tiny.SIZES),
        progress=False,
        **options,
    )


# ------------------------------------------------------------------ stages and containers


@pytest.mark.parametrize(
    ("stage", "decoder", "sd"),
    [
        ("lm", False, "sd"),
        ("align", False, "sd"),
        ("instruct", False, "sd"),
        ("instruct", True, "sd"),
        ("instruct", True, "sd-configs"),
    ],
)
def test_every_stage_opens_and_draws(
    surroundings: Path, tmp_path: Path, stage: str, decoder: bool, sd: str
) -> None:
    report = run(surroundings, tiny.official_checkpoint(stage, decoder), tmp_path / "w", sd)
    assert report.stage == stage
    parts = {KOSMOSG, UNET, VAE} if decoder else {KOSMOSG}
    assert set(report.converted) == parts | ({RECONSTRUCTION} if stage == "align" else set())
    pipeline = KosmosGPipeline.from_pretrained(tmp_path / "w")
    assert pipeline.kosmosg.config.stage == stage
    assert pipeline("a dog", num_inference_steps=1, seed=0).images[0].size == (64, 64)
    assert (pipeline.safety_checker is not None) == (sd == "sd")
    assert any("AlignerNet is not trained" in note for note in report.notes) == (stage == "lm")
    index = json.loads((tmp_path / "w" / "model_index.json").read_text())
    assert index["kosmosg"] == ["kosmosg", "KosmosG"]


def test_the_output_holds_the_checkpoint_s_values(surroundings: Path, tmp_path: Path) -> None:
    tensors = tiny.official_checkpoint()
    run(surroundings, tensors, tmp_path / "w")
    for part in (KOSMOSG, UNET, VAE):
        (file,) = (tmp_path / "w" / part).glob("*.safetensors")
        for name, tensor in load_file(file).items():
            key = official_key(part, name)
            assert key is not None
            assert tensor.dtype == torch.float16
            torch.testing.assert_close(tensor, tensors[key], atol=0, rtol=0)


def test_safetensors_gives_the_same_as_pickle(surroundings: Path, tmp_path: Path) -> None:
    tensors = tiny.official_checkpoint()
    run(surroundings, tensors, tmp_path / "a")
    save_file({key: tensor.clone() for key, tensor in tensors.items()}, tmp_path / "c.safetensors")
    convert_checkpoint(
        tmp_path / "c.safetensors",
        tmp_path / "b",
        tokenizer=surroundings / "tokenizer",
        stable_diffusion=str(surroundings / "sd"),
        sizes=tiny.SIZES,
        progress=False,
    )
    for file in (tmp_path / "a").rglob("*.safetensors"):
        assert file.read_bytes() == (tmp_path / "b" / file.relative_to(tmp_path / "a")).read_bytes()


def test_old_names_of_the_vae_s_attention(surroundings: Path, tmp_path: Path) -> None:
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = {}
    for key, tensor in tiny.official_checkpoint().items():
        for new_name, old_name in old.items():
            if key.startswith("vae.") and "attentions" in key:
                key = key.replace(f".{new_name}.", f".{old_name}.")
        tensors[key] = tensor
    assert any(".proj_attn." in key for key in tensors)
    assert run(surroundings, tensors, tmp_path / "w").converted[VAE] > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_precision(surroundings: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    run(surroundings, tiny.official_checkpoint(decoder=False), tmp_path / "w", dtype=dtype)
    for file in (tmp_path / "w").rglob("*.safetensors"):
        floats = [t for t in load_file(file).values() if t.is_floating_point()]
        assert {tensor.dtype for tensor in floats} == {dtype}, file


# ------------------------------------------------------------------ what is refused


def without(key: str) -> Tensors:
    tensors = tiny.official_checkpoint()
    del tensors[key]
    return tensors


def altered(key: str, value: torch.Tensor) -> Tensors:
    return tiny.official_checkpoint() | {key: value}


QUERY = "aligner.encoder_query"
NAN = torch.full((77, 32), float("nan"))
REFUSED = {
    "missing": (without(QUERY), r"1 missing: aligner\.queries"),
    "missing in the U-Net": (without("diffusion_unet.unet.conv_in.bias"), "unet: 1 missing"),
    "unknown": (altered("extra.thing", NAN), r"1 unknown keys: extra\.thing.*--ignore"),
    "left over": (altered("img_connector.more", NAN), "1 left over: .*more"),
    "shape": (altered(QUERY, torch.zeros(5, 5)), r"queries \(5, 5\) instead of \(77, 32\)"),
    "not finite": (altered(QUERY, NAN), "aligner.queries holds values that are not finite"),
    "overflow": (altered(QUERY, torch.full((77, 32), 1e9)), "not finite in torch.float16"),
    "untied": (
        altered("gpt_model.decoder.output_projection.weight", torch.zeros(320, 64)),
        "must be tied",
    ),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_refused(surroundings: Path, tmp_path: Path, name: str) -> None:
    tensors, message = REFUSED[name]
    with pytest.raises(CheckpointError, match=message):
        run(surroundings, tensors, tmp_path / "w")
    assert [path.name for path in tmp_path.iterdir()] == ["w.pt"], "something half-written stays"


def test_unknown_keys_can_be_ignored(surroundings: Path, tmp_path: Path) -> None:
    report = run(surroundings, altered("extra.thing", NAN), tmp_path / "w", ignore=["extra.*"])
    assert report.left_out["ignored as asked"] == 1


def test_dead_keys_are_counted_by_reason(surroundings: Path, tmp_path: Path) -> None:
    dead = {"img_model.visual.transformer.resblocks.0.attn.in_proj_weight": torch.zeros(2)}
    report = run(surroundings, tiny.official_checkpoint("align") | dead, tmp_path / "w")
    assert report.left_out == {
        "tied to the word embedding": 1,
        "buffer without influence": 1,
        "buffer of the unused xPos": 1,
        "unused duplicate of the attention": 1,
        "Stable Diffusion's own text encoder, stage 2 only": 1,
    }


def test_what_else_is_there_stays(surroundings: Path, tmp_path: Path) -> None:
    """Not even a folder that is named like an unfinished output."""
    (tmp_path / "w.part").mkdir()
    (tmp_path / "w.part" / "precious").touch()
    run(surroundings, tiny.official_checkpoint(), tmp_path / "w")
    assert (tmp_path / "w.part" / "precious").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["w", "w.part", "w.pt"]


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
def test_tensors_that_are_no_weights(
    surroundings: Path, tmp_path: Path, dtype: torch.dtype
) -> None:
    tensors = altered(QUERY, torch.zeros(77, 32, dtype=dtype))
    with pytest.raises(CheckpointError, match=r"1 not of a real type: aligner\.queries"):
        run(surroundings, tensors, tmp_path / "w")


def test_an_old_and_a_new_name_together(surroundings: Path, tmp_path: Path) -> None:
    tensors = tiny.official_checkpoint()
    new = next(key for key in tensors if key.startswith("vae.") and ".to_q.weight" in key)
    tensors[new.replace("to_q", "query")] = tensors[new]
    with pytest.raises(CheckpointError, match="under an old and a new name"):
        run(surroundings, tensors, tmp_path / "w")


def test_the_untrained_aligner_is_always_the_same(surroundings: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        run(surroundings, tiny.official_checkpoint("lm", decoder=False), tmp_path / name)
        torch.manual_seed(3)
    files = [tmp_path / name / "kosmosg" / "model.safetensors" for name in ("a", "b")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_other_users_can_read_what_was_written(surroundings: Path, tmp_path: Path) -> None:
    run(surroundings, tiny.official_checkpoint(), tmp_path / "w")
    for file in (tmp_path / "w").rglob("*.safetensors"):
        assert file.stat().st_mode & 0o777 == 0o644, file
    assert (tmp_path / "w").stat().st_mode & 0o777 == 0o755


def test_a_model_of_another_size_asks_for_its_description(
    surroundings: Path, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match="--config FILE"):
        run(surroundings, tiny.official_checkpoint(), tmp_path / "w", sizes=FULL_SIZE)


def test_an_existing_output_is_kept(surroundings: Path, tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "precious").touch()
    with pytest.raises(CheckpointError, match="exists already"):
        run(surroundings, tiny.official_checkpoint(), tmp_path / "w")
    assert (tmp_path / "w" / "precious").exists()


def test_unet_that_is_nowhere(surroundings: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"'unet' could not be taken .*--stable-diffusion"):
        run(surroundings, tiny.official_checkpoint(decoder=False), tmp_path / "w", sd="tokenizer")


def test_hub_that_does_not_answer(surroundings: Path, tmp_path: Path) -> None:
    """HF_HUB_OFFLINE is set for all tests."""
    save_file(
        {k: t.clone() for k, t in tiny.official_checkpoint(decoder=False).items()},
        tmp_path / "c.safetensors",
    )
    with pytest.raises(CheckpointError, match=r"could not be taken from .*stable-diffusion-v1-5"):
        convert_checkpoint(
            tmp_path / "c.safetensors",
            tmp_path / "w",
            tokenizer=surroundings / "tokenizer",
            sizes=tiny.SIZES,
            progress=False,
        )


def test_tokenizer_that_is_missing(tmp_path: Path, surroundings: Path) -> None:
    with pytest.raises(WeightsError, match="sentencepiece"):
        convert_checkpoint(tmp_path / "c.pt", tmp_path / "w", tokenizer=tmp_path, sizes=tiny.SIZES)


@pytest.mark.parametrize("decoder", [True, False])
def test_the_disk_must_hold_what_comes_from_stable_diffusion_too(
    surroundings: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    decoder: bool,
) -> None:
    tensors = tiny.official_checkpoint(decoder=decoder)
    run(surroundings, tensors, tmp_path / "w")
    sizes = {file: file.stat().st_size for file in (tmp_path / "w").rglob("*.safetensors")}
    theirs = {"safety_checker"} if decoder else {"safety_checker", UNET, VAE}
    of_checkpoint = sum(size for file, size in sizes.items() if file.parent.name not in theirs)
    usage = shutil.disk_usage(tmp_path)
    free = {"free": of_checkpoint}
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(**free))
    with pytest.raises(CheckpointError, match=r"other has .*B free, and .*B are needed"):
        run(surroundings, tensors, tmp_path / "other")
    assert {path.name for path in tmp_path.iterdir()} == {"w", "w.pt", "other.pt"}
    free["free"] = sum(sizes.values())
    run(surroundings, tensors, tmp_path / "other")


def test_a_disk_that_is_full_on_the_way(
    surroundings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("kosmosg.checkpoints.convert.save_module", full)
    tensors = tiny.official_checkpoint("align", decoder=False)
    with pytest.raises(CheckpointError, match=r"w cannot be written \(the disk is full\)"):
        run(surroundings, tensors, tmp_path / "w")
    assert [path.name for path in tmp_path.iterdir()] == ["w.pt"]


def test_an_output_that_cannot_be_made(surroundings: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=r"cannot be written \(Not a directory\)"):
        convert_checkpoint(
            save(tmp_path),
            tmp_path / "file" / "w",
            tokenizer=surroundings / "tokenizer",
            stable_diffusion=str(surroundings / "sd"),
            sizes=tiny.SIZES,
            progress=False,
        )


def save(folder: Path) -> Path:
    torch.save({"model": tiny.official_checkpoint()}, folder / "c.pt")
    return folder / "c.pt"


def copy_of_sd(surroundings: Path, tmp_path: Path) -> Path:
    return shutil.copytree(surroundings / "sd", tmp_path / "sd")


def rename_to_variant(folder: Path) -> None:
    for file in folder.rglob("*.safetensors"):
        file.rename(file.with_name(f"{file.stem}.fp16.safetensors"))


@pytest.mark.parametrize("parts", [("safety_checker",), ("safety_checker", "unet", "vae")])
def test_files_of_a_variant_are_taken(
    surroundings: Path, tmp_path: Path, parts: tuple[str, ...]
) -> None:
    source = copy_of_sd(surroundings, tmp_path)
    for part in parts:
        rename_to_variant(source / part)
    tensors = tiny.official_checkpoint(decoder=False)
    run(surroundings, tensors, tmp_path / "a", sd=str(source))
    run(surroundings, tensors, tmp_path / "b")
    for file in (tmp_path / "a").rglob("*.safetensors"):
        assert file.read_bytes() == (tmp_path / "b" / file.relative_to(tmp_path / "a")).read_bytes()


def break_file(name: str, content: bytes) -> Callable[[Path], Any]:
    return lambda source: (source / name).write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (break_file("safety_checker/model.safetensors", b"cut off"), "'safety_checker' could not"),
        (break_file("safety_checker/config.json", b"{"), "'safety_checker' could not"),
        (break_file("unet/config.json", b'{"sample_size":'), r"unet: .*config\.json is no JSON"),
        (break_file("vae/config.json", b"[]"), "vae: .* holds \\[\\], no settings"),
        (break_file("vae/config.json", b'{"block_out_channels": 3}'), "does not describe a Auto"),
        (break_file("scheduler/scheduler_config.json", b"{"), "scheduler: .* is no JSON"),
        (break_file("scheduler/scheduler_config.json", b"[1]"), "scheduler: .* no settings"),
        (
            break_file("scheduler/scheduler_config.json", b'{"beta_schedule": "steep"}'),
            "scheduler: .* does not describe a PNDMScheduler",
        ),
    ],
)
def test_a_damaged_source_is_told_before_anything_is_written(
    surroundings: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[Path], Any],
    message: str,
) -> None:
    def written(*_: Any) -> None:
        raise AssertionError("a tensor of the checkpoint was written")

    monkeypatch.setattr("kosmosg.checkpoints.convert.write_tensors", written)
    source = copy_of_sd(surroundings, tmp_path)
    damage(source)
    with pytest.raises(KosmosGError, match=message):
        run(surroundings, tiny.official_checkpoint(), tmp_path / "w", sd=str(source))
    assert not (tmp_path / "w").exists()


def test_a_unet_for_other_conditions(surroundings: Path, tmp_path: Path) -> None:
    decoder = tiny.make_random_decoder(2 * tiny.SIZES["aligner"]["dim"])
    decoder.save_pretrained(tmp_path / "sd2")
    tensors = tiny.official_checkpoint(decoder=False)
    with pytest.raises(CheckpointError, match=r"conditions 32 wide, but the U-Net of .* takes 64"):
        run(surroundings, tensors, tmp_path / "w", sd=str(tmp_path / "sd2"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocab_size": None}, "lacks 'vocab_size'"),
        ({"aligner": {}}, "lacks 'aligner.dim'"),
        ({"decoder": tiny.SIZES["decoder"] | {"subln": False}}, "subln=False"),
        ({"decoder": tiny.SIZES["decoder"] | {"connector": "simple"}}, "connector='simple'"),
        ({"decoder": tiny.SIZES["decoder"] | {"activation_fn": "relu"}}, "activation_fn='relu'"),
        ({"decoder": tiny.SIZES["decoder"] | {"dropout": 7}}, "dropout=7"),
        ({"vocab_size": "320"}, "vocab_size='320'"),
        ({"vocab_size": -1}, "vocab_size=-1"),
        ({"aligner": tiny.SIZES["aligner"] | {"heads": 0}}, "heads=0"),
        ({"aligner": tiny.SIZES["aligner"] | {"heads": 3}}, "multiple of aligner.heads"),
        ({"vision": tiny.SIZES["vision"] | {"mlp_ratio": float("nan")}}, "mlp_ratio=nan"),
        ({"vision": tiny.SIZES["vision"] | {"quick_gelu": "no"}}, "quick_gelu='no'"),
        ({"image_token_length": 9}, "must equal decoder.latent_query_num"),
    ],
)
def test_configurations_of_another_architecture(change: dict, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        check_sizes(tiny.SIZES | change)


@pytest.mark.parametrize("text", ["", "[1]", "{", "\xff"])
def test_configuration_files_that_are_none(tmp_path: Path, text: str) -> None:
    file = tmp_path / "config.json"
    file.write_text(text, encoding="latin-1")
    with pytest.raises(CheckpointError):
        read_sizes(file)


# ------------------------------------------------------------------ the key table


@pytest.fixture(scope="module")
def full_size() -> dict[str, torch.nn.Module]:
    """All networks of a final checkpoint, on the meta device."""
    with torch.device("meta"):
        model = KosmosG(KosmosGConfig.from_sizes(FULL_SIZE))
        half_n = Reconstruction(model.config.aligner_config)
    source = StableDiffusionSource()
    networks = {part: source.empty(part) for part in (UNET, VAE)}
    return {KOSMOSG: model, RECONSTRUCTION: half_n, **networks}


def test_every_parameter_has_an_official_name_and_finds_back(full_size: dict) -> None:
    for part, module in full_size.items():
        for name in module.state_dict():
            key = official_key(part, name)
            assert key is not None, name
            assert why_dead(key) is None
            target = find_target(key)
            assert target is not None
            assert (target.component, target.name) == (part, name)


def test_every_row_of_the_table_is_used(full_size: dict) -> None:
    used = set()
    for part, module in full_size.items():
        for name in module.state_dict():
            key = official_key(part, name)
            row = next(row for row in TABLE if _fits(key, row))
            used.add(row)
    # Cross-attention stands in one stack only; the table writes both stacks in one breath.
    unused = {
        row for row in TABLE if row not in used and "_proj.layers.#.encoder_attn" not in row[0]
    }
    assert unused == set()


def _fits(key: str | None, row: tuple[str, str, str]) -> bool:
    from kosmosg.checkpoints.parameter_names import _translate

    return key is not None and _translate(key, row[0], row[2]) is not None


@given(st.text(alphabet=st.sampled_from("abmnorst._0123456789*#"), max_size=60))
def test_arbitrary_keys_are_placed_or_not_but_never_fail(key: str) -> None:
    find_target(key)
    why_dead(key)


@given(
    row=st.sampled_from(TABLE + ALIASES),
    number=st.integers(0, 999),
    rest=st.from_regex(r"[a-z_]{1,12}(\.[a-z_]{1,12})?", fullmatch=True),
)
def test_translation_keeps_numbers_and_rests(row: tuple, number: int, rest: str) -> None:
    theirs = row[0].replace("#", str(number)).replace("*", rest)
    target = find_target(theirs)
    assert target is not None
    if "#" in row[0]:
        assert f".{number}." in target.name
    if row in TABLE and not any(
        _fits(theirs, other) for other in [*ALIASES, *TABLE] if other != row
    ):
        assert official_key(target.component, target.name) == theirs


@given(row=st.sampled_from(DEAD), number=st.integers(0, 99))
def test_dead_keys_have_a_reason(row: tuple, number: int) -> None:
    assert why_dead(row[0].replace("#", str(number)).replace("*", "weight")) == row[1]


# ------------------------------------------------------------------ the command


def test_command_line(
    surroundings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(tiny.SIZES))
    command = [
        *("convert", save(tmp_path), tmp_path / "w"),
        *("--tokenizer", surroundings / "tokenizer", "--stable-diffusion", surroundings / "sd"),
        *("--config", tmp_path / "config.json"),
    ]
    assert cli.main([str(word) for word in command]) == 0
    out, err = capsys.readouterr()
    assert "stage 3 (final)" in out
    assert "left out: 1 (tied to the word embedding)" in out
    assert "100%" in err, "no progress bar"
    assert cli.main([str(word) for word in command]) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert "exists already" in err


def test_configurations_of_stable_diffusion_are_complete(full_size: dict) -> None:
    """Parameters of Stable Diffusion v1.5's networks."""
    count = {
        part: sum(p.numel() for p in module.parameters()) for part, module in full_size.items()
    }
    assert count[UNET] == 859_520_964
    assert count[VAE] == 83_653_863
    assert SD15_UNET["sample_size"] * 8 == SD15_VAE["sample_size"] == 512
