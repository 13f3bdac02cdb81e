"""The folder that is written: whole files, the same settings, nothing twice."""

import json
import os
import signal
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kosmosg.curation.output import OutputFolder
from kosmosg.curation.records import Record, Rejection, ShardRecords, StepCounts
from kosmosg.data.encoding import encode_sample
from kosmosg.data.schema import CaptionRules, CaptionSample
from kosmosg.data.shards import open_shards
from kosmosg.errors import CurationError
from tests.training.processes import run_to_the_end

SETTINGS = {"set": "captions", "per_shard": 3, "sizes": (1, 2)}


def finished_record(number: int) -> Record:
    image = Image.new("RGB", (8, 8), (number, 0, 0))
    files = encode_sample(CaptionSample(caption=f"image {number}", image=image))
    return Record(key=f"{number}.png", files=files, tags=("a", "b"), dropped=(("c", "empty-mask"),))


def shard(number: int, records: int = 2) -> ShardRecords:
    return ShardRecords(
        number=number,
        records=tuple(finished_record(3 * number + n) for n in range(records)),
        set_aside=(
            Rejection(key="\ud800.png", step="read", reason="too-small", detail="9 × 9"),
            Rejection(key="y", step="cut", reason="image", detail="ü", dropped=(("d", "colour"),)),
        ),
        counts=(
            StepCounts(step="read", came=records + 2, kept=records + 1, seconds=0.5),
            StepCounts(step="cut", came=records + 1, kept=records, seconds=1.5),
        ),
    )


@pytest.fixture
def output(tmp_path: Path) -> OutputFolder:
    output = OutputFolder(directory=tmp_path / "set", per_shard=3)
    output.begin(SETTINGS)
    return output


def names(output: OutputFolder) -> list[str]:
    paths = (path for path in output.directory.rglob("*") if path.is_file())
    return sorted(path.relative_to(output.directory).as_posix() for path in paths)


def captions(output: OutputFolder) -> list[str]:
    found = []
    for shard in open_shards(output.directory, CaptionRules(min_side=8)):
        for entry in shard.scan().entries:
            sample = shard.read(entry, np.random.default_rng(0))
            assert isinstance(sample, CaptionSample)
            found.append(sample.caption)
    return found


def test_shards_and_records(output: OutputFolder) -> None:
    output.write(shard(1))
    output.write(shard(0, records=1))
    output.end()
    assert names(output) == [
        "000000.tar",
        "000001.tar",
        "curation.json",
        "records/000000.json",
        "records/000001.json",
        "set-aside/000000.jsonl",
        "set-aside/000001.jsonl",
    ]
    assert captions(output) == ["image 0", "image 3", "image 4"]
    assert output.finished() == {0, 1}
    summary = list(output.summaries())[1]
    assert summary == {
        "shard": 1,
        "samples": 2,
        "bytes": (output.directory / "000001.tar").stat().st_size,
        "steps": [
            {"step": "read", "came": 4, "kept": 3, "seconds": 0.5, "set_aside": {"too-small": 1}},
            {"step": "cut", "came": 3, "kept": 2, "seconds": 1.5, "set_aside": {"image": 1}},
        ],
        "entities": {"empty-mask": 2, "colour": 1, "kept": 4},
    }
    lines = (output.directory / "set-aside" / "000001.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["detail"] for line in lines] == ["9 × 9", "ü"]
    assert json.loads(lines[0])["reason"] == "too-small"


def test_keys_differ_from_shard_to_shard(output: OutputFolder) -> None:
    for number in (0, 1):
        output.write(shard(number))
    keys = []
    for path in sorted(output.directory.glob("*.tar")):
        with tarfile.open(path) as archive:
            keys += [name.partition(".")[0] for name in archive.getnames() if "json" in name]
    assert keys == ["000000000", "000000001", "000000003", "000000004"]


def test_a_shard_of_which_nothing_is_left(output: OutputFolder) -> None:
    output.write(shard(0, records=0))
    assert output.finished() == {0}
    assert not list(output.directory.glob("*.tar"))
    assert [summary["samples"] for summary in output.summaries()] == [0]


def test_a_shard_that_is_written_twice_is_there_once(output: OutputFolder) -> None:
    output.write(shard(0))
    before = (output.directory / "000000.tar").read_bytes()
    output.write(shard(0))
    assert (output.directory / "000000.tar").read_bytes() == before
    assert captions(output) == ["image 0", "image 1"]


def test_nothing_is_left_of_an_attempt_without_a_record(output: OutputFolder) -> None:
    """Downloads may fail at the second attempt."""
    output.write(shard(0))
    (output.directory / "records" / "000000.json").unlink()
    output.write(shard(0, records=0))
    assert not list(output.directory.glob("*.tar"))


def test_attempts_are_counted_for_each_run(output: OutputFolder) -> None:
    assert [output.count_attempt(3, step) for step in ("read", "read", "cut")] == [1, 2, 1]
    assert output.count_attempt(4, "read") == 1
    output.begin(SETTINGS)
    assert output.count_attempt(3, "read") == 1


def test_the_same_settings_go_on_and_others_are_refused(output: OutputFolder) -> None:
    output.write(shard(0))
    (output.directory / "records" / "000001.json.01234567.part").touch()
    output.begin(SETTINGS)
    assert output.finished() == {0}
    assert not list(output.directory.rglob("*.part"))
    with pytest.raises(CurationError, match="other settings: per_shard was 3 and is 4"):
        output.begin(SETTINGS | {"per_shard": 4})
    with pytest.raises(CurationError, match="side was not given and is 512"):
        output.begin(SETTINGS | {"side": 512})
    with pytest.raises(CurationError, match="set was 'captions' and is 'instructpix2pix'"):
        output.begin({"set": "instructpix2pix"})


def test_somebody_elses_folder(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    with (
        pytest.raises(CurationError, match="is not empty"),
        OutputFolder(directory=tmp_path, per_shard=3).held(SETTINGS),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("text", ["", "[]", "{"])
def test_settings_that_are_none(output: OutputFolder, text: str) -> None:
    (output.directory / "curation.json").write_text(text)
    with pytest.raises(CurationError, match=r"curation\.json cannot be read"):
        output.begin(SETTINGS)


def hold(directory: Path) -> None:
    with OutputFolder(directory=directory, per_shard=3).held(SETTINGS):
        pass


def test_one_run_at_a_time(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    with OutputFolder(directory=tmp_path / "set", per_shard=3).held(SETTINGS):
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
    output = OutputFolder(directory=directory, per_shard=3)
    output.begin(SETTINGS)
    output.write(shard(0))


@pytest.mark.parametrize("moment", range(4))
def test_killed_at_any_moment(tmp_path: Path, moment: int) -> None:
    """What is there afterwards is whole, and the next run ends where an undisturbed one does."""
    directory = tmp_path / "set"
    assert run_to_the_end(write_and_die, directory, moment) == -signal.SIGKILL
    output = OutputFolder(directory=directory, per_shard=3)
    assert not output.finished()
    output.begin(SETTINGS)
    output.write(shard(0))
    output.end()
    assert captions(output) == ["image 0", "image 1"]
    undisturbed = OutputFolder(directory=tmp_path / "other", per_shard=3)
    undisturbed.begin(SETTINGS)
    undisturbed.write(shard(0))
    undisturbed.end()
    assert names(output) == names(undisturbed)
    for name in names(output):
        assert (output.directory / name).read_bytes() == (undisturbed.directory / name).read_bytes()
