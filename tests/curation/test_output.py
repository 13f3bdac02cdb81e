"""The folder that is written: whole files, the same settings, nothing twice."""

import json
import os
import signal
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kosmosg.curation.output import Ledger
from kosmosg.curation.records import Draft, Portion, Rejection, Tally
from kosmosg.data.schema import CaptionRules, CaptionSample
from kosmosg.data.shard_writer import encode_sample
from kosmosg.data.shards import open_shards
from kosmosg.errors import CurationError
from tests.training.processes import run_to_the_end

SETTINGS = {"set": "captions", "per_shard": 3, "sizes": (1, 2)}


def finished_draft(number: int) -> Draft:
    image = Image.new("RGB", (8, 8), (number, 0, 0))
    files = encode_sample(CaptionSample(caption=f"picture {number}", image=image))
    return Draft(key=f"{number}.png", files=files, tags=("a", "b"), dropped=(("c", "empty-mask"),))


def portion(number: int, drafts: int = 2) -> Portion:
    return Portion(
        number=number,
        drafts=tuple(finished_draft(3 * number + n) for n in range(drafts)),
        set_aside=(
            Rejection(key="\ud800.png", step="read", reason="too-small", detail="9 × 9"),
            Rejection(key="y", step="cut", reason="image", detail="ü", dropped=(("d", "colour"),)),
        ),
        tallies=(
            Tally(step="read", came=drafts + 2, kept=drafts + 1, seconds=0.5),
            Tally(step="cut", came=drafts + 1, kept=drafts, seconds=1.5),
        ),
    )


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    ledger = Ledger(directory=tmp_path / "set", per_shard=3)
    ledger.begin(SETTINGS)
    return ledger


def names(ledger: Ledger) -> list[str]:
    paths = (path for path in ledger.directory.rglob("*") if path.is_file())
    return sorted(path.relative_to(ledger.directory).as_posix() for path in paths)


def captions(ledger: Ledger) -> list[str]:
    found = []
    for shard in open_shards(ledger.directory, CaptionRules(min_side=8)):
        for entry in shard.scan().entries:
            sample = shard.read(entry, np.random.default_rng(0))
            assert isinstance(sample, CaptionSample)
            found.append(sample.caption)
    return found


def test_shards_and_records(ledger: Ledger) -> None:
    ledger.write(portion(1))
    ledger.write(portion(0, drafts=1))
    ledger.end()
    assert names(ledger) == [
        "000000.tar",
        "000001.tar",
        "curation.json",
        "records/000000.json",
        "records/000001.json",
        "set-aside/000000.jsonl",
        "set-aside/000001.jsonl",
    ]
    assert captions(ledger) == ["picture 0", "picture 3", "picture 4"]
    assert ledger.finished() == {0, 1}
    record = list(ledger.records())[1]
    assert record == {
        "shard": 1,
        "samples": 2,
        "bytes": (ledger.directory / "000001.tar").stat().st_size,
        "steps": [
            {"step": "read", "came": 4, "kept": 3, "seconds": 0.5, "set_aside": {"too-small": 1}},
            {"step": "cut", "came": 3, "kept": 2, "seconds": 1.5, "set_aside": {"image": 1}},
        ],
        "entities": {"empty-mask": 2, "colour": 1, "kept": 4},
    }
    lines = (ledger.directory / "set-aside" / "000001.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["detail"] for line in lines] == ["9 × 9", "ü"]
    assert json.loads(lines[0])["reason"] == "too-small"


def test_keys_differ_from_shard_to_shard(ledger: Ledger) -> None:
    for number in (0, 1):
        ledger.write(portion(number))
    keys = []
    for path in sorted(ledger.directory.glob("*.tar")):
        with tarfile.open(path) as archive:
            keys += [name.partition(".")[0] for name in archive.getnames() if "json" in name]
    assert keys == ["000000000", "000000001", "000000003", "000000004"]


def test_a_portion_of_which_nothing_is_left(ledger: Ledger) -> None:
    ledger.write(portion(0, drafts=0))
    assert ledger.finished() == {0}
    assert not list(ledger.directory.glob("*.tar"))
    assert [record["samples"] for record in ledger.records()] == [0]


def test_a_shard_that_is_written_twice_is_there_once(ledger: Ledger) -> None:
    ledger.write(portion(0))
    before = (ledger.directory / "000000.tar").read_bytes()
    ledger.write(portion(0))
    assert (ledger.directory / "000000.tar").read_bytes() == before
    assert captions(ledger) == ["picture 0", "picture 1"]


def test_nothing_is_left_of_an_attempt_without_a_record(ledger: Ledger) -> None:
    """Downloads may fail at the second attempt."""
    ledger.write(portion(0))
    (ledger.directory / "records" / "000000.json").unlink()
    ledger.write(portion(0, drafts=0))
    assert not list(ledger.directory.glob("*.tar"))


def test_attempts_are_counted_for_each_run(ledger: Ledger) -> None:
    assert [ledger.count_attempt(3, step) for step in ("read", "read", "cut")] == [1, 2, 1]
    assert ledger.count_attempt(4, "read") == 1
    ledger.begin(SETTINGS)
    assert ledger.count_attempt(3, "read") == 1


def test_the_same_settings_go_on_and_others_are_refused(ledger: Ledger) -> None:
    ledger.write(portion(0))
    (ledger.directory / "records" / "000001.json.01234567.part").touch()
    ledger.begin(SETTINGS)
    assert ledger.finished() == {0}
    assert not list(ledger.directory.rglob("*.part"))
    with pytest.raises(CurationError, match="other settings: per_shard was 3 and is 4"):
        ledger.begin(SETTINGS | {"per_shard": 4})
    with pytest.raises(CurationError, match="side was not given and is 512"):
        ledger.begin(SETTINGS | {"side": 512})
    with pytest.raises(CurationError, match="set was 'captions' and is 'instructpix2pix'"):
        ledger.begin({"set": "instructpix2pix"})


def test_somebody_elses_folder(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    with (
        pytest.raises(CurationError, match="is not empty"),
        Ledger(directory=tmp_path, per_shard=3).held(SETTINGS),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("text", ["", "[]", "{"])
def test_settings_that_are_none(ledger: Ledger, text: str) -> None:
    (ledger.directory / "curation.json").write_text(text)
    with pytest.raises(CurationError, match=r"curation\.json cannot be read"):
        ledger.begin(SETTINGS)


def hold(directory: Path) -> None:
    with Ledger(directory=directory, per_shard=3).held(SETTINGS):
        pass


def test_one_run_at_a_time(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    with Ledger(directory=tmp_path / "set", per_shard=3).held(SETTINGS):
        assert run_to_the_end(hold, tmp_path / "set") == 1
    assert f"another run (process {os.getpid()}) is at work here" in capfd.readouterr().err
    assert run_to_the_end(hold, tmp_path / "set") == 0


def write_and_die(directory: Path, moment: int) -> None:
    """Be killed at one of the moments at which a file is about to appear."""
    left = moment
    original = Path.replace

    def replace(self: Path, target: Path) -> Path:
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        return original(self, target)

    Path.replace = replace  # type: ignore[method-assign]
    ledger = Ledger(directory=directory, per_shard=3)
    ledger.begin(SETTINGS)
    ledger.write(portion(0))


@pytest.mark.parametrize("moment", range(4))
def test_killed_at_any_moment(tmp_path: Path, moment: int) -> None:
    """What is there afterwards is whole, and the next run ends where an undisturbed one does."""
    directory = tmp_path / "set"
    assert run_to_the_end(write_and_die, directory, moment) == -signal.SIGKILL
    ledger = Ledger(directory=directory, per_shard=3)
    assert not ledger.finished()
    ledger.begin(SETTINGS)
    ledger.write(portion(0))
    ledger.end()
    assert captions(ledger) == ["picture 0", "picture 1"]
    undisturbed = Ledger(directory=tmp_path / "other", per_shard=3)
    undisturbed.begin(SETTINGS)
    undisturbed.write(portion(0))
    undisturbed.end()
    assert names(ledger) == names(undisturbed)
    for name in names(ledger):
        assert (ledger.directory / name).read_bytes() == (undisturbed.directory / name).read_bytes()
