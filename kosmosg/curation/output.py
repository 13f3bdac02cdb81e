"""The folder that is written: shards, what became of every sample, and what is finished.

    000000.tar, …              shards, as the readers of training take them
    records/000000.json        what each step made of a shard; there once its shard is finished
    set-aside/000000.jsonl     samples that were set aside, each with the reason
    curation.json              the settings, which stay the same

Everything appears whole, and what is in ``records/`` comes last. So a run that is stopped goes on
behind the finished shards; one that was being written is written anew, under the same name.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kosmosg.curation.records import ShardRecords
from kosmosg.curation.totals import make_summary
from kosmosg.data.shards import shard_name, write_files
from kosmosg.errors import CurationError
from kosmosg.utils.files import LOCK, RunRecord, atomic_file, lock_folder, remove_unfinished

SETTINGS_FILE = "curation.json"
RECORDS, SET_ASIDE, ATTEMPTS = "records", "set-aside", ".attempts"


@dataclass(frozen=True, kw_only=True)
class OutputFolder:
    """The folder.

    Attributes:
        directory: On a cluster, one that all machines see under this path.
        per_shard: Most samples of a shard, so that keys differ from shard to shard.
    """

    directory: Path
    per_shard: int

    @contextmanager
    def held(self, settings: Mapping[str, Any]) -> Iterator[None]:
        """Begin, and hold the folder for this process: two runs would make everything twice.

        Raises:
            CurationError: If another process holds it, or as ``begin`` does.
        """
        self.check(settings)  # before anything is left in it
        with lock_folder(self.directory, work="run", error=CurationError):
            self.begin(settings)
            yield

    def check(self, settings: Mapping[str, Any]) -> None:
        """Compare the settings with those of the shards that are finished, if there are any.

        Raises:
            CurationError: If they are others, or something else is there.
        """
        begun = self._settings.read()
        if begun is None and self._strangers():
            raise CurationError(
                f"{self.directory} is not empty, and was not made by this command. Name another "
                "folder, or remove it."
            )
        if self.finished():
            self._settings.check(settings)

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Note with what the data are made, so that they are not continued with anything else.

        Raises:
            CurationError: As ``check`` does.
        """
        self.check(settings)
        self.end()  # a run that was killed; nobody else is writing now
        finished = self.finished()
        if not finished:
            self._clear()
        self._settings.settle(settings, anew=not finished)

    def finished(self) -> set[int]:
        """List the numbers of the finished shards."""
        # A copy of a summary that somebody has put by has another name.
        stems = (path.stem for path in (self.directory / RECORDS).glob("*.json"))
        return {int(stem) for stem in stems if stem.isdecimal()}

    def write(self, shard: ShardRecords) -> None:
        """Write a shard, unless nothing is left of it, and its summary."""
        path = self.directory / shard_name(shard.number)
        if shard.records:
            first = shard.number * self.per_shard
            write_files((record.files for record in shard.records), path, first_key=first)
        else:
            path.unlink(missing_ok=True)  # of an attempt that had more luck, but left no summary
        lines = (json.dumps(asdict(each), ensure_ascii=False) for each in shard.set_aside)
        aside = self.directory / SET_ASIDE / f"{path.stem}.jsonl"
        write_text(aside, "".join(f"{line}\n" for line in lines))
        size = path.stat().st_size if shard.records else 0
        summary = json.dumps(make_summary(shard, size), ensure_ascii=False)
        write_text(self._summary_file(shard.number), f"{summary}\n")

    def count_attempt(self, number: int, step: str) -> int:
        """Count the attempts of this run at a step of a shard, and return how many there are.

        The count outlives whatever process dies in the attempt.
        """
        path = self.directory / ATTEMPTS / f"{number:06d}-{step}"
        path.parent.mkdir(exist_ok=True)
        with path.open("ab") as file:
            file.write(b".")
        return path.stat().st_size

    def summaries(self) -> Iterator[dict[str, Any]]:
        """Read what became of each finished shard, by their numbers.

        Raises:
            CurationError: If a summary is damaged, or the shard that it tells of is gone.
        """
        for number in sorted(self.finished()):
            shard = self.directory / shard_name(number)
            path = self._summary_file(number)
            try:
                summary = json.loads(path.read_bytes())
                samples = summary["samples"]
            except (ValueError, KeyError, TypeError) as error:
                raise CurationError(
                    f"{path} is damaged. Remove it, and its shard will be made again."
                ) from error
            if samples and not shard.is_file():
                raise CurationError(
                    f"{shard} is gone, but {path} says that it was finished. Put it back, or "
                    "remove the summary, and it will be made again."
                )
            yield summary

    def end(self) -> None:
        """Remove what no run needs any more."""
        shutil.rmtree(self.directory / ATTEMPTS, ignore_errors=True)
        remove_unfinished(self.directory)

    @property
    def _settings(self) -> RunRecord:
        return RunRecord(
            file=self.directory / SETTINGS_FILE,
            error=CurationError,
            remedy="name another folder, or remove this one",
        )

    def _summary_file(self, number: int) -> Path:
        return self.directory / RECORDS / f"{Path(shard_name(number)).stem}.json"

    def _strangers(self) -> bool:
        """Tell whether there is something that no run has left that was killed at its beginning."""
        if not self.directory.exists():
            return False
        ours = {LOCK, ATTEMPTS}
        return any(
            path.name not in ours and not path.name.startswith(f"{SETTINGS_FILE}.")
            for path in self.directory.iterdir()
        )

    def _clear(self) -> None:
        """Remove what no summary tells of, of a run that finished nothing."""
        for shard in self.directory.glob("*.tar"):
            if shard.stem.isdecimal():
                shard.unlink()
        shutil.rmtree(self.directory / SET_ASIDE, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a text, which appears whole."""
    with atomic_file(path) as file:
        # A key may hold half a surrogate pair, which has no encoding.
        file.write_text(text, encoding="utf-8", errors="replace")
