"""Files that appear whole, folders that one run holds, and records of what a run was begun with."""

import errno
import json
import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kosmosg.errors import CurationError, TrainingError
from kosmosg.utils.files import (
    LOCK,
    RunRecord,
    atomic_file,
    atomic_folder,
    check_settings,
    lock_folder,
    reason,
    remove_unfinished,
)

SETTINGS = {"seed": 3, "size": [64, 64], "name": "a"}


def in_another_process(target: Callable[..., None], *arguments: Any) -> int:
    process = multiprocessing.get_context("spawn").Process(target=target, args=arguments)
    process.start()
    process.join(60)
    assert process.exitcode is not None
    return process.exitcode


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    with atomic_file(path) as part:
        part.write_text("half")
        assert not path.exists()
        part.write_text("whole")
    assert path.read_text() == "whole"
    assert names(tmp_path) == ["new", "new/file.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    (tmp_path / "file.txt").write_text("old")
    with pytest.raises(error), atomic_file(tmp_path / "file.txt") as part:
        part.write_text("half")
        raise error
    assert (tmp_path / "file.txt").read_text() == "old"
    assert names(tmp_path) == ["file.txt"]


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    with atomic_file(path) as first:
        first.write_text("first")
        with atomic_file(path) as second:
            second.write_text("second")
        assert path.read_text() == "second"
    assert path.read_text() == "first"


@pytest.mark.parametrize("there", [False, True])
def test_a_folder_appears_when_it_is_whole(tmp_path: Path, there: bool) -> None:
    path = tmp_path / "above" / "folder"
    if there:
        path.mkdir(parents=True)
    with atomic_folder(path) as part:
        (part / "below").mkdir()
        (part / "below" / "file").write_text("text")
        assert not (path / "below").exists()
    assert names(tmp_path / "above") == ["folder", "folder/below", "folder/below/file"]
    assert path.stat().st_mode == (tmp_path / "above").stat().st_mode  # others may read it


def test_a_folder_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk")
    with atomic_folder(tmp_path / "link") as part:
        (part / "file").touch()
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "disk" / "file").exists()


def test_an_error_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="stop"), atomic_folder(tmp_path / "folder") as part:
        (part / "file").touch()
        raise ValueError("stop")
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["folder", "file"])
def test_what_is_there_is_not_written_over(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis").write_text("mine")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileExistsError), atomic_folder(tmp_path / name):
        raise AssertionError("nothing is written")
    assert names(tmp_path) == ["file", "folder", "folder/thesis"]


def write_and_die(folder: Path) -> None:
    with atomic_folder(folder / "folder") as part, atomic_file(folder / "below" / "file") as file:
        (part / "file").touch()
        file.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_kill_leaves(tmp_path: Path) -> None:
    (tmp_path / "mine.part").touch()
    (tmp_path / "mine.12345678.part.tar").touch()
    for _ in range(2):
        assert in_another_process(write_and_die, tmp_path) == -signal.SIGKILL
    assert not (tmp_path / "folder").exists()
    assert len(names(tmp_path)) == 9
    with atomic_folder(tmp_path / "folder"), atomic_file(tmp_path / "below" / "file") as file:
        file.touch()  # they are in nobody's way
    remove_unfinished(tmp_path)
    assert names(tmp_path) == [
        "below",
        "below/file",
        "folder",
        "mine.12345678.part.tar",
        "mine.part",
    ]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "the disk is full"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "the disk is full"),
        (PermissionError(errno.EACCES, "Permission denied", "file"), "Permission denied"),
        (ValueError("\n one \n two"), "one"),
        (KeyError(), "KeyError"),
    ],
)
def test_reasons(error: Exception, words: str) -> None:
    assert reason(error) == words


def hold(folder: Path) -> None:
    with lock_folder(folder, work="run", error=CurationError):
        pass


def test_one_process_holds_a_folder(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    folder = tmp_path / "new" / "run"
    with lock_folder(folder, work="run", error=CurationError):
        assert in_another_process(hold, folder) == 1
        found = capfd.readouterr().err
        assert "CurationError" in found
        assert (
            f"{folder}: another run (process {os.getpid()}) is at work here. Wait for it or end "
            "it, or name another folder."
        ) in found
        with pytest.raises(CurationError, match=f"process {os.getpid()}"):
            hold(folder)  # another part of this process neither
        hold(tmp_path / "other")
    hold(folder)
    assert names(folder) == [LOCK]


def test_a_thread_may_hold_what_it_holds(tmp_path: Path) -> None:
    def again() -> Any:
        return lock_folder(tmp_path / "run", work="run", error=CurationError, reentrant=True)

    with again():
        with again():
            pass
        assert in_another_process(hold, tmp_path / "run") == 1
    assert in_another_process(hold, tmp_path / "run") == 0


def hold_and_die(folder: Path) -> None:
    with lock_folder(folder, work="run", error=CurationError):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    assert in_another_process(hold_and_die, tmp_path) == -signal.SIGKILL
    hold(tmp_path)


def test_the_holder_runs_elsewhere(tmp_path: Path) -> None:
    with lock_folder(tmp_path, work="training", error=TrainingError):
        (tmp_path / LOCK).write_text("12 node-7")
        with pytest.raises(TrainingError, match=r"another training \(process 12 on node-7\)"):
            hold_training(tmp_path)
        (tmp_path / LOCK).write_text("")
        with pytest.raises(TrainingError, match=r"\(process unknown\).*name another output"):
            hold_training(tmp_path)


def hold_training(folder: Path) -> None:
    with lock_folder(
        folder, work="training", error=TrainingError, remedy="name another output folder"
    ):
        pass


def test_a_folder_that_cannot_be_held(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(
            CurationError, match=r"cannot be written: (File exists|Not a directory)"
        ):
            hold(folder)
    (tmp_path / "run" / LOCK).mkdir(parents=True)
    with pytest.raises(CurationError, match=r"run cannot be written: Is a directory\. Mend that"):
        hold(tmp_path / "run")


def test_errors_within_pass_a_lock(tmp_path: Path) -> None:
    with (
        pytest.raises(PermissionError),
        lock_folder(tmp_path, work="run", error=CurationError),
    ):
        raise PermissionError
    hold(tmp_path)


@pytest.fixture
def record(tmp_path: Path) -> RunRecord:
    return RunRecord(file=tmp_path / "run" / "run.json", error=CurationError)


def test_a_record_is_written_once(record: RunRecord) -> None:
    assert record.read() is None
    record.check(SETTINGS)
    assert not record.file.exists()
    record.settle(SETTINGS | {"size": (64, 64)})
    before = record.file.stat().st_mtime_ns
    record.settle(SETTINGS)
    record.check(SETTINGS)
    assert record.read() == SETTINGS
    assert record.file.stat().st_mtime_ns == before
    record.settle(SETTINGS | {"seed": 4}, anew=True)
    assert record.read() == SETTINGS | {"seed": 4}


def test_a_record_names_what_differs(record: RunRecord) -> None:
    record.settle(SETTINGS | {"path": "caf\udce9"})
    for compare in (record.check, record.settle):
        with pytest.raises(CurationError) as caught:
            compare({"seed": 4, "size": [64, 64], "name": "a", "scale": 1})
        assert str(caught.value) == (
            f"{record.file.parent} was begun with other settings: seed was 3 and is 4; path was "
            "'caf\\udce9' and is not given; scale was not given and is 1. Use the same ones, or "
            "name another folder."
        )


@pytest.mark.parametrize("text", ["", "[]", "{", '"seed"', "\xff", "[" * 100_000])
def test_a_damaged_record(record: RunRecord, text: str) -> None:
    record.file.parent.mkdir()
    record.file.write_bytes(text.encode("latin-1"))
    with pytest.raises(CurationError, match=r"run\.json cannot be read .*Restore it, or name an"):
        record.settle(SETTINGS)
    record.settle(SETTINGS, anew=True)
    assert json.loads(record.file.read_text()) == SETTINGS


def test_settings_that_stand_elsewhere() -> None:
    found = {"steps": 5, "size": [1, 2], "name": None}
    wanted = {"steps": 9, "size": (1, 2), "name": None}
    place = Path("step-5")
    assert check_settings(found, found, place=place, error=TrainingError) == []
    assert check_settings(
        found, wanted, place=place, error=TrainingError, changeable={"steps"}
    ) == ["steps was 5 and is 9"]
    assert check_settings(found, wanted, place=place, error=TrainingError, free={"steps"}) == []
    with pytest.raises(TrainingError, match=r"step-5 was begun with .* name was not given and is"):
        check_settings({}, {"name": None}, place=place, error=TrainingError)
