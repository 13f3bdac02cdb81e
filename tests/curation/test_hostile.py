"""Archives, notes and folders that somebody has made to harm, or that broke in odd ways."""

import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from kosmosg.cli import main as cli
from kosmosg.curation.instructpix2pix import open_edits
from kosmosg.curation.sources import open_images
from kosmosg.data.schema import CaptionRules
from kosmosg.data.shards import TarShard, open_shards
from kosmosg.errors import CurationError
from tests.curation.folders import write_edits
from tests.curation.test_img2dataset import jpeg, sample, write_tars
from tests.data.test_shards import write_tar


def curate(folder: Path, output: Path, tiny_weights: Path, *words: str) -> int:
    tokenizer = ("--tokenizer", str(tiny_weights / "tokenizer"))
    options = (*tokenizer, "--min-side", "40", "--in-process", *words)
    return cli.main(["curate", "captions", str(folder), str(output), *options])


def captions(folder: Path) -> list[str]:
    found = []
    for shard in open_shards(folder, CaptionRules(min_side=8)):
        for entry in shard.scan().entries:
            read = shard.read(entry, np.random.default_rng(0))
            found.append(getattr(read, "caption", ""))
    return found


# ------------------------------------------------------------------ archives


def long_names(path: Path) -> None:
    """Headers that each say: the name of the next one follows."""
    info = tarfile.TarInfo("././@LongLink")
    info.type = tarfile.GNUTYPE_LONGNAME
    path.write_bytes(info.tobuf() * 1200 + path.read_bytes())


def sparse(path: Path) -> None:
    """A file with holes, of which the list goes on behind the end of the archive."""
    info = tarfile.TarInfo("000000009.jpg")
    info.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(info.tobuf())
    header[482] = 1
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    path.write_bytes(bytes(header))


def backwards(path: Path) -> None:
    """A file of negative size, behind which one would be back at its beginning."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("000000009.jpg")
        info.pax_headers = {"size": "-1536"}
        archive.addfile(info)
    path.write_bytes(buffer.getvalue())


def negative(path: Path) -> None:
    """A size of minus one, in the notation for large files."""
    info = tarfile.TarInfo("000000009.jpg")
    header = bytearray(info.tobuf(format=tarfile.GNU_FORMAT))
    header[124:136] = b"\xff" * 12
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    path.write_bytes(bytes(header) + bytes(1024))


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("harm", [long_names, sparse, backwards, negative, pipe])
def test_an_archive_that_harms_its_reader(
    harm: Callable[[Path], None], tmp_path: Path, tiny_weights: Path
) -> None:
    folder = write_tars(tmp_path / "in", sample(0))
    write_tar(folder / "00001.tar", [("000000001.txt", b"x")])
    harm(folder / "00001.tar")
    assert TarShard(path=folder / "00001.tar").scan().damage
    assert curate(folder, tmp_path / "out", tiny_weights) == 0
    assert captions(tmp_path / "out") == ["a dog 0"]


def test_an_archive_that_changed_is_another_source(tmp_path: Path) -> None:
    folder = write_tars(tmp_path / "in", sample(0), sample(1))
    path = folder / "00000.tar"
    whole, before = path.read_bytes(), open_images(folder, 1).identity
    with tarfile.open(path) as archive:
        second = archive.getmembers()[3].offset
    path.write_bytes(whole[:second] + bytes(len(whole) - second))
    assert open_images(folder, 1).identity != before
    path.write_bytes(whole)
    assert open_images(folder, 1).identity == before


def test_names_that_mean_something_to_readers(
    tmp_path: Path, tiny_weights: Path, capsys: pytest.CaptureFixture
) -> None:
    strange = sample(1) | {"image": jpeg(1)}
    del strange["jpg"]
    folder = write_tars(tmp_path / "in", sample(0), strange, sample(2) | {"__bad__": b"x"})
    assert curate(folder, tmp_path / "out", tiny_weights) == 0
    assert "| read | 3 | 2 | – | 1 missing-part |" in capsys.readouterr().out
    assert captions(tmp_path / "out") == ["a dog 0", "a dog 2"]


# ------------------------------------------------------------------ images and their notes


def talkative(size: int) -> bytes:
    notes = PngImagePlugin.PngInfo()
    notes.add_text("comment", "x" * size)
    buffer = io.BytesIO()
    Image.open(io.BytesIO(jpeg(5))).save(buffer, format="PNG", pnginfo=notes)
    return buffer.getvalue()


def test_comments_that_no_other_format_takes(tmp_path: Path, tiny_weights: Path) -> None:
    folder = write_tars(tmp_path / "in", sample(0, jpg=None, png=talkative(70_000)))
    assert curate(folder, tmp_path / "out", tiny_weights) == 0
    assert "data:image/jpeg" in (tmp_path / "out" / "sheet.html").read_text()


def test_addresses_that_cannot_be_written(tmp_path: Path, tiny_weights: Path) -> None:
    urls = ("http://\ud800", "", "\udcff", "https://host/3.jpg")
    samples = [sample(number, metadata={"url": url}) for number, url in enumerate(urls)]
    folder = write_tars(tmp_path / "in", *samples)
    assert curate(folder, tmp_path / "out", tiny_weights) == 0
    with tarfile.open(tmp_path / "out" / "000000.tar") as archive:
        texts = [archive.extractfile(each) for each in archive if each.name.endswith(".json")]
        sources = [json.loads(text.read())["source"] for text in texts if text]
    assert sources == [*(f"00000.tar, sample {number}" for number in range(3)), urls[3]]


def test_a_text_without_end(
    tmp_path: Path, tiny_weights: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = write_tars(tmp_path / "in", sample(0), sample(1, txt=b"x" * 2_000_000))
    assert curate(folder, tmp_path / "out", tiny_weights) == 0
    assert "| read | 2 | 1 | – | 1 unreadable |" in capsys.readouterr().out


# ------------------------------------------------------------------ seeds


@pytest.mark.parametrize(
    "text", ['[["000\\ud800", ["1"]]]', "[" * 100_000 + "]" * 100_000, '[["a", ["\\udcff"]]]']
)
def test_seeds_that_are_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "seeds.json").write_text(text)
    with pytest.raises(CurationError, match=r"seeds\.json"):
        open_edits(tmp_path, 1)


def test_a_pair_that_is_listed_twice(tmp_path: Path) -> None:
    folder = write_edits(tmp_path / "edits", 2)
    seeds = json.loads((folder / "seeds.json").read_text())
    (folder / "seeds.json").write_text(json.dumps([*seeds, *seeds]))
    assert sum(len(each.records()) for each in open_edits(folder, 1).listings) == 3


# ------------------------------------------------------------------ folders


def test_one_sample_of_several_images(tmp_path: Path, tiny_weights: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a", "a.k", "B"):
        files = sample(0)
        (folder / f"{name}.txt").write_bytes(files["txt"])
        (folder / f"{name}.json").write_bytes(files["json"])
    for name in ("a.jpg", "a.k.jpg", "a.png", "B.JPG"):
        (folder / name).write_bytes(jpeg(1))
    assert curate(folder, tmp_path / "out", tiny_weights) == 0
    assert len(captions(tmp_path / "out")) == 3


def test_folders_that_are_linked(tmp_path: Path) -> None:
    (tmp_path / "in" / "b").mkdir(parents=True)
    (tmp_path / "else").mkdir()
    for name in ("in/b/1.png", "else/2.png"):
        (tmp_path / name).touch()
    (tmp_path / "in" / "a").symlink_to(tmp_path / "else")
    (tmp_path / "in" / "b" / "back").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "c").symlink_to(tmp_path / "in" / "b")
    (listing,) = open_images(tmp_path / "in", 9).listings
    assert [record.key for record in listing.records()] == ["a/2.png", "b/1.png"]


def test_an_output_whose_name_is_no_text(tmp_path: Path, tiny_weights: Path) -> None:
    folder = write_tars(tmp_path / "in", sample(0))
    assert curate(folder, tmp_path / os.fsdecode(b"o\xff"), tiny_weights) == 0


def test_files_of_the_output_that_somebody_changed(
    tmp_path: Path, tiny_weights: Path, capsys: pytest.CaptureFixture
) -> None:
    folder, out = write_tars(tmp_path / "in", sample(0)), tmp_path / "out"
    assert curate(folder, out, tiny_weights) == 0
    summary = out / "records" / "000000.json"
    summary.with_suffix(".bak.json").write_bytes(summary.read_bytes())
    assert curate(folder, out, tiny_weights) == 0
    capsys.readouterr()
    (out / "000000.tar").rename(tmp_path / "away")
    assert curate(folder, out, tiny_weights) == 1
    assert "000000.tar is gone" in capsys.readouterr().err
    summary.write_text("")
    assert curate(folder, out, tiny_weights) == 1
    assert "000000.json is damaged. Remove it" in capsys.readouterr().err
    summary.unlink()
    assert curate(folder, out, tiny_weights) == 0
    assert captions(out) == ["a dog 0"]


def test_settings_may_change_until_something_is_finished(
    tmp_path: Path, tiny_weights: Path, capsys: pytest.CaptureFixture
) -> None:
    images, out = tmp_path / "in", tmp_path / "out"
    images.mkdir()
    (images / "a.jpg").write_bytes(jpeg(0))
    words = ["curate", "openimages", str(images), str(out), "--in-process"]
    assert cli.main([*words, "--captioner", str(images)]) == 1
    assert "has no safetensors" in capsys.readouterr().err
    assert cli.main([*words, "--captioner", str(tiny_weights)]) == 1
    assert "has no safetensors" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["scratch", "records", "set-aside"])
def test_folders_of_somebody_else_stay(name: str, tmp_path: Path, tiny_weights: Path) -> None:
    folder, out = write_tars(tmp_path / "in", sample(0)), tmp_path / "out"
    (out / name).mkdir(parents=True)
    (out / name / "thesis.txt").touch()
    assert curate(folder, out, tiny_weights) == 1
    assert (out / name / "thesis.txt").exists()
