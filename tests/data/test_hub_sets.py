"""Sets on the Hub: streamed by ``datasets`` itself from the loopback one, at a fixed commit."""

import json
from collections.abc import Iterator
from pathlib import Path

import datasets.config
import pytest
from huggingface_hub import close_session

from kosmosg.data import tables
from kosmosg.data.mixture import Mixture, Source
from kosmosg.data.opening import identify_data, open_data
from kosmosg.data.options import NamedData
from kosmosg.data.revisions import RECORD, fix_revisions
from kosmosg.data.schema import CaptionRules
from kosmosg.errors import DataError
from tests.data.fakes import label, take
from tests.hub import TOKEN, Fault, Hub, connect, running
from tests.tables import captions, to_parquet

NAME = "someone/set"
FILES = {
    "README.md": b"---\nlicense: mit\n---\n",
    "data/train-00000-of-00002.parquet": to_parquet(captions(25)),
    "data/train-00001-of-00002.parquet": to_parquet(captions(12, 25)),
    "data/test-00000-of-00001.parquet": to_parquet(captions(3, 37)),
}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running() as found:
        connect(found, tmp_path / "cache", monkeypatch)
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", found.origin)
        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
        tables._open.cache_clear()  # of another Hub with the same commits
        monkeypatch.setattr(datasets.config, "STREAMING_READ_RETRY_INTERVAL", 0)
        monkeypatch.setattr(datasets.config, "STREAMING_READ_MAX_RETRIES", 2)
        yield found


def fixed(run: Path, text: str = f"hub:{NAME}") -> NamedData:
    return fix_revisions((NamedData.parse(text),), run)[0]


def mixture(data: NamedData) -> Mixture:
    shards = open_data(data, CaptionRules(min_side=8))
    return Mixture([Source(name="set", shards=shards, weight=1, prepare=label)], seed=3)


def test_a_stream_from_the_hub(hub: Hub, tmp_path: Path) -> None:
    hub.add(NAME, FILES, kind="datasets")
    data = fixed(tmp_path / "run")
    stream = mixture(data)
    whole = take(stream, 50)
    assert sorted(caption for caption, _ in whole[:37]) == sorted(f"a {n}" for n in range(37))
    assert {name for name in hub.downloads() if name.endswith(".parquet")} == {
        name for name in FILES if "train" in name
    }
    for folder in ("train", "here"):  # the same samples from a copy of it on this machine
        for name in FILES:
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(FILES[name])
    assert take(mixture(NamedData(path=tmp_path / "here")), 50) == whole
    stopped = mixture(data)
    take(stopped, 20)
    resumed = mixture(data)
    resumed.load_state_dict(json.loads(json.dumps(stopped.state_dict())))
    assert take(resumed, 30) == whole[20:]


def test_a_run_keeps_its_commit(hub: Hub, tmp_path: Path) -> None:
    repository = hub.add(NAME, FILES, kind="datasets")
    first = repository.branches["main"]
    begun = fixed(tmp_path / "run")
    assert begun.revision == first
    assert json.loads((tmp_path / "run" / RECORD).read_text()) == {f"datasets/{NAME}@main": first}
    other = {"data/train-00000-of-00001.parquet": to_parquet(captions(5, 100))}
    repository.commit(other)
    asked = len(hub.seen)
    assert fixed(tmp_path / "run") == begun
    assert len(hub.seen) == asked, "what is noted needs no Hub"
    assert sorted({caption for caption, _ in take(mixture(begun), 37)})[0] == "a 0"
    assert identify_data(fixed(tmp_path / "other")) != identify_data(begun)
    named = f"hub:{NAME},revision={first}"
    assert fixed(tmp_path / "third", named) == begun
    assert not (tmp_path / "third").exists(), "nothing to note"
    repository.branches["v1"] = first
    assert fixed(tmp_path / "run", f"hub:{NAME},revision=v1") == begun
    assert len(json.loads((tmp_path / "run" / RECORD).read_text())) == 2


@pytest.mark.parametrize("text", ["{", "[]", '{"datasets/someone/set@main": "main"}', "\0"])
def test_a_record_that_says_nothing(hub: Hub, tmp_path: Path, text: str) -> None:
    hub.add(NAME, FILES, kind="datasets")
    (tmp_path / RECORD).write_text(text)
    with pytest.raises(DataError, match=r"does not say which commits this run reads.* Put back"):
        fixed(tmp_path)
    assert (tmp_path / RECORD).read_text() == text


def test_a_commit_that_is_gone(hub: Hub, tmp_path: Path) -> None:
    repository = hub.add(NAME, FILES, kind="datasets")
    begun = fixed(tmp_path / "run")
    repository.commits.pop(repository.branches["main"])
    repository.commit({"data/train.parquet": to_parquet(captions(1))})
    with pytest.raises(DataError, match=r"someone/set.*(no such revision|doesn't exist)"):
        mixture(begun)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hub:someone/typo", r"someone/typo is neither .* nor a repository .* Check the name"),
        ("hub:someone/secret", r"without a token of its owner"),
        ("hub:someone/gated", r"someone/gated is open only to who has agreed to its terms. Agree"),
        (f"hub:{NAME},revision=v9", r"someone/set has no such revision"),
        (
            f"hub:{NAME},split=validation",
            r"has no split 'validation'. Choose one: split=train or split=test",
        ),
        (f"hub:{NAME},config=large", r"cannot be opened .*large.* config=NAME"),
        (f"hub:{NAME},columns=edits", r"has no column input_image.* it has image, caption"),
        ("hub:someone/photos", r"is of the kind imagefolder, which has no table"),
        ("hub:someone/empty", r"someone/empty cannot be opened"),
    ],
)
def test_sets_that_cannot_be_had(hub: Hub, tmp_path: Path, text: str, message: str) -> None:
    hub.add(NAME, FILES, kind="datasets")
    hub.add("someone/secret", FILES, kind="datasets", private=True)
    hub.add("someone/gated", FILES, kind="datasets", gated=True)
    hub.add("someone/photos", {"train/a.png": b"", "train/b.png": b""}, kind="datasets")
    hub.add("someone/empty", {"README.md": b"nothing"}, kind="datasets")
    with pytest.raises(DataError, match=message):
        mixture(fixed(tmp_path, text))


def test_a_set_of_ones_own(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("someone/secret", FILES, kind="datasets", private=True, gated=True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert len(take(mixture(fixed(tmp_path, "hub:someone/secret")), 37)) == 37
    shown = {seen.headers.get("authorization") for seen in hub.seen if "/lfs/" in seen.path}
    assert shown == {None}, "the storage is another host, which gets no token"


def test_a_way_that_breaks_off(hub: Hub, tmp_path: Path) -> None:
    """What cannot be reached is not skipped: the order is not to depend on the weather."""
    hub.add(NAME, FILES, kind="datasets")
    data = fixed(tmp_path)
    stream = mixture(data)
    whole = take(stream, 11)
    state = stream.state_dict()
    name = "data/train-00000-of-00002.parquet"
    names = (name, name.replace("00000-", "00001-"))
    hub.faults = {each: [Fault(status=404)] * 99 for each in names}
    with pytest.raises(DataError, match=r"cannot be reached any more .*Start the same command"):
        take(stream, 30)
    hub.faults.clear()
    resumed = mixture(data)
    resumed.load_state_dict(state)
    assert whole + take(resumed, 26) == take(mixture(data), 37)
    hub.faults = {name: [Fault(cut=100)]}  # once: tried again
    assert take(mixture(data), 37)[:11] == whole


def test_without_a_hub(hub: Hub, tmp_path: Path) -> None:
    hub.add(NAME, FILES, kind="datasets")
    fixed(tmp_path)
    hub.shutdown()
    hub.server_close()
    close_session()  # whose connections are still open
    with pytest.raises(DataError, match="someone/set: "):
        fixed(tmp_path / "other")


def test_configurations(hub: Hub, tmp_path: Path) -> None:
    card = b"""---
configs:
- config_name: small
  data_files: small/*.parquet
- config_name: large
  data_files: large/*.parquet
---
"""
    sizes = {"small": 1, "large": 4}
    files = {f"{name}/x.parquet": to_parquet(captions(n)) for name, n in sizes.items()}
    hub.add(NAME, files | {"README.md": card}, kind="datasets")
    found = take(mixture(fixed(tmp_path, f"hub:{NAME},config=large")), 4)
    assert len({caption for caption, _ in found}) == 4
    with pytest.raises(DataError, match=r"cannot be opened .*small.*config=NAME"):
        mixture(fixed(tmp_path))
