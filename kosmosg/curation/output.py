"""The folder that is written: shards, what became of every sample, and what is finished.

    000000.tar, …              shards, as the readers of training take them
    records/000000.json        what each step made of a portion; there once its shard is finished
    set-aside/000000.jsonl     samples that were set aside, each with the reason
    curation.json              the settings, which stay the same

Everything appears whole, by a rename, and the record comes last. So a run that is stopped goes on
behind the finished shards; one that was being written is written anew, under the same name.
"""

import json
import os
import secrets
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kosmosg.checkpoints.lockfile import only_one
from kosmosg.curation.records import Portion
from kosmosg.data.shard_writer import shard_name, write_files
from kosmosg.errors import CurationError

SETTINGS_FILE = "curation.json"
RECORDS, SET_ASIDE, SCRATCH = "records", "set-aside", ".curation.scratch"
OWNER = ".curation.lock"
KEPT = "kept"


@dataclass(frozen=True, kw_only=True)
class Ledger:
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

        def explain(process: str) -> CurationError:
            return CurationError(
                f"{self.directory}: another run (process {process}) is at work here. Wait for it "
                "or end it, or name another folder."
            )

        self.check(settings)  # before anything is left in it
        with only_one(self.directory, OWNER, explain):
            self.begin(settings)
            yield

    def check(self, settings: Mapping[str, Any]) -> None:
        """Compare the settings with those of the shards that are finished, if there are any.

        Raises:
            CurationError: If they are others, or something else is there.
        """
        file = self.directory / SETTINGS_FILE
        if file.exists():
            begun = self._read_settings(file)
            if self.finished():
                self._compare(begun, json.loads(json.dumps(settings)))
        elif self._strangers():
            raise CurationError(
                f"{self.directory} is not empty, and was not made by this command. Name another "
                "folder, or remove it."
            )

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Note with what the data are made, so that they are not continued with anything else.

        Raises:
            CurationError: As ``check`` does.
        """
        self.check(settings)
        # Of a run that was killed; nobody else is writing now.
        shutil.rmtree(self.directory / SCRATCH, ignore_errors=True)
        if not self.finished():
            self._clear()
        for name in (SCRATCH, RECORDS, SET_ASIDE):
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        text = json.dumps(dict(settings), indent=2, ensure_ascii=False)
        self._write(self.directory / SETTINGS_FILE, f"{text}\n")

    def finished(self) -> set[int]:
        """List the numbers of the finished shards."""
        # A copy of a record that somebody has put by has another name.
        stems = (path.stem for path in (self.directory / RECORDS).glob("*.json"))
        return {int(stem) for stem in stems if stem.isdecimal()}

    def write(self, portion: Portion) -> None:
        """Write the shard of a portion, unless nothing is left of it, and its record."""
        name = shard_name(portion.number)
        shard, stem = self.directory / name, Path(name).stem
        if portion.drafts:
            scratch = self._scratch(name)
            first = portion.number * self.per_shard
            write_files((draft.files for draft in portion.drafts), scratch, first_key=first)
            _publish(scratch, shard)
        else:
            shard.unlink(missing_ok=True)  # of an attempt that had more luck, but left no record
        lines = (json.dumps(asdict(each), ensure_ascii=False) for each in portion.set_aside)
        self._write(
            self.directory / SET_ASIDE / f"{stem}.jsonl", "".join(f"{line}\n" for line in lines)
        )
        size = shard.stat().st_size if portion.drafts else 0
        record = json.dumps(make_record(portion, size), ensure_ascii=False)
        self._write(self._record(portion.number), f"{record}\n")

    def count_attempt(self, number: int, step: str) -> int:
        """Count the attempts of this run at a step of a portion, and return how many there are.

        The count outlives whatever process dies in the attempt.
        """
        path = self.directory / SCRATCH / f"{number:06d}-{step}.attempts"
        with path.open("ab") as file:
            file.write(b".")
        return path.stat().st_size

    def records(self) -> Iterator[dict[str, Any]]:
        """Read what became of each finished portion, by their numbers.

        Raises:
            CurationError: If a record is damaged, or the shard that it tells of is gone.
        """
        for number in sorted(self.finished()):
            shard = self.directory / shard_name(number)
            path = self._record(number)
            try:
                record = json.loads(path.read_bytes())
                samples = record["samples"]
            except (ValueError, KeyError, TypeError) as error:
                raise CurationError(
                    f"{path} is damaged. Remove it, and its shard will be made again."
                ) from error
            if samples and not shard.is_file():
                raise CurationError(
                    f"{shard} is gone, but {path} says that it was finished. Put it back, or "
                    "remove the record, and it will be made again."
                )
            yield record

    def end(self) -> None:
        """Remove what no run needs any more."""
        shutil.rmtree(self.directory / SCRATCH, ignore_errors=True)

    def _record(self, number: int) -> Path:
        return self.directory / RECORDS / f"{Path(shard_name(number)).stem}.json"

    def _strangers(self) -> bool:
        if not self.directory.exists():
            return False
        for path in self.directory.iterdir():
            if path.name in {RECORDS, SET_ASIDE} and path.is_dir() and not any(path.iterdir()):
                continue  # of a run that was killed before it could note its settings
            if path.name not in {SCRATCH, OWNER}:
                return True
        return False

    def _clear(self) -> None:
        """Remove what no record tells of, of a run that finished nothing."""
        for shard in self.directory.glob("*.tar"):
            if shard.stem.isdecimal():
                shard.unlink()
        shutil.rmtree(self.directory / SET_ASIDE, ignore_errors=True)

    def _read_settings(self, file: Path) -> dict[str, Any]:
        try:
            settings = json.loads(file.read_bytes())
        except ValueError:
            settings = None
        if not isinstance(settings, dict):
            raise CurationError(
                f"{file} is damaged, or was not made by this command. Name another folder, or "
                "remove this one."
            )
        return settings

    def _compare(self, begun: dict[str, Any], wanted: dict[str, Any]) -> None:
        if begun.get("set") != wanted.get("set"):
            raise CurationError(
                f"{self.directory} holds the set {begun.get('set')}, not {wanted.get('set')}. Name "
                "another folder, or remove this one."
            )
        differing = sorted(
            name for name in begun.keys() | wanted.keys() if begun.get(name) != wanted.get(name)
        )
        if differing:
            found = ", ".join(
                f"{name} {begun.get(name)!r} and not {wanted.get(name)!r}" for name in differing
            )
            raise CurationError(
                f"{self.directory} was begun with other settings: {found}. Use the same ones, name "
                "another folder, or remove this one."
            )

    def _write(self, path: Path, text: str) -> None:
        scratch = self._scratch(path.name)
        # A key may hold half a surrogate pair, which has no encoding.
        scratch.write_text(text, encoding="utf-8", errors="replace")
        _publish(scratch, path)

    def _scratch(self, name: str) -> Path:
        """Name a file of our own: a worker that is taken for dead may still be writing."""
        return self.directory / SCRATCH / f"{secrets.token_hex(4)}-{name}"


def _publish(scratch: Path, path: Path) -> None:
    """Let a file appear under its name, once the disk has all of it."""
    with scratch.open("rb") as file:
        os.fsync(file.fileno())
    scratch.replace(path)


def make_record(portion: Portion, size: int) -> dict[str, Any]:
    """Count what became of a portion.

    Args:
        portion: As the last step leaves it.
        size: Of its shard, in bytes.
    """
    reasons: dict[str, Counter[str]] = {tally.step: Counter() for tally in portion.tallies}
    for each in portion.set_aside:
        reasons[each.step][each.reason] += 1
    entities = Counter(
        rule for each in (*portion.drafts, *portion.set_aside) for _, rule in each.dropped
    )
    entities[KEPT] = sum(len(draft.tags) for draft in portion.drafts)
    return {
        "shard": portion.number,
        "samples": len(portion.drafts),
        "bytes": size,
        "steps": [asdict(t) | {"set_aside": dict(reasons[t.step])} for t in portion.tallies],
        "entities": dict(entities),
    }
