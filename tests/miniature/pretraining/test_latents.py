"""Images encoded once, and the stream over them."""

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image

from kosmosg.data.bad_samples import BadSampleLimit
from kosmosg.data.schema import CaptionRules, CaptionSample, EditSample
from kosmosg.data.shards import open_shards
from kosmosg.errors import DataError, TrainingError
from kosmosg.prompts.images import target_pixels
from miniature.pretraining import latents
from miniature.pretraining.latents import LatentStream, encode_images
from tests import tiny
from tests.shards import write_shards
from tests.training.world import SIZES


@pytest.fixture(scope="module")
def vae() -> AutoencoderKL:
    torch.manual_seed(0)
    return AutoencoderKL(**SIZES["vae"]).eval()


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tiny.write_clip_tokenizer(tmp_path_factory.mktemp("words"))


def image(number: int) -> Image.Image:
    rng = np.random.default_rng(number)
    return Image.fromarray(rng.integers(0, 255, (400, 400, 3), dtype=np.uint8))


def shards(folder: Path, samples: list[Any]) -> Any:
    write_shards(samples, folder, per_shard=2)
    return open_shards(folder)


def test_what_is_encoded(tmp_path: Path, vae: AutoencoderKL, tokenizer: Any) -> None:
    samples = [CaptionSample(caption="abc"[: n + 1], image=image(n)) for n in range(3)]
    found = encode_images(shards(tmp_path / "a", samples), vae, tokenizer, tmp_path / "file")
    assert found["ids"].shape == (3, 77)
    for row, sample in enumerate(samples):
        assert (
            found["ids"][row].tolist() == tokenizer(sample.caption, padding="max_length").input_ids
        )
        assert sample.image is not None
        pixels = torch.from_numpy(target_pixels(sample.image, 64)).float()[None]
        with torch.no_grad():
            wanted = vae.encode(pixels).latent_dist  # type: ignore[union-attr]
        torch.testing.assert_close(found["mean"][row].float(), wanted.mean[0], atol=2e-3, rtol=0)
        torch.testing.assert_close(
            found["deviation"][row].float(), wanted.std[0], atol=2e-3, rtol=0
        )
    again = encode_images(open_shards(tmp_path / "a"), vae, tokenizer, tmp_path / "file")
    assert all(torch.equal(again[name], found[name]) for name in found)


def test_other_images_are_encoded_anew(
    tmp_path: Path, vae: AutoencoderKL, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the shards have the same names."""
    written: list[Any] = []
    save = latents.save_file
    monkeypatch.setattr(latents, "save_file", lambda *each: (written.append(each), save(*each)))
    samples = [CaptionSample(caption="a", image=image(0))]
    first, second = shards(tmp_path / "a", samples), shards(tmp_path / "b", samples)
    assert [each.name for each in first] == [each.name for each in second]
    file = tmp_path / "file"
    for files, min_side, wanted in ((first, 0, 1), (first, 0, 1), (first, 9, 2), (second, 9, 3)):
        encode_images(files, vae, tokenizer, file, min_side=min_side)
        assert len(written) == wanted
    os.utime(second[0].path, ns=(5, 5))
    encode_images(second, vae, tokenizer, file, min_side=9)
    assert len(written) == 4
    # Nor if they would be the same but for their precision or their size.
    for _ in range(2):
        encode_images(second, vae, tokenizer, file, min_side=9, bfloat16=True)
        assert len(written) == 5
    larger: Any = AutoencoderKL(**{**SIZES["vae"], "sample_size": 72}).eval()
    larger.load_state_dict(vae.state_dict())  # type: ignore[union-attr]
    found = encode_images(second, larger, tokenizer, file, min_side=9, bfloat16=True)
    assert len(written) == 6
    assert found["mean"].shape[-1] == 9


def test_bad_samples_are_skipped_up_to_a_limit(
    tmp_path: Path, vae: AutoencoderKL, tokenizer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    edit = EditSample(caption="a", instruction="b", before=image(0), after=image(1))
    samples = [CaptionSample(caption="a", image=image(2)), edit, edit]
    found = encode_images(shards(tmp_path / "a", samples), vae, tokenizer, tmp_path / "one")
    assert len(found["ids"]) == 1
    assert "1 images are encoded; skipped: 2 × wrong-kind" in caplog.text
    limit = BadSampleLimit(share=0.5, window=2, minimum=2)
    with pytest.raises(DataError, match="more than the limit of 50%"):
        encode_images(open_shards(tmp_path / "a"), vae, tokenizer, tmp_path / "two", limit=limit)
    with pytest.raises(DataError, match=r"no captioned image .*skipped: 1 × wrong-kind"):
        encode_images(shards(tmp_path / "b", [edit]), vae, tokenizer, tmp_path / "two")
    write_shards(samples[:1], tmp_path / "c")
    small = open_shards(tmp_path / "c", CaptionRules(min_side=500))
    with pytest.raises(DataError, match=r"1 × too-small.*or choose a smaller --min-side"):
        encode_images(small, vae, tokenizer, tmp_path / "two")
    assert not (tmp_path / "two").exists()


def test_a_full_disk_and_a_damaged_file(
    tmp_path: Path, vae: AutoencoderKL, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = shards(tmp_path / "a", [CaptionSample(caption="a", image=image(2))])
    (tmp_path / "file").write_bytes(b"cut off")
    with monkeypatch.context() as patch:

        def no_space(*_: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        patch.setattr(latents, "save_file", no_space)
        with pytest.raises(TrainingError, match="file could not be written: the disk is full"):
            encode_images(files, vae, tokenizer, tmp_path / "file")
    assert len(encode_images(files, vae, tokenizer, tmp_path / "file")["ids"]) == 1


# ------------------------------------------------------------------ the stream


def numbered(count: int) -> dict[str, torch.Tensor]:
    values = torch.arange(count)[:, None]
    return {"mean": values, "deviation": values, "ids": values}


def take(stream: LatentStream, count: int) -> list[tuple[int, int]]:
    samples = [next(stream) for _ in range(count)]
    return [(int(sample.ids), sample.seed) for sample in samples]


def test_every_pass_has_all_in_another_order() -> None:
    found = take(LatentStream(numbered(7), seed=0), 21)
    passes = [[row for row, _ in found[start : start + 7]] for start in (0, 7, 14)]
    assert all(sorted(each) == [*range(7)] for each in passes)
    assert len({tuple(each) for each in passes}) == 3
    assert len({seed for _, seed in found}) == 21


def test_processes_share_one_sequence() -> None:
    whole = take(LatentStream(numbered(5), seed=3), 12)
    parts = [take(LatentStream(numbered(5), seed=3, rank=r, world_size=3), 4) for r in range(3)]
    assert [sample for group in zip(*parts, strict=True) for sample in group] == whole
    assert whole != take(LatentStream(numbered(5), seed=4), 12)


def test_it_resumes_anywhere() -> None:
    stream = LatentStream(numbered(5), seed=0, rank=1, world_size=2)
    take(stream, 4)
    state = stream.state_dict()
    wanted = take(stream, 6)
    other = LatentStream(numbered(5), seed=0, rank=1, world_size=2)
    other.load_state_dict(state)
    assert take(other, 6) == wanted
    for refused in (
        LatentStream(numbered(6), seed=0, rank=1, world_size=2),
        LatentStream(numbered(5), seed=0, rank=1, world_size=3),
        LatentStream(numbered(5), seed=1, rank=1, world_size=2),
    ):
        with pytest.raises(TrainingError, match="same data, seed and processes"):
            refused.load_state_dict(state)
