"""WebDataset shards: what is written is read, and every kind of damage has its reason."""

import io
import json
import os
import tarfile
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from webdataset.tariterators import group_by_keys, tar_file_expander

from kosmosg.data import shards
from kosmosg.data.bad_samples import BadSample
from kosmosg.data.entities import draw_prompt
from kosmosg.data.options import EntityOptions
from kosmosg.data.schema import (
    CaptionRules,
    CaptionSample,
    CompositionalSample,
    EditSample,
    EncodedImage,
    EntityImages,
    InterleavedDocument,
    Sample,
    SubjectSample,
    decode_image,
)
from kosmosg.data.shards import KEPT, TarShard, open_shards, scan_archive, write_shard
from kosmosg.errors import DataError
from tests.shards import write_shards

RULES = CaptionRules(min_side=8)
CHOOSE = np.random.default_rng(0)


def shaded(shade: int, size: tuple[int, int] = (8, 10)) -> Image.Image:
    return Image.new("RGB", size, (shade, 255 - shade, 7))


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


SAMPLES: tuple[Sample, ...] = (
    CaptionSample(caption="ein Hund — 犬", image=shaded(1)),
    CaptionSample(caption="text alone", image=None),
    EditSample(caption="a cat", instruction="a hat", before=shaded(2), after=shaded(3)),
    CompositionalSample(
        caption="a dog and a cat",
        entities=(
            EntityImages(span=(2, 5), crop=shaded(4), masked_crop=shaded(5)),
            EntityImages(span=(12, 15), crop=shaded(6), masked_crop=shaded(7)),
        ),
        target=shaded(8),
    ),
    SubjectSample(prompt="both at sea", images=(shaded(11), shaded(12)), target=shaded(13)),
    InterleavedDocument(parts=("one", shaded(9), shaded(10), "two")),
)


def read_all(shard: TarShard) -> list[Sample | str]:
    """Read every sample, or the reason for which it cannot be."""
    results: list[Sample | str] = []
    for entry in shard.scan().entries:
        try:
            results.append(shard.read(entry, CHOOSE))
        except BadSample as fault:
            results.append(fault.reason)
    return results


def write_tar(path: Path, files: Sequence[tuple[str, bytes]]) -> TarShard:
    with tarfile.open(path, "w") as archive:
        for name, data in files:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return TarShard(path=path, rules=RULES)


def caption_files(key: str = "0") -> list[tuple[str, bytes]]:
    metadata = {"kind": "caption", "caption": f"caption {key}"}
    return [(f"{key}.json", json.dumps(metadata).encode()), (f"{key}.image.png", png(shaded(1)))]


def plain(value):
    """Turn images into values that can be compared."""
    if isinstance(value, Image.Image | EncodedImage):
        return np.asarray(decode_image(value)).tolist()
    if isinstance(value, tuple):
        return [plain(part) for part in value]
    if hasattr(value, "__dataclass_fields__"):
        return {name: plain(getattr(value, name)) for name in value.__dataclass_fields__}
    return value


@pytest.mark.parametrize("image_format", ["PNG", "WEBP"])
def test_what_is_written_is_read(tmp_path: Path, image_format):
    write_shards(SAMPLES, tmp_path / "set", per_shard=2, image_format=image_format)
    shards = open_shards(tmp_path / "set", RULES)
    assert [shard.name for shard in shards] == ["000000.tar", "000001.tar", "000002.tar"]
    read = [sample for shard in shards for sample in read_all(shard)]
    assert [shard.scan().damage for shard in shards] == [(), (), ()]
    # A caption without its image is for stage 2 only.
    assert read[1] == "missing-part"
    assert plain(tuple(read[:1] + read[2:])) == plain(SAMPLES[:1] + SAMPLES[2:])


def test_photographs_may_be_jpeg(tmp_path: Path):
    write_shards(SAMPLES[:1], tmp_path / "set", image_format="JPEG")
    (sample,) = read_all(open_shards(tmp_path / "set", RULES)[0])
    assert isinstance(sample, CaptionSample) and sample.image is not None
    assert np.abs(np.asarray(sample.image, dtype=int) - np.asarray(shaded(1))).max() < 8


def test_equal_samples_give_equal_bytes(tmp_path: Path):
    first = write_shards(SAMPLES, tmp_path / "a")
    second = write_shards(iter(SAMPLES), tmp_path / "b")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_the_library_reads_the_shards_too(tmp_path: Path):
    (path,) = write_shards(SAMPLES, tmp_path / "set")
    with path.open("rb") as stream:
        files = tar_file_expander([{"url": path.name, "stream": stream}])
        samples = list(group_by_keys(files))
    assert [json.loads(sample["json"])["kind"] for sample in samples] == [
        *("caption", "caption", "edit", "compositional", "subject", "interleaved"),
    ]
    assert samples[2]["after.png"] == png(shaded(3))


def test_a_shard_is_whole_or_not_there(tmp_path: Path):
    def interrupted():
        yield from SAMPLES[:3]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shard(interrupted(), tmp_path / "0.tar")
    assert not [*tmp_path.iterdir()]
    write_shard(SAMPLES, tmp_path / "0.tar")
    assert [path.name for path in tmp_path.iterdir()] == ["0.tar"]


def test_a_folder_without_shards_is_an_error(tmp_path: Path):
    with pytest.raises(DataError, match="no shards"):
        open_shards(tmp_path)


def test_images_stay_closed_where_only_text_is_read(tmp_path: Path):
    files = [*caption_files()[:1], ("0.image.png", b"no image")]
    shard = write_tar(tmp_path / "0.tar", files)
    assert read_all(shard) == ["image"]
    (sample,) = read_all(TarShard(path=shard.path, rules=CaptionRules(text_only=True)))
    assert sample == CaptionSample(caption="caption 0", image=None)


@pytest.mark.parametrize(("min_side", "good"), [(8, True), (9, False)])
def test_small_images_are_left_out(tmp_path: Path, min_side: int, good: bool):
    path = write_tar(tmp_path / "0.tar", caption_files()).path
    (result,) = read_all(TarShard(path=path, rules=CaptionRules(min_side=min_side)))
    assert (result != "too-small") == good


IMAGE = png(shaded(1))
ENTITY_PARTS = {"target.png": IMAGE, "crop0.png": IMAGE, "masked0.png": IMAGE}


def meta(**fields) -> dict[str, bytes]:
    return {"json": json.dumps(fields).encode()}


def entity_meta(*entities) -> dict[str, bytes]:
    return meta(kind="compositional", caption="a dog", entities=list(entities))


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"image.png": IMAGE}, "metadata"),
        ({"json": b"{"}, "metadata"),
        ({"json": b"\xff\xfe"}, "metadata"),
        ({"json": b"[" * 100_000}, "metadata"),
        ({"json": b"[]"}, "metadata"),
        (meta(), "metadata"),
        (meta(kind="poem"), "metadata"),
        (meta(kind=["caption"]), "metadata"),
        (meta(kind="caption", caption=3) | {"image.png": IMAGE}, "metadata"),
        (meta(kind="caption", caption="\ud800") | {"image.png": IMAGE}, "encoding"),
        (meta(kind="caption", caption="a"), "missing-part"),
        (meta(kind="caption", caption="a") | {"image.txt": IMAGE}, "missing-part"),
        (meta(kind="caption", caption="a") | {"image.jxl": IMAGE}, "image-format"),
        (meta(kind="caption", caption="a") | {"image.png": b""}, "image"),
        (meta(kind="caption", caption="a") | {"image.png": IMAGE[:-30]}, "image"),
        (meta(kind="caption", caption="a") | {"image.png": b"<svg/>"}, "image"),
        (meta(kind="edit", caption="a"), "metadata"),
        (meta(kind="edit", caption="a", instruction="b") | {"before.png": IMAGE}, "missing-part"),
        (meta(kind="compositional", caption="a dog") | ENTITY_PARTS, "metadata"),
        (entity_meta({"start": 2}) | ENTITY_PARTS, "metadata"),
        (entity_meta({"start": 2, "end": 6}) | ENTITY_PARTS, "metadata"),
        (entity_meta({"start": 3, "end": 3}) | ENTITY_PARTS, "metadata"),
        (entity_meta({"start": -1, "end": 3}) | ENTITY_PARTS, "metadata"),
        (entity_meta({"start": "2", "end": 3}) | ENTITY_PARTS, "metadata"),
        (entity_meta({"start": 2, "end": 5}, {"start": 4, "end": 5}) | ENTITY_PARTS, "metadata"),
        (
            entity_meta({"start": 0, "end": 1}, {"start": 2, "end": 5}) | ENTITY_PARTS,
            "missing-part",
        ),
        (meta(kind="subject", prompt="a"), "metadata"),
        (meta(kind="subject", prompt="a", images=0) | {"target.png": IMAGE}, "metadata"),
        (meta(kind="subject", prompt="a", images=True) | {"target.png": IMAGE}, "metadata"),
        (meta(kind="subject", prompt="a", images=1) | {"target.png": IMAGE}, "missing-part"),
        (meta(kind="subject", prompt="a", images=1) | {"image0.png": IMAGE}, "missing-part"),
        (meta(kind="interleaved", parts="text"), "metadata"),
        (meta(kind="interleaved", parts=[{"video": 0}]), "metadata"),
        (meta(kind="interleaved", parts=[{"image": 0}]), "missing-part"),
        (meta(kind="interleaved", parts=["\ud800"]), "encoding"),
    ],
)
def test_a_damaged_sample_has_its_reason(tmp_path: Path, parts: dict[str, bytes], reason: str):
    damaged = [(f"0.{name}", data) for name, data in parts.items()]
    shard = write_tar(tmp_path / "0.tar", [*damaged, *caption_files("1")])
    results = read_all(shard)
    assert results[0] == reason
    assert isinstance(results[1], CaptionSample)


def test_only_the_image_that_is_shown_is_decoded(tmp_path: Path):
    parts = entity_meta({"start": 2, "end": 5}) | ENTITY_PARTS | {"masked0.png": IMAGE[:-30]}
    shard = write_tar(tmp_path / "0.tar", [(f"0.{name}", data) for name, data in parts.items()])
    (sample,) = read_all(shard)
    assert isinstance(sample, CompositionalSample)
    _, (shown,) = draw_prompt(sample, EntityOptions(keep_background=1.0), CHOOSE)
    assert plain(shown) == plain(shaded(1))
    with pytest.raises(BadSample, match="image: masked0 is damaged"):
        draw_prompt(sample, EntityOptions(keep_background=0.0), CHOOSE)


def test_what_was_read_can_be_written(tmp_path: Path):
    first = write_shards(SAMPLES[3:4], tmp_path / "a")
    read = [sample for sample in read_all(TarShard(path=first[0])) if not isinstance(sample, str)]
    second = write_shards(read, tmp_path / "b")
    assert second[0].read_bytes() == first[0].read_bytes()


def test_a_sample_whose_entities_are_none_is_a_caption(tmp_path: Path):
    parts = entity_meta() | {"target.png": IMAGE}
    shard = write_tar(tmp_path / "0.tar", [(f"0.{name}", data) for name, data in parts.items()])
    (sample,) = read_all(shard)
    assert isinstance(sample, CaptionSample) and sample.image is not None


@pytest.mark.parametrize("content", [b"", b"no archive", b"\0" * 100, None], ids=repr)
def test_a_broken_shard_is_reported(tmp_path: Path, content: bytes | None):
    path = tmp_path / "0.tar"
    if content is not None:
        path.write_bytes(content)
    scan = TarShard(path=path).scan()
    assert not scan.entries
    assert [fault.reason for fault in scan.damage] == ["broken-shard"]


def test_wherever_a_shard_is_cut_off_what_is_whole_is_read(tmp_path: Path):
    files = [file for key in "012" for file in caption_files(key)]
    whole = write_tar(tmp_path / "whole.tar", files).path.read_bytes()
    content = 6 * 1024  # a header and a block for each file
    for size in range(1, content + 512, 256):
        path = tmp_path / "cut.tar"
        path.write_bytes(whole[:size])
        shard = TarShard(path=path, rules=RULES)
        assert (len(shard.scan().damage) == 1) == (size < content + 512), size
        results = read_all(shard)
        good = [result for result in results if isinstance(result, CaptionSample)]
        assert [sample.caption for sample in good] == [f"caption {key}" for key in range(len(good))]
        # The images are smaller than their block.
        assert len(good) >= size // 2048


def test_a_garbled_header_is_no_silent_end(tmp_path: Path):
    files = [file for key in "012" for file in caption_files(key)]
    shard = write_tar(tmp_path / "0.tar", files)
    data = bytearray(shard.path.read_bytes())
    data[4 * 1024 : 4 * 1024 + 512] = b"x" * 512
    shard.path.write_bytes(data)
    assert len(read_all(shard)) == 2
    assert len(shard.scan().damage) == 1


@pytest.mark.parametrize("suffix", ["png", "PNG", "jfif", "bmp", "tiff"])
def test_every_format_that_is_read_may_be_in_a_shard(tmp_path: Path, suffix: str):
    files = [caption_files()[0], (f"0.image.{suffix}", IMAGE)]
    (sample,) = read_all(write_tar(tmp_path / "0.tar", files))
    assert isinstance(sample, CaptionSample)


KEYS = ("0", "a", "a.b", "a.b.c", "folder.x/a.b", "v1.image1", "v1.image1.x")


def test_the_files_of_a_sample_need_not_be_neighbours(tmp_path: Path):
    """And their names are taken whole, as far as they do not say what is in a file."""
    texts, images = zip(*(caption_files(key) for key in KEYS), strict=True)
    shard = write_tar(tmp_path / "0.tar", [*texts, *images[::-1]])
    captions = [getattr(sample, "caption", sample) for sample in read_all(shard)]
    assert captions == [f"caption {key}" for key in KEYS]
    assert not shard.scan().damage


def test_hidden_files_are_none_of_a_sample(tmp_path: Path):
    files = [(f"{mark}{name}", data) for name, data in caption_files() for mark in ("._", "")]
    files += [(".DS_Store", b""), ("README", b"")]
    (sample,) = read_all(write_tar(tmp_path / "0.tar", files))
    assert isinstance(sample, CaptionSample)


def test_equal_keys_in_archives_that_were_put_together(tmp_path: Path):
    first, second = ([*caption_files("0"), *caption_files("1")] for _ in range(2))
    second[0] = ("0.json", json.dumps({"kind": "caption", "caption": "another"}).encode())
    shard = write_tar(tmp_path / "0.tar", [*first, *second])
    captions = [getattr(sample, "caption", sample) for sample in read_all(shard)]
    assert captions == ["caption 0", "caption 1", "another", "caption 1"]


def test_files_of_one_name_are_reported(tmp_path: Path):
    files = caption_files()
    shard = write_tar(tmp_path / "0.tar", [*files, files[1]])
    assert "duplicate" in shard.scan().damage[0].detail
    assert isinstance(read_all(shard)[0], CaptionSample)


def test_a_shard_that_shrinks_while_it_is_read(tmp_path: Path):
    shard = write_tar(tmp_path / "0.tar", caption_files())
    (entry,) = shard.scan().entries
    for damage in (lambda: shard.path.write_bytes(b"short"), shard.path.unlink):
        damage()
        with pytest.raises(BadSample, match="unreadable"):
            shard.read(entry, CHOOSE)


# ------------------------------------------------------------------ looking through


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note which archives are looked through."""
    noted: list[str] = []
    members = shards._members

    def note(path: Path, *arguments: Any) -> Any:
        noted.append(path.name)
        return members(path, *arguments)

    monkeypatch.setattr(shards, "_members", note)
    return noted


def test_a_shard_is_looked_through_once_until_it_is_another_one(tmp_path: Path, looks: list[str]):
    shard = write_tar(tmp_path / "0.tar", caption_files("0"))
    for _ in range(3):
        assert len(TarShard(path=shard.path).scan().entries) == 1
    assert looks == ["0.tar"]
    write_tar(shard.path, [*caption_files("0"), *caption_files("1")])
    assert len(shard.scan().entries) == 2
    os.utime(shard.path, ns=(5, 5))
    assert len(shard.scan().entries) == 2
    assert looks == ["0.tar"] * 3
    scan_archive(shard.path, lambda name: (None, None))  # in another way
    assert looks == ["0.tar"] * 4


def test_damage_may_be_gone_the_next_time(tmp_path: Path, looks: list[str]):
    shard = write_tar(tmp_path / "0.tar", caption_files())
    whole = shard.path.read_bytes()
    shard.path.write_bytes(whole[:-10_240])
    for _ in range(2):
        assert [fault.reason for fault in shard.scan().damage] == ["broken-shard"]
    assert looks == ["0.tar"] * 2


def test_what_was_found_is_kept_of_so_many_alone(tmp_path: Path, looks: list[str]):
    files = [write_tar(tmp_path / f"{n}.tar", caption_files()) for n in range(KEPT + 1)]
    for number in (*range(KEPT), 0, KEPT, 0, 1):  # 1 goes for the last one, as 0 was asked for
        files[number].scan()
    assert looks == [*(f"{n}.tar" for n in range(KEPT + 1)), "1.tar"]


class Interrupted(type(Path())):
    """A path at whose n-th look-up other threads look through more archives than are kept."""

    left = 0
    others: Callable[[], None]

    def __hash__(self) -> int:
        Interrupted.left -= 1
        if Interrupted.left == 0:
            self.others()
        return super().__hash__()


@pytest.mark.parametrize("moment", [1, 2, 3])
def test_threads_do_not_get_in_the_way_of_each_other(tmp_path: Path, moment: int):
    others = [write_tar(tmp_path / f"{n}.tar", caption_files()) for n in range(KEPT)]
    Interrupted.others = staticmethod(lambda: [each.scan() for each in others])  # type: ignore
    path = write_tar(tmp_path / "mine.tar", caption_files()).path
    shard = TarShard(path=Interrupted(path))
    assert len(shard.scan().entries) == 1
    Interrupted.left = moment
    assert len(shard.scan().entries) == 1


def test_little_is_kept_of_an_archive(tmp_path: Path):
    """Of a million samples, headers and dictionaries of places would fill a gigabyte."""
    count = 2000
    shard = write_tar(tmp_path / "0.tar", [(f"{n}.json", b"{}") for n in range(count)])
    tracemalloc.start()
    try:
        entries = shard.scan().entries
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept / count < 200  # bytes; dictionaries took 310
    assert (len(entries), entries[1], entries[-1]) == (
        count,
        {"json": (1536, 2)},
        {"json": (1024 * count - 512, 2)},
    )
    with pytest.raises(IndexError):
        entries[count]
