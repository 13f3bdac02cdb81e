"""The models of curation, small and random: what goes in and comes out, and what is not loaded."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPSegForImageSegmentation

from kosmosg.curation.captioning import Blip2Captioner, CaptionImages
from kosmosg.curation.entity_extraction import PLAIN, PROMPT, LanguageModel
from kosmosg.curation.images import store
from kosmosg.curation.models import find_model
from kosmosg.curation.records import Record, Rejection
from kosmosg.curation.segmentation import ClipSegSegmenter, FindMasks
from kosmosg.errors import WeightsError
from tests.curation.tiny_models import write_blip2, write_clipseg, write_mpt, write_qwen2
from tests.hub import connect, running

Load = Callable[[str], object]


def noise(seed: int, side: int = 40) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return Image.fromarray(values)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {
        "blip2": write_blip2(root / "blip2"),
        "qwen2": write_qwen2(root / "qwen2"),
        "mpt": write_mpt(root / "mpt"),
        "clipseg": write_clipseg(root / "clipseg"),
    }


def test_captions(folders: dict[str, Path]) -> None:
    captioner = Blip2Captioner.load(str(folders["blip2"]), tokens=6)
    images = [noise(seed) for seed in range(3)]
    captions = captioner(images)
    assert captioner(images) == captions
    assert [captioner([image])[0] for image in images] == captions
    assert all(len(caption) <= 6 and "<" not in caption for caption in captions)
    step = CaptionImages(captioner, batch=2)
    records = [Record(key=str(seed), image=store(image)) for seed, image in enumerate(images)]
    for outcome, caption in zip(step(records), captions, strict=True):
        if isinstance(outcome, Rejection):
            assert (outcome.reason, caption.split()) == ("no-caption", [])
        else:
            assert outcome.caption == " ".join(caption.split())


def test_captions_are_one_line() -> None:
    records = [Record(key=str(n), image=store(noise(n))) for n in range(2)]
    one, other = CaptionImages(lambda images: [" a  dog\nruns ", " \n"], batch=2)(records)
    assert isinstance(one, Record)
    assert one.caption == "a dog runs"
    assert isinstance(other, Rejection)
    assert other.reason == "no-caption"


@pytest.mark.parametrize("name", ["qwen2", "mpt"])
def test_language_models(folders: dict[str, Path], name: str) -> None:
    """Answers do not depend on the neighbours, which are padded on the left."""
    model = LanguageModel.load(str(folders[name]), tokens=5)
    captions = ["a dog", "a cat and a much longer caption", "a cow"]
    answers = model(captions)
    assert [model([caption])[0] for caption in captions] == answers
    # Untrained, MPT looks at the last words alone, and these are the same for all.
    assert len(set(answers)) > 1 or name == "mpt"
    for answer in answers:
        assert len(answer.text) <= 5
        assert answer.ended or len(answer.text) > 0
        assert not any(symbol in answer.text for symbol in ("</s>", "<pad>"))


def test_an_answer_ends_where_the_model_ends_it(folders: dict[str, Path]) -> None:
    model = LanguageModel.load(str(folders["qwen2"]), tokens=3)
    model._generation.eos_token_id = list(range(len(model._tokenizer)))
    assert all(answer.ended for answer in model(["a dog", "a cat"]))
    model._generation.eos_token_id = [10**6]  # a word that it does not have
    assert not any(answer.ended for answer in model(["a dog", "a cat"]))


def test_prompts(folders: dict[str, Path]) -> None:
    asked = PROMPT.format(caption="a dog")
    chat = LanguageModel.load(str(folders["qwen2"]), tokens=3)
    assert chat._prompt("a dog") == f"<|user|>{asked}\n<|assistant|>"
    plain = LanguageModel.load(str(folders["mpt"]), tokens=3)
    assert plain._prompt("a dog") == PLAIN.format(prompt=asked)


def test_masks_are_those_of_the_model(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter = ClipSegSegmenter.load(str(folders["clipseg"]))
    images, texts = [noise(1), noise(2)], [("dog", "a cat"), ("dog",)]
    found = segmenter(images, texts)
    assert [len(each) for each in found] == [2, 1]
    # The library alone, pair by pair.
    model = CLIPSegForImageSegmentation.from_pretrained(folders["clipseg"]).eval()
    for image, listed, logits in zip(images, texts, found, strict=True):
        for text, each in zip(listed, logits, strict=True):
            pixels = segmenter._processor([image], return_tensors="pt")["pixel_values"]
            words = segmenter._tokenizer([text], return_tensors="pt")
            with torch.inference_mode():
                wanted = model(
                    pixel_values=pixels,
                    input_ids=words["input_ids"],
                    attention_mask=words["attention_mask"],
                ).logits
            assert each.dtype == np.float16
            assert each.shape == (32, 32)
            assert np.allclose(each, wanted.squeeze(0).numpy(), atol=2e-2)
    assert not np.allclose(found[0][0], found[1][0])
    # In groups of pairs as well.
    monkeypatch.setattr("kosmosg.curation.segmentation.PAIRS", 2)
    for whole, parts in zip(found, segmenter(images, texts), strict=True):
        assert all(np.allclose(a, b, atol=1e-2) for a, b in zip(whole, parts, strict=True))


def test_the_masks_of_records(folders: dict[str, Path]) -> None:
    step = FindMasks(ClipSegSegmenter.load(str(folders["clipseg"])), batch=4)
    records = [
        Record(key="1", image=store(noise(1)), tags=("dog", "a very long name of a thing")),
        Record(key="2", image=store(noise(2)), tags=("cat",)),
    ]
    found = step(records)
    assert [len(each.logits) for each in found if isinstance(each, Record)] == [2, 1]


@pytest.mark.parametrize(
    ("name", "load"),
    [
        ("blip2", lambda name: Blip2Captioner.load(name, 5)),
        ("qwen2", lambda name: LanguageModel.load(name, 5)),
        ("clipseg", lambda name: ClipSegSegmenter.load(name)),
    ],
)
def test_nothing_but_whole_safetensors_is_loaded(
    folders: dict[str, Path], name: str, load: Load, tmp_path: Path
) -> None:
    folder = tmp_path / name
    shutil.copytree(folders[name], folder)
    file = folder / "model.safetensors"
    tensors = load_file(file)
    key = next(key for key in tensors if "norm" in key and "weight" in key)

    save_file({k: v for k, v in tensors.items() if k != key}, file, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=f"lacks 1 tensors, such as .*{key.split('.')[-1]}"):
        load(str(folder))
    save_file(tensors | {key: tensors[key] * torch.nan}, file, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match="not finite"):
        load(str(folder))
    file.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"a program")
    with pytest.raises(WeightsError, match="has no safetensors"):
        load(str(folder))


def test_configurations_with_code_of_their_own(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "qwen2"
    shutil.copytree(folders["qwen2"], folder)
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "evil.Model"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match="asks for 'auto_map'"):
        LanguageModel.load(str(folder), 5)


def test_models_that_are_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running() as hub:
        connect(hub, tmp_path / "cache", monkeypatch)
        with pytest.raises(WeightsError, match="neither a folder here nor a repository on http"):
            find_model("nobody/no-such-model@main")
    with pytest.raises(WeightsError, match="nor a name that repositories can have"):
        find_model("no/such/folder")
    (tmp_path / "config.json").touch()
    with pytest.raises(WeightsError, match="has no safetensors"):
        find_model(str(tmp_path))


def test_of_a_repository_only_data_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {"config.json": b"{}", "model.safetensors": b"", "vocab.txt": b"dog"}
    others = {"model.py": b"raise", "pytorch_model.bin": b"", "old/model.pt": b""}
    with running() as hub:
        connect(hub, tmp_path / "cache", monkeypatch)
        repository = hub.add("somebody/model", wanted | others)
        repository.commit({"model.safetensors": b"new"}, "v1")
        folder = find_model("somebody/model")
        assert {path.name: path.read_bytes() for path in folder.rglob("*.*")} == wanted
        assert (find_model("somebody/model@v1") / "model.safetensors").read_bytes() == b"new"
        assert {*hub.downloads()} == wanted.keys()
