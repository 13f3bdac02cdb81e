"""The world as shards: complete, the same however it is written, and true to its rules."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from sys import modules
from typing import Any

import numpy as np
import pytest

from kosmosg.data.preprocessing import DocumentPreparer, PromptPreparer
from kosmosg.data.schema import (
    CaptionRules,
    CaptionSample,
    CompositionalSample,
    EditSample,
    InterleavedDocument,
    Sample,
    SubjectSample,
    decode_image,
)
from kosmosg.data.shards import open_shards
from kosmosg.errors import DataError
from kosmosg.prompts.tokenizer import UNK_ID, KosmosGTokenizer
from kosmosg.utils.files import LOCK
from kosmosg.utils.fingerprint import fingerprint
from miniature import __main__ as cli
from miniature.world import NATURAL, Description, Rendering, World, noun_phrase
from miniature.world.dataset import FOLDERS, SETTINGS_FILE, write_dataset
from miniature.world.vocabulary import write_tokenizer
from tests.miniature.world.test_world import read_caption, read_figures

SCALE, PER_SHARD = 0.001, 9
RULES = CaptionRules(min_side=128)
KINDS = {
    "images": CaptionSample,
    "captions": CaptionSample,
    "text": InterleavedDocument,
    "documents": InterleavedDocument,
    "compositional": CompositionalSample,
    "edits": EditSample,
    "neon": CaptionSample,
}
SHOWN_TO_THE_DECODER = ("images", "neon")
SHOWN_IN_STAGE_1 = ("captions", "text", "documents")
SHOWN_IN_STAGE_3 = ("captions", "compositional", "edits")


@pytest.fixture(scope="module")
def directory(art: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "set"
    write_dataset(folder, art, scale=SCALE, per_shard=PER_SHARD, processes=1)
    return folder


@pytest.fixture(scope="module")
def tokenizer(world: World, tmp_path_factory: pytest.TempPathFactory) -> KosmosGTokenizer:
    return write_tokenizer(world, tmp_path_factory.mktemp("tokenizer"))


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def read(folder: Path) -> Iterator[Sample]:
    for shard in open_shards(folder, RULES):
        scan = shard.scan()
        assert not scan.damage
        for entry in scan.entries:
            yield shard.read(entry, rng())


def content(directory: Path) -> dict[str, bytes]:
    """Read all that was written but the lock, which names its process."""
    files = (path for path in directory.rglob("*") if path.is_file() and path.name != LOCK)
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in files}


def test_every_folder_has_its_samples(directory: Path):
    for name, folder in FOLDERS.items():
        samples = [*read(directory / name)]
        assert len(samples) == round(folder.samples * SCALE)
        assert {type(sample) for sample in samples} == {KINDS[name]}
        sizes = [len(shard.scan().entries) for shard in open_shards(directory / name)]
        assert all(size == PER_SHARD for size in sizes[:-1])
    assert sum(folder.samples for folder in FOLDERS.values()) == 124_000


def test_no_sample_stands_there_twice(directory: Path):
    renderings = Counter(
        sample.image.tobytes()
        for name in ("images", "captions")
        for sample in read(directory / name)
        if isinstance(sample, CaptionSample) and sample.image is not None
    )
    assert len(renderings) == 60


def test_the_files_do_not_depend_on_the_number_of_processes(
    art: Path, directory: Path, tmp_path: Path
):
    write_dataset(tmp_path / "set", art, scale=SCALE, per_shard=PER_SHARD, processes=2)
    assert content(tmp_path / "set") == content(directory)


def test_the_seed_decides(art: Path, directory: Path, tmp_path: Path):
    write_dataset(tmp_path / "set", art, seed=1, scale=SCALE, per_shard=PER_SHARD, processes=1)
    other = content(tmp_path / "set")
    for name, data in content(directory).items():
        assert other[name] != data


def test_a_stopped_run_is_continued(art: Path, directory: Path, tmp_path: Path):
    seen: list[tuple[int, int]] = []

    def stop(done: int, total: int) -> None:
        seen.append((done, total))
        if len(seen) == 4:
            raise KeyboardInterrupt

    def write(progress=None) -> None:
        settings = {"scale": SCALE, "per_shard": PER_SHARD, "processes": 1}
        write_dataset(tmp_path, art, **settings, progress=progress)

    with pytest.raises(KeyboardInterrupt):
        write(stop)
    assert seen == [(0, 124), (9, 124), (18, 124), (27, 124)]
    first, second, third = sorted(tmp_path.rglob("*.tar"))
    first.unlink()
    # What a process that was killed leaves behind.
    second.rename(second.with_name(f"{second.name}.0123abcd.part")).write_bytes(b"half")
    untouched = third.stat().st_mtime_ns
    seen.clear()
    write(lambda done, total: seen.append((done, total)))
    assert seen[0] == (9, 124)
    assert seen[-1] == (124, 124)
    assert third.stat().st_mtime_ns == untouched
    assert content(tmp_path) == content(directory)


@pytest.mark.parametrize("changes", [{"seed": 1}, {"scale": 0.002}, {"per_shard": 8}])
def test_a_folder_is_continued_with_its_own_settings_only(
    art: Path, directory: Path, changes: dict
):
    settings = {"scale": SCALE, "per_shard": PER_SHARD, "processes": 1} | changes
    with pytest.raises(DataError, match="was begun with"):
        write_dataset(directory, art, **settings)


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"scale": 0.0}, {"processes": 0}])
def test_settings_out_of_range(art: Path, tmp_path: Path, wrong: dict):
    with pytest.raises(DataError, match="wanted a seed of at least 0"):
        write_dataset(tmp_path, art, **wrong)
    assert not any(tmp_path.iterdir())


def test_nothing_held_out_is_written_about(world: World, directory: Path):
    for name in FOLDERS:
        for sample in read(directory / name):
            if isinstance(sample, InterleavedDocument):
                texts = [part for part in sample.parts if isinstance(part, str)]
                entities = [figure.entity for text in texts for figure in read_figures(text)]
                assert not any(world.is_held_out(e) for e in entities if e.colour != NATURAL)
            elif name not in SHOWN_TO_THE_DECODER:
                assert not isinstance(sample, SubjectSample)
                assert world.may_be_trained_on(read_caption(sample.caption))


def test_nothing_held_out_is_shown(world: World, monkeypatch: pytest.MonkeyPatch):
    shown: list[Description] = []
    real = modules["miniature.world.render"].render_sprites

    def render_sprites(world: World, description: Description, *rest: Any) -> Rendering:
        shown.append(description)
        return real(world, description, *rest)

    monkeypatch.setattr(modules["miniature.world.render"], "render_sprites", render_sprites)
    for name, folder in FOLDERS.items():
        shown.clear()
        source = rng(1)
        for _ in range(60):
            folder.draw(world, source)
        assert len(shown) >= (0 if name == "text" else 60)
        # CLIP, VAE and U-Net come from elsewhere in the paper, and have seen everything.
        assert all(map(world.may_be_trained_on, shown)) == (name not in SHOWN_TO_THE_DECODER)


def test_every_sample_can_be_prepared(directory: Path, tokenizer: KosmosGTokenizer):
    slots = {"tokenizer": tokenizer, "image_slots": 4, "image_size": 128}
    prompts, documents = PromptPreparer(**slots, target_size=128), DocumentPreparer(**slots)
    for name in (*SHOWN_IN_STAGE_3, "images"):
        for sample in read(directory / name):
            for seed in range(6):  # what is dropped and cropped differs
                prepared = prompts(sample, rng(seed))
                assert UNK_ID not in prepared.prompt.ids
                assert len(prepared.prompt.ids) <= 64
    for name in SHOWN_IN_STAGE_1:
        for sample in read(directory / name):
            for piece in documents(sample, rng()):
                assert UNK_ID not in piece.prompt.ids


def test_neon_is_shown_and_not_mentioned(directory: Path):
    for sample in read(directory / "neon"):
        assert isinstance(sample, CaptionSample)
        assert sample.image is not None
        assert read_caption(sample.caption).style == "plain"
        assert np.asarray(sample.image).mean() < 100  # its ground is dark


def test_entities_are_named_by_their_spans(world: World, directory: Path):
    counts = set()
    for sample in read(directory / "compositional"):
        assert isinstance(sample, CompositionalSample)
        figures = read_caption(sample.caption).figures
        counts.add(len(figures))
        for figure, entity in zip(figures, sample.entities, strict=True):
            words = sample.caption[slice(*entity.span)]
            assert words in [noun_phrase(world, figure.entity, said) for said in (False, True)]
            assert sample.caption[: entity.span[0]].strip()
            crop, masked_crop = decode_image(entity.crop), decode_image(entity.masked_crop)
            assert crop.size == masked_crop.size == (128, 128)
            assert masked_crop.getpixel((0, 0)) == (255, 255, 255)
    assert counts == {1, 2}


def test_the_command(art: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    arguments = ["data", str(tmp_path), "--scale", "1e-9", "--processes", "1", "--art", str(art)]
    assert cli.main([*arguments, "--seed", "3"]) == 0
    assert "7/7" in capsys.readouterr().err
    settings = json.loads((tmp_path / SETTINGS_FILE).read_text())
    assert settings.pop("art") == fingerprint(art)
    assert settings == {"seed": 3, "scale": 1e-9, "per_shard": 1000}
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == sorted(FOLDERS)
    assert cli.main([*arguments, "--seed", "4"]) == 1
    assert "was begun with" in capsys.readouterr().err


def test_the_command_for_the_vocabularies(
    art: Path, tmp_path: Path, tokenizer: KosmosGTokenizer, capsys: pytest.CaptureFixture
):
    assert cli.main(["vocabulary", str(tmp_path), "--art", str(art)]) == 0
    assert f"{tmp_path}/tokenizer: {len(tokenizer)} tokens\n" in capsys.readouterr().out
    written = KosmosGTokenizer.from_pretrained(tmp_path / "tokenizer")
    assert written.symbols == tokenizer.symbols
    assert (tmp_path / "clip_tokenizer" / "tokenizer_config.json").is_file()
