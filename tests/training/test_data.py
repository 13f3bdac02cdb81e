"""Data as it is named on the command line, and packing streams."""

import shutil
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kosmosg.data.bad_samples import BadSample
from kosmosg.data.options import NamedData
from kosmosg.data.schema import (
    CaptionSample,
    CompositionalSample,
    EditSample,
    EntityImages,
    InterleavedDocument,
)
from kosmosg.errors import DataError
from kosmosg.training import setup
from kosmosg.training.data import (
    RoundRobin,
    TrainingData,
    add_counts,
    image_preparer,
)
from kosmosg.training.starting_weights import StartingWeights
from tests.shards import write_shards
from tests.training.stages.examples import data as data_of
from tests.training.toy import ToyStream

RNG = np.random.default_rng(0)
IMAGE = Image.fromarray(RNG.integers(0, 255, (20, 30, 3), dtype=np.uint8))


def named(*texts: str) -> tuple[NamedData, ...]:
    return tuple(map(NamedData.parse, texts))


def test_names() -> None:
    for text, path, weight in (
        ("shards", "shards", 1.0),
        ("a/b:2", "a/b", 2.0),
        ("/a/b:0.5", "/a/b", 0.5),
        ("a/b=c:2", "a/b=c", 2.0),
        ("laion=a", "laion=a", 1.0),
        ("a:b:2", "a:b", 2.0),
    ):
        assert NamedData.parse(text) == NamedData(path=Path(path), weight=weight)


def test_names_of_tables() -> None:
    cases: tuple[tuple[str, dict[str, Any]], ...] = (
        ("hub:a/b", {"repository": "a/b"}),
        ("hub:a/b:0.5", {"repository": "a/b", "weight": 0.5}),
        (
            "hub:a/b,split=test,config=c,revision=refs/convert/parquet,columns=edits:2",
            {
                "repository": "a/b",
                "split": "test",
                "config": "c",
                "revision": "refs/convert/parquet",
                "columns": "edits",
                "weight": 2.0,
            },
        ),
        ("a,columns=my.toml:2", {"path": Path("a"), "columns": "my.toml", "weight": 2.0}),
    )
    for text, wanted in cases:
        assert NamedData.parse(text) == NamedData(**wanted)
    names = {NamedData.parse(f"hub:a/b{part}").name for part in ("", ",split=x", ",config=c")}
    assert len(names) == 3, "parts of one set can be mixed"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("captions=/a:3", "python -m scripts.convert_tsv captions /a SHARDS. Then name SHARDS."),
        ("openimages=a", "python -m scripts.convert_tsv openimages a SHARDS"),
        ("a:heavy", "there is no such folder, and 'heavy' is no weight"),
        ("a:", "and '' is no weight"),
        (":2", "there is no such folder"),
        ("data/2024:01", "and '01' is no weight. Write FOLDER:WEIGHT with a number such as 2 or"),
        ("a:-1", "'-1' is no weight"),
        ("a:nan", "'nan' is no weight"),
        ("a:1e3", "'1e3' is no weight"),
        ("hub:a/b:x", "'x' is no weight. Write hub:OWNER/NAME:WEIGHT with a number"),
        ("hub:", "'' is no set on the Hub"),
        ("hub:a", "'a' is no set on the Hub. Write hub:OWNER/NAME, such as"),
        ("hub:a/b/c", "'a/b/c' is no set on the Hub"),
        ("hub:a/b,split", "'split' is not understood. Behind a comma may stand, once each, column"),
        ("hub:a/b,split=", "'split=' is not understood"),
        ("hub:a/b,colums=x", "'colums=x' is not understood"),
        ("hub:a/b,split=x,split=y", "'split=y' is not understood"),
        ("a,config=b", "only a set on the Hub has a config. Leave it out."),
    ],
)
def test_names_that_are_none(text: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        NamedData.parse(text)
    assert message in str(caught.value)
    assert repr(text) in str(caught.value)


def test_a_folder_with_a_colon_in_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is there as it stands is no folder with a weight behind it."""
    for name in ("2024:01", "2024", "run:2", "captions=x"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    for text, path, weight in (
        ("2024:01", "2024:01", 1.0),
        ("2024:01:3", "2024:01", 3.0),
        ("2024:2", "2024", 2.0),
        ("run:2", "run:2", 1.0),
        ("captions=x", "captions=x", 1.0),
    ):
        assert NamedData.parse(text) == NamedData(path=Path(path), weight=weight)


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_weights_that_cannot_be(tmp_path: Path, weight: float) -> None:
    write_shards([CaptionSample(caption="a", image=IMAGE)], tmp_path / "a")
    data = NamedData(path=tmp_path / "a", weight=weight)
    options = TrainingData(data=(data,), threads=0)
    with pytest.raises(DataError, match="has the weight"):
        options.mixture(lambda sample, generator: sample, 0, 1)


def test_small_images_are_left_out_and_not_counted_as_bad(tmp_path: Path) -> None:
    large = IMAGE.resize((40, 40))
    images = [IMAGE] * 150 + [large]
    samples = [CaptionSample(caption=str(n), image=each) for n, each in enumerate(images)]
    write_shards(samples, tmp_path / "a")
    options = TrainingData(data=named(str(tmp_path / "a")), min_side=32, threads=0)
    stream = options.mixture(lambda sample, generator: getattr(sample, "caption", None), 0, 1)
    assert [next(stream) for _ in range(3)] == ["150"] * 3
    assert next(iter(stream.skipped.values())) == {"too-small": pytest.approx(450, abs=150)}


def test_images_that_are_all_too_small_stop_the_run(tmp_path: Path) -> None:
    samples = [CaptionSample(caption=str(n), image=IMAGE) for n in range(20)]
    write_shards(samples, tmp_path / "a")
    options = TrainingData(data=named(str(tmp_path / "a")), threads=0)
    with pytest.raises(DataError, match=r"1000 × too-small.*or choose a smaller --min-side"):
        next(options.mixture(lambda sample, generator: sample, 0, 1))


def test_the_way_a_folder_is_written_does_not_change_the_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does the place where it lies."""
    for name in ("a", "b"):
        samples = [CaptionSample(caption=f"{name}{n}", image=None) for n in range(30)]
        write_shards(samples, tmp_path / "one" / name, per_shard=7)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    monkeypatch.chdir(tmp_path / "one")
    orders = []
    for folder in (".", "../two", str(tmp_path / "one")):
        options = TrainingData(data=named(f"{folder}/a:2", f"{folder}/b"), threads=0)
        stream = options.mixture(
            lambda sample, generator: (sample, generator.random()), 0, 1, text_only=True
        )
        orders.append([next(stream) for _ in range(60)])
    assert orders[0] == orders[1] == orders[2]


def test_what_is_encoded_once_is_not_weighted(tmp_path: Path) -> None:
    write_shards([CaptionSample(caption="a", image=IMAGE)], tmp_path / "a")
    folder = tmp_path / "a"
    assert len(TrainingData(data=named(str(folder), f"{folder}:1")).shards()) == 2
    with pytest.raises(DataError, match=r"given the weight 2, but .* equally often"):
        TrainingData(data=named(str(folder), f"{folder}:2")).shards()
    with pytest.raises(DataError, match="hf download --repo-type dataset a/b --local-dir FOLDER"):
        TrainingData(data=named("hub:a/b")).shards()


def test_stage_2_leaves_images_closed(tmp_path: Path) -> None:
    write_shards([CaptionSample(caption="a", image=IMAGE)], tmp_path / "a")
    options = TrainingData(data=named(str(tmp_path / "a")), threads=0)
    stream = options.mixture(lambda sample, generator: sample, 0, 1, text_only=True)
    assert next(stream) == CaptionSample(caption="a", image=None)


def test_data_are_known_again_by_what_is_in_them(tmp_path: Path) -> None:
    """Wherever they lie; but not with other content, another weight, or in another order."""

    def identity(*texts: str, **changes: int) -> dict[str, Any]:
        return TrainingData(data=named(*texts), **changes).identity()

    for name in "ab":
        samples = [CaptionSample(caption=f"{name}{n}", image=None) for n in range(30)]
        write_shards(samples, tmp_path / "data" / name, per_shard=1)
    a, b = (str(tmp_path / "data" / name) for name in "ab")
    wanted = identity(a, f"{b}:2")
    assert wanted == identity(a, f"{b}:2", seed=1, threads=0)  # which the loop compares, or nobody
    for others in ([a, b], [f"{a}:2", f"{b}:2"], [b, f"{a}:2"], [a], [a, f"{a}:2"]):
        assert identity(*others) != wanted
    assert identity(a, f"{b}:2", min_side=7) == wanted | {"min_side": 7}
    shutil.move(tmp_path / "data", tmp_path / "moved")
    c, d = (str(tmp_path / "moved" / name) for name in "ab")
    assert identity(c, f"{d}:2") == wanted
    shard = tmp_path / "moved" / "a" / "000000.tar"
    content = shard.read_bytes()
    shard.write_bytes(content.replace(b"a0", b"a9"))  # of the same length
    assert identity(c, f"{d}:2") != wanted
    shard.write_bytes(content)
    assert identity(c, f"{d}:2") == wanted
    (tmp_path / "moved" / "b" / "000029.tar").unlink()
    assert identity(c, f"{d}:2") != wanted
    with pytest.raises(DataError, match="no shards"):
        identity(a)


def test_nothing_to_read() -> None:
    with pytest.raises(DataError, match="Name at least one folder by --data"):
        TrainingData(data=())


def test_images_for_clip_and_vae() -> None:
    sample = CaptionSample(caption="a dog", image=IMAGE)
    found = image_preparer(image_size=14)(sample, RNG)
    assert (found.pixels[0].shape, found.target, found.caption) == ((3, 14, 14), None, "a dog")
    found = image_preparer(target_size=16)(sample, RNG)
    assert found.pixels == ()
    assert found.target is not None
    assert (found.target.shape, found.target.dtype) == ((3, 16, 16), np.float32)
    for other in (
        CaptionSample(caption="a dog", image=None),
        EditSample(caption="", instruction="", before=IMAGE, after=IMAGE),
        InterleavedDocument(parts=("a",)),
    ):
        with pytest.raises(BadSample, match="wrong-kind"):
            image_preparer(target_size=16)(other, RNG)


def test_stage_2_reads_captions_alone(start: StartingWeights) -> None:
    prepare = setup._prepare_captions(start, None)
    sample = CaptionSample(caption="a dog", image=None)
    assert prepare(sample, RNG).caption == "a dog"
    edit = EditSample(caption="a", instruction="b", before=IMAGE, after=IMAGE)
    one = EntityImages(span=(0, 1), crop=IMAGE, masked_crop=IMAGE)
    whole = CompositionalSample(caption="a", entities=(one,), target=IMAGE)
    for other in (edit, whole, InterleavedDocument(parts=("a",))):
        with pytest.raises(BadSample, match="wrong-kind: stage 2 reads captions, no"):
            prepare(other, RNG)


# ------------------------------------------------------------------ packing


def packed(start: StartingWeights, rank: int, processes: int, streams: int) -> Any:
    prepare = setup._prepare_documents(start, 48)
    options = data_of(start.directory.parent, "documents", "text")
    return options.packed(prepare, rank, processes, tokens=48, streams=streams)


def take(stream: Any, count: int) -> list[tuple[int, ...]]:
    return [next(stream).prompt.ids for _ in range(count)]


def test_packing_streams_alone_decide_the_sequences(start: StartingWeights) -> None:
    one = take(packed(start, 0, 1, 4), 16)
    two = [take(packed(start, rank, 2, 4), 8) for rank in range(2)]
    four = [take(packed(start, rank, 4, 4), 4) for rank in range(4)]
    # An update of 8: its sequences are the same, in whatever order.
    assert set(one[:8]) == set(two[0][:4] + two[1][:4])
    assert set(one[:8]) == {each for rank in four for each in rank[:2]}
    assert len(set(one)) == 16
    assert all(len(ids) <= 48 for ids in one)


def test_packing_streams_resume(start: StartingWeights) -> None:
    stream = packed(start, 0, 1, 3)
    take(stream, 4)  # in the middle of a turn
    state = stream.state_dict()
    wanted = take(stream, 7)
    other = packed(start, 0, 1, 3)
    other.load_state_dict(state)
    assert take(other, 7) == wanted


def test_packing_streams_share_the_threads_of_their_process(start: StartingWeights) -> None:
    """And give the same sequences as without any."""
    prepare = setup._prepare_documents(start, 48)
    options = replace(data_of(start.directory.parent, "documents", "text"), threads=2)
    before = {*threading.enumerate()}
    stream = options.packed(prepare, 0, 1, tokens=48, streams=6)
    assert take(stream, 12) == take(packed(start, 0, 1, 6), 12)
    assert 1 <= len({*threading.enumerate()} - before) <= 2


@pytest.mark.parametrize("streams", [0, -2, 3])
def test_packing_streams_that_cannot_be_shared(start: StartingWeights, streams: int) -> None:
    with pytest.raises(DataError, match=f"{streams} packing streams .* among 2 processes"):
        packed(start, 0, 2, streams)


def test_what_the_streams_skipped_is_added_up() -> None:
    parts = [{"a": {"image": 1}}, {"a": {"image": 2, "metadata": 1}, "b": {}}]
    assert add_counts(parts) == {"a": {"image": 3, "metadata": 1}, "b": {}}
    assert add_counts([]) == {}


def test_round_robin() -> None:
    streams = RoundRobin([ToyStream(rank, 3) for rank in range(3)])
    assert [next(streams) for _ in range(7)] == [*range(7)]
    state = streams.state_dict()
    other = RoundRobin([ToyStream(rank, 3) for rank in range(3)])
    other.load_state_dict(state)
    assert [next(other) for _ in range(4)] == [7, 8, 9, 10]
