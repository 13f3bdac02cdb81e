"""Networks that score, as transformers has them."""

import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import PartialState
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPTokenizer, ViTModel

from kosmosg.errors import WeightsError
from kosmosg.evaluation import features
from kosmosg.evaluation.features import ClipExtractor, DinoExtractor, dino_pixels, extract
from tests.evaluation.fabricated import Fabricated, photograph
from tests.evaluation.test_inception import Mischief

CPU = torch.device("cpu")


def test_dino_sees_what_its_authors_show_it() -> None:
    """The shorter side 256 by a bicubic filter, 224 of it, in ImageNet's units."""
    image = photograph(0, (300, 200))
    found = dino_pixels(image, 224)
    assert found.shape == (3, 224, 224)
    scaled = image.resize((384, 256), Image.Resampling.BICUBIC)
    crop = np.asarray(scaled.crop((80, 16, 304, 240)), dtype=np.float32) / 255
    expected = (crop - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    assert np.abs(found - expected.transpose(2, 0, 1)).max() < 1e-5


def test_dino_gives_the_class_token(fabricated: Fabricated) -> None:
    dino = DinoExtractor(fabricated.dino, CPU)
    images = [photograph(n, (40 + n, 40)) for n in range(3)]
    found = dino(images)
    assert found.shape == (3, dino.dim)
    network: Any = ViTModel.from_pretrained(fabricated.dino, add_pooling_layer=False)
    pixels = torch.from_numpy(np.stack([dino_pixels(image, 28) for image in images]))
    with torch.inference_mode():
        expected = network.eval()(pixels).last_hidden_state[:, 0]
    torch.testing.assert_close(found, expected)
    assert (found[0] - found[1]).abs().max() > 0.1


def test_clip_reads_77_tokens_at_most(fabricated: Fabricated) -> None:
    clip = ClipExtractor(fabricated.clip, CPU)
    long = "a " * 75
    found = clip.texts([long, long + "b", "c", "a", "b"])
    assert found.shape == (5, 16)
    torch.testing.assert_close(found[0], found[1])
    assert (found[2] - found[3]).abs().max() > 0.01
    torch.testing.assert_close(clip.texts(["c"])[0], found[2])  # whatever padding there is


def test_many_texts_stay_in_order(fabricated: Fabricated, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = ClipExtractor(fabricated.clip, CPU)
    texts = [letter * 3 for letter in "abcdefg"]
    whole = clip.texts(texts)
    monkeypatch.setattr(features, "BATCH", 2)
    torch.testing.assert_close(clip.texts(texts), whole)


def test_features_stay_in_order_however_long_reading_takes(
    fabricated: Fabricated, alone: PartialState, monkeypatch: pytest.MonkeyPatch
) -> None:
    dino = DinoExtractor(fabricated.dino, CPU)
    images = [photograph(n, (32, 32)) for n in range(7)]

    def read(number: int) -> Image.Image:
        time.sleep(0.02 * (7 - number))
        return images[number]

    monkeypatch.setattr(features, "BATCH", 3)
    torch.testing.assert_close(extract(7, read, dino, alone), dino(images).clone())


def test_tensors_that_are_missing_or_left_over(fabricated: Fabricated, tmp_path: Path) -> None:
    """The head of another task may be there; what the network needs must be."""
    folder = tmp_path / "dino"
    shutil.copytree(fabricated.dino, folder)
    file = folder / "model.safetensors"
    tensors = load_file(file)
    save_file({**tensors, "classifier.weight": torch.zeros(2, 32)}, file, {"format": "pt"})
    DinoExtractor(folder, CPU)
    name = next(name for name in tensors if name.startswith("layer"))
    save_file({key: tensors[key] for key in tensors if key != name}, file, {"format": "pt"})
    with pytest.raises(WeightsError, match=rf"lacks 1 tensors, such as .*{name[-10:]}"):
        DinoExtractor(folder, CPU)
    with pytest.raises(WeightsError, match="is no CLIPModel"):
        ClipExtractor(fabricated.dino, CPU)


def test_what_is_not_there(fabricated: Fabricated, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"nobody/nothing cannot be loaded .* id on the Hub"):
        DinoExtractor("nobody/nothing", CPU)
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match=r"config\.json is missing"):
        DinoExtractor(tmp_path / "empty", CPU)
    folder = tmp_path / "clip"
    shutil.copytree(fabricated.clip, folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(WeightsError, match="no CLIP tokenizer"):
        ClipExtractor(folder, CPU)


def test_no_pickle_is_executed(fabricated: Fabricated, tmp_path: Path) -> None:
    folder = tmp_path / "dino"
    shutil.copytree(fabricated.dino, folder)
    (folder / "model.safetensors").unlink()
    torch.save({"embeddings.cls_token": Mischief(tmp_path / "done")}, folder / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="cannot be loaded"):
        DinoExtractor(folder, CPU)
    assert not (tmp_path / "done").exists()


def test_weights_of_the_older_kind(fabricated: Fabricated, tmp_path: Path) -> None:
    """As the Hub has DINO's: a pickle of tensors, and nothing else is taken from it."""
    folder = tmp_path / "dino"
    shutil.copytree(fabricated.dino, folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    images = [photograph(0, (32, 32))]
    expected = DinoExtractor(fabricated.dino, CPU)(images)
    assert torch.equal(DinoExtractor(folder, CPU)(images), expected)


def test_the_fabricated_tokenizer_reads(fabricated: Fabricated) -> None:
    tokens: Any = CLIPTokenizer.from_pretrained(fabricated.clip)("a dog")
    assert len(tokens.input_ids) == 6  # its letters, between beginning and end
