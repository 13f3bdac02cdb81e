"""Weights that are missing or damaged: setup fails and says which file, and what to do."""

import io
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from kosmosg.diffusion.request import GenerationRequest
from kosmosg.errors import SettingError, WeightsError
from kosmosg.serving.service import ALLOW_NO_CHECKER, COMPILE, DTYPE, OFFLOAD, Service
from scripts.local_server import ServerError
from tests import tiny
from tests.serving.client import Server, files

UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
MODEL = "kosmosg/model.safetensors"
AGAIN = "Convert or download these weights again"


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights with a safety checker; tests change copies of them."""
    directory = tmp_path_factory.mktemp("complete") / "weights"
    return tiny.write_weights(directory, scale=8, safety_checker=tiny.make_safety_checker())


@pytest.fixture
def copy(complete: Path, tmp_path: Path) -> Path:
    return shutil.copytree(complete, tmp_path / "weights")


# ------------------------------------------------------------------ ways to damage weights

Damage = Callable[[Path], None]


def remove(name: str) -> Damage:
    def damage(weights: Path) -> None:
        path = weights / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return damage


def cut(name: str) -> Damage:
    def damage(weights: Path) -> None:
        content = (weights / name).read_bytes()
        (weights / name).write_bytes(content[: len(content) // 2])

    return damage


def overwrite(name: str, text: str) -> Damage:
    def damage(weights: Path) -> None:
        (weights / name).write_text(text, encoding="utf-8")

    return damage


def change(name: str, edit: Callable[[dict[str, torch.Tensor]], None]) -> Damage:
    def damage(weights: Path) -> None:
        tensors = load_file(weights / name)
        edit(tensors)
        save_file(tensors, weights / name, metadata={"format": "pt"})

    return damage


def widen(key: str) -> Callable[[dict[str, torch.Tensor]], None]:
    return lambda tensors: tensors.update({key: torch.cat([tensors[key], tensors[key]])})


def fill(key: str, value: float) -> Callable[[dict[str, torch.Tensor]], None]:
    def edit(tensors: dict[str, torch.Tensor]) -> None:
        tensors[key].view(-1)[-1] = value

    return edit


def drop(key: str) -> Callable[[dict[str, torch.Tensor]], None]:
    return lambda tensors: tensors.update({f"{key}.renamed": tensors.pop(key)})


def add(key: str) -> Callable[[dict[str, torch.Tensor]], None]:
    return lambda tensors: tensors.update({key: torch.zeros(1)})


def other_tokenizer(weights: Path) -> None:
    shutil.rmtree(weights / "tokenizer")
    tiny.write_tokenizer(weights / "tokenizer", 300)


def narrow_unet(weights: Path) -> None:
    """A decoder for conditions of another width, as Stable Diffusion 2 would be."""
    decoder = tiny.make_random_decoder(48, scale=8)
    decoder.unet.save_pretrained(weights / "unet")


UNET_KEY = "conv_in.weight"
VAE_KEY = "decoder.conv_out.bias"
MODEL_KEY = "kosmos2.text_model.model.layers.0.ffn.fc1.weight"
ALIGNER_KEY = "aligner.queries"

DAMAGES: dict[str, tuple[Damage, tuple[str, ...]]] = {
    "no unet": (remove("unet"), ("lacks unet", "python -m kosmosg convert")),
    "no tokenizer": (remove("tokenizer"), ("lacks tokenizer", "kosmosg convert")),
    "no kosmosg or vae": (
        lambda weights: (remove("kosmosg")(weights), remove("vae")(weights))[0],
        ("lacks kosmosg, vae", "kosmosg convert"),
    ),
    "no unet config": (remove("unet/config.json"), ("unet/config.json is missing", AGAIN)),
    "no unet file": (remove(UNET), ("unet: ", AGAIN)),
    "no model file": (remove(MODEL), ("kosmosg: ", AGAIN)),
    "no feature extractor": (remove("feature_extractor"), ("feature_extractor", AGAIN)),
    "no checker file": (remove("safety_checker/model.safetensors"), ("safety_checker: ", AGAIN)),
    "no dictionary": (remove("tokenizer/dict.txt"), ("dict.txt", "no such file in")),
    "no scheduler file": (
        remove("scheduler/scheduler_config.json"),
        ("scheduler_config.json", AGAIN),
    ),
    "cut unet": (cut(UNET), ("unet: ", AGAIN)),
    "cut vae": (cut(VAE), ("vae: ", AGAIN)),
    "cut model": (cut(MODEL), ("kosmosg: ", AGAIN)),
    "cut dictionary": (cut("tokenizer/dict.txt"), ("tokenizer", "Convert")),
    "cut sentencepiece": (cut("tokenizer/sentencepiece.bpe.model"), ("SentencePiece",)),
    "empty unet": (overwrite(UNET, ""), ("unet: ", AGAIN)),
    "page instead of a model": (overwrite(MODEL, "<html>403</html>"), ("kosmosg: ", AGAIN)),
    "broken config": (overwrite("vae/config.json", "{"), ("vae: ", AGAIN)),
    "broken scheduler": (
        overwrite("scheduler/scheduler_config.json", "{"),
        ("scheduler_config.json is no JSON", AGAIN),
    ),
    "scheduler that is none": (
        overwrite("scheduler/scheduler_config.json", "[]"),
        ("scheduler_config.json holds [], no settings", AGAIN),
    ),
    "broken dictionary": (overwrite("tokenizer/dict.txt", "cat\n"), ("dict.txt, line 1", "'cat'")),
    "unet shape": (change(UNET, widen(UNET_KEY)), ("unet: ", UNET_KEY, AGAIN)),
    "vae shape": (change(VAE, widen(VAE_KEY)), ("vae: ", VAE_KEY, AGAIN)),
    "model shape": (change(MODEL, widen(MODEL_KEY)), ("kosmosg: ", MODEL_KEY, AGAIN)),
    "unet NaN": (change(UNET, fill(UNET_KEY, float("nan"))), ("unet: ", UNET_KEY, "not finite")),
    "vae infinity": (
        change(VAE, fill(VAE_KEY, float("-inf"))),
        ("vae: ", VAE_KEY, "not finite", AGAIN),
    ),
    "aligner NaN": (
        change(MODEL, fill(ALIGNER_KEY, float("nan"))),
        ("kosmosg: ", ALIGNER_KEY, "not finite", AGAIN),
    ),
    "unet renamed": (change(UNET, drop(UNET_KEY)), ("unet: ", UNET_KEY, AGAIN)),
    "model renamed": (change(MODEL, drop(MODEL_KEY)), ("kosmosg: ", MODEL_KEY, AGAIN)),
    "unet left over": (change(UNET, add("spare")), ("unet: ", "spare", AGAIN)),
    "model left over": (change(MODEL, add("spare")), ("kosmosg: ", "spare", AGAIN)),
    "other tokenizer": (other_tokenizer, ("300", "320", "tokenizer", "Convert")),
    "other decoder": (narrow_unet, ("32", "48", "Stable Diffusion v1.5")),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_damaged_weights(copy: Path, case: str) -> None:
    damage, words = DAMAGES[case]
    damage(copy)
    with pytest.raises(WeightsError) as caught:
        Service.open(copy)
    message = str(caught.value)
    assert all(word in message for word in words), message


def test_missing_directory(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no weights in .*nowhere") as caught:
        Service.open(tmp_path / "nowhere")
    assert "--weights" in str(caught.value)
    assert "COG_WEIGHTS" in str(caught.value)


def test_undamaged_weights(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The tests above fail for the damage alone."""
    Service.open(copy)
    assert str(copy) in capsys.readouterr().out


# ------------------------------------------------------------------ through the server


def failed_setup(weights: Path, folder: Path, **environment: str) -> str:
    """Start a server that must fail; returns the log of its setup."""
    server = Server(weights, folder, **environment)
    try:
        server.start()
        with pytest.raises(ServerError, match="setup failed"):
            server.wait_ready()
        health = server.health()
        assert health["status"] == "SETUP_FAILED"
        assert server.predict({"prompt": "a cat"}).status_code == 503
        return health["setup"]["logs"]
    finally:
        server.stop()


def test_server_without_weights(tmp_path: Path) -> None:
    logs = failed_setup(tmp_path / "nowhere", tmp_path / "run")
    assert "There are no weights in" in logs
    assert "python -m kosmosg download" in logs


def test_server_with_damaged_weights(copy: Path, tmp_path: Path) -> None:
    DAMAGES["unet NaN"][0](copy)
    logs = failed_setup(copy, tmp_path / "run")
    assert f"unet: {UNET_KEY} holds values that are not finite" in logs
    assert AGAIN in logs


# ------------------------------------------------------------------ precision


def test_a_server_in_another_precision(copy: Path, tmp_path: Path) -> None:
    with Server(copy, tmp_path / "run", **{DTYPE: "bfloat16"}) as server:
        assert server.generate().any()
        # What setup() prints may reach the server after it has called itself ready.
        assert "torch.bfloat16" in server.health()["setup"]["logs"] + server.log.read_text()


def test_a_precision_that_there_is_not(copy: Path, tmp_path: Path) -> None:
    logs = failed_setup(copy, tmp_path / "run", **{DTYPE: "half"})
    assert "KOSMOSG_DTYPE is 'half'. Choose one of float16, bfloat16, float32." in logs


def test_convolutions_are_laid_out_where_it_helps(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for dtype, last in (("bfloat16", True), ("float32", False)):
        monkeypatch.setenv(DTYPE, dtype)
        kernel = Service.open(copy).pipeline.unet.conv_in.weight
        assert kernel.is_contiguous(memory_format=torch.channels_last) == last


# ------------------------------------------------------------------ without a safety checker


def enlarge(weights: Path, pixels: int) -> None:
    """Make a decoder of larger images out of one of 64 pixels."""
    file = weights / "unet" / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps(config | {"sample_size": pixels // 8}))


@pytest.mark.parametrize(
    ("pixels", "checker", "leave", "opens"),
    [
        (256, False, None, True),
        (264, False, None, False),
        (512, False, None, False),
        (512, False, "0", False),
        (512, False, "", False),
        (512, False, "1", True),
        (512, True, None, True),
    ],
)
def test_full_size_needs_a_checker(
    copy: Path,
    monkeypatch: pytest.MonkeyPatch,
    pixels: int,
    checker: bool,
    leave: str | None,
    opens: bool,
) -> None:
    enlarge(copy, pixels)
    if not checker:
        shutil.rmtree(copy / "safety_checker")
    monkeypatch.delenv(ALLOW_NO_CHECKER, raising=False)
    if leave is not None:
        monkeypatch.setenv(ALLOW_NO_CHECKER, leave)
    if opens:
        assert Service.open(copy).pipeline.default_size == pixels
    else:
        with pytest.raises(WeightsError, match="no safety checker") as caught:
            Service.open(copy)
        assert "--stable-diffusion" in str(caught.value)
        assert "KOSMOSG_ALLOW_NO_SAFETY_CHECKER=1" in str(caught.value)


def test_start_of_a_server(copy: Path, tmp_path: Path) -> None:
    """It answers while it loads, and turns requests away; then it draws at the weights' size."""
    enlarge(copy, 128)
    server = Server(copy, tmp_path / "run")
    try:
        server.start()
        deadline = time.monotonic() + 20
        while not (health := server.health()):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert health["status"] == "STARTING"
        body = {"prompt": "a cat", "num_images": 1, "num_inference_steps": 1}
        assert server.predict(body).status_code == 503
        server.wait_ready()
        (content,) = files(server.post({"input": body}).json())
        assert Image.open(io.BytesIO(content)).size == (128, 128)
    finally:
        server.stop()


@pytest.mark.parametrize("name", [ALLOW_NO_CHECKER, COMPILE, OFFLOAD])
@pytest.mark.parametrize("value", ["yes", "true", "2", " 1"])
def test_switches_are_one_or_zero(
    complete: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingError, match=f"{name} is '{value}'. Set it to 1, or to 0"):
        Service.open(complete)


def test_offload_needs_a_gpu(complete: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(OFFLOAD, "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SettingError, match=r"there is no GPU here\. Leave KOSMOSG_OFFLOAD out"):
        Service.open(complete)


def test_offloaded_networks_draw_the_same(complete: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the CPU for a GPU nothing moves, but what would move it is put on every network."""
    request = GenerationRequest(prompt="a cat", num_inference_steps=2, seed=5)
    wanted = Service.open(complete).pipeline.generate(request, check_safety=False)
    monkeypatch.setenv(OFFLOAD, "1")
    pipeline = Service.open(complete, device="cpu").pipeline
    assert all(hasattr(getattr(pipeline, name), "_hf_hook") for name in ("kosmosg", "unet", "vae"))
    found = pipeline.generate(request, check_safety=False)
    assert found.images[0].tobytes() == wanted.images[0].tobytes()
