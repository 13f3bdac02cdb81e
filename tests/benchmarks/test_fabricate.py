"""Random weights: whole, lively, the same every time, and of the official sizes."""

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.fabricate import (
    SIZES,
    Checkpoint,
    fabricate_checkpoint,
    fabricate_weights,
    fill,
    official_shapes,
    write_room,
)
from benchmarks.workbench import read_contents
from kosmosg.checkpoints.fairseq import read_checkpoint
from kosmosg.checkpoints.mapping import OUTPUT_MATRIX
from kosmosg.pipeline import KosmosGPipeline


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fabricated")
    fabricate_weights(folder, "small")
    return folder


def test_they_convert_and_draw(folder: Path) -> None:
    pipeline = KosmosGPipeline.from_pretrained(folder / "weights")
    output = pipeline("a dog", num_inference_steps=2, seed=0)
    assert output.images[0].size == (64, 64)
    grey = np.asarray(output.images[0].convert("L"), dtype=np.int64)
    assert np.ptp(grey) > 50, "a picture of one colour would look the same in any precision"


def test_conditions_depend_on_the_prompt(folder: Path) -> None:
    pipeline = KosmosGPipeline.from_pretrained(folder / "weights")
    dog, null = pipeline.encode_prompt("a dog")
    hat, _ = pipeline.encode_prompt("a red hat")
    assert (dog - hat).abs().mean() > 0.1 * dog.abs().mean()
    assert (dog - null).abs().mean() > 0.1 * dog.abs().mean()


def test_the_checkpoint_is_one_of_the_authors_with_the_tied_matrix_shared(folder: Path) -> None:
    tensors = read_checkpoint(folder / "checkpoint.pt")
    embedding = tensors["gpt_model.decoder.embed_tokens.weight"]
    assert tensors[OUTPUT_MATRIX].data_ptr() == embedding.data_ptr()
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
    wide = [t.float() for t in tensors.values() if t.dim() > 1 and t.numel() > 2000]
    for tensor in wide:
        fan_in = tensor.numel() / len(tensor)
        assert tensor.std().item() == pytest.approx(fan_in**-0.5, rel=0.1)
    assert not any(torch.equal(a, b) for a, b in zip(wide[1:], wide[:-1], strict=True))


def test_they_are_made_once_and_always_alike(folder: Path, tmp_path: Path) -> None:
    before = (folder / "checkpoint.pt").stat().st_mtime_ns
    checkpoint = fabricate_checkpoint(folder, "small")
    assert checkpoint.file.stat().st_mtime_ns == before
    again = tmp_path / "again.pt"
    write_room(again, official_shapes(checkpoint))
    fill(again)
    first, second = read_checkpoint(checkpoint.file), read_checkpoint(again)
    assert first.keys() == second.keys()
    for key, tensor in first.items():
        assert torch.equal(tensor, second[key]), key


def test_contents_of_the_files(folder: Path) -> None:
    pipeline = KosmosGPipeline.from_pretrained(folder / "weights")
    networks = (pipeline.kosmosg, pipeline.decoder.unet, pipeline.decoder.vae)
    count = sum(len(t.flatten()) for network in networks for t in network.state_dict().values())
    files = sorted((folder / "weights").rglob("*.safetensors"))
    assert read_contents(files) == (count, "float16")


def test_the_full_size_has_the_official_parameters(tmp_path: Path) -> None:
    """Counted, not written: the sizes of the README's table."""
    full = Checkpoint(
        file=tmp_path / "x.pt",
        tokenizer=tmp_path,
        stable_diffusion=tmp_path,
        sizes=SIZES["full"],
    )
    shapes = official_shapes(full)
    assert sum(shape.numel() for shape in shapes.values()) == 2_831_012_523
