"""The folder that is written: shards, what became of every sample, and what is finished.

    000000.tar, …              shards, as the readers of training take them
    records/000000.json        what each step made of a portion; there once its shard is finished
    set-aside/000000.jsonl     samples that were set aside, each with the reason
    curation.json              the settings, which stay the same

Everything appears whole, and the record comes last. So a run that is stopped goes on behind the
finished shards; one that was being written is written anew, under the same name.
"""

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kosmosg.curation.records import RULES, Portion
from kosmosg.data.shard_writer import shard_name, write_files
from kosmosg.errors import CurationError
from kosmosg.utils.files import (
    LOCK,
    RunRecord,
    atomic_file,
    lock_folder,
    remove_unfinished,
)

SETTINGS_FILE = "curation.json"
RECORDS, SET_ASIDE, ATTEMPTS = "records", "set-aside", ".attempts"
KEPT = "kept"
HEADER = "| step | came | kept | filtered | failed | s each |\n|---|---:|---:|---|---|---:|"


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
        # A copy of a record that somebody has put by has another name.
        stems = (path.stem for path in (self.directory / RECORDS).glob("*.json"))
        return {int(stem) for stem in stems if stem.isdecimal()}

    def write(self, portion: Portion) -> None:
        """Write the shard of a portion, unless nothing is left of it, and its record."""
        shard = self.directory / shard_name(portion.number)
        if portion.drafts:
            first = portion.number * self.per_shard
            write_files((draft.files for draft in portion.drafts), shard, first_key=first)
        else:
            shard.unlink(missing_ok=True)  # of an attempt that had more luck, but left no record
        lines = (json.dumps(asdict(each), ensure_ascii=False) for each in portion.set_aside)
        aside = self.directory / SET_ASIDE / f"{shard.stem}.jsonl"
        write_text(aside, "".join(f"{line}\n" for line in lines))
        size = shard.stat().st_size if portion.drafts else 0
        record = json.dumps(make_record(portion, size), ensure_ascii=False)
        write_text(self._record(portion.number), f"{record}\n")

    def count_attempt(self, number: int, step: str) -> int:
        """Count the attempts of this run at a step of a portion, and return how many there are.

        The count outlives whatever process dies in the attempt.
        """
        path = self.directory / ATTEMPTS / f"{number:06d}-{step}"
        path.parent.mkdir(exist_ok=True)
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
        shutil.rmtree(self.directory / ATTEMPTS, ignore_errors=True)
        remove_unfinished(self.directory)

    @property
    def _settings(self) -> RunRecord:
        return RunRecord(
            file=self.directory / SETTINGS_FILE,
            error=CurationError,
            remedy="name another folder, or remove this one",
        )

    def _record(self, number: int) -> Path:
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
        """Remove what no record tells of, of a run that finished nothing."""
        for shard in self.directory.glob("*.tar"):
            if shard.stem.isdecimal():
                shard.unlink()
        shutil.rmtree(self.directory / SET_ASIDE, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a text, which appears whole."""
    with atomic_file(path) as file:
        # A key may hold half a surrogate pair, which has no encoding.
        file.write_text(text, encoding="utf-8", errors="replace")


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


@dataclass(kw_only=True)
class StepTotal:
    """What one step made of everything.

    Attributes:
        came: Samples that came to it.
        kept: Samples that left it.
        seconds: Of all its workers together.
        set_aside: The others, by reason.
    """

    came: int = 0
    kept: int = 0
    seconds: float = 0.0
    set_aside: Counter[str] = field(default_factory=Counter)

    def add(self, record: Mapping[str, Any]) -> None:
        """Add what the step made of one portion."""
        self.came += record["came"]
        self.kept += record["kept"]
        self.seconds += record["seconds"]
        self.set_aside.update(record["set_aside"])

    @property
    def filtered(self) -> dict[str, int]:
        """How many a rule sorted out, by reason."""
        return {reason: n for reason, n in sorted(self.set_aside.items()) if reason in RULES}

    @property
    def failed(self) -> dict[str, int]:
        """For how many something went wrong, by reason."""
        return {reason: n for reason, n in sorted(self.set_aside.items()) if reason not in RULES}


@dataclass(frozen=True, kw_only=True)
class Totals:
    """What a run has made so far.

    Attributes:
        shards: Finished portions, those of which nothing is left included.
        samples: What is in the shards.
        bytes: Their size.
        steps: By name, in their order.
        entities: How many are in the samples (``kept``), and how many were dropped, by reason.
    """

    shards: int
    samples: int
    bytes: int
    steps: dict[str, StepTotal]
    entities: dict[str, int]

    @classmethod
    def of(cls, records: Iterable[Mapping[str, Any]]) -> "Totals":
        """Add up the records of a ledger."""
        shards = samples = size = 0
        steps: dict[str, StepTotal] = {}
        entities: Counter[str] = Counter()
        for record in records:
            shards, samples, size = shards + 1, samples + record["samples"], size + record["bytes"]
            entities.update(record["entities"])
            for step in record["steps"]:
                steps.setdefault(step["step"], StepTotal()).add(step)
        found = dict(sorted(entities.items()))
        return cls(shards=shards, samples=samples, bytes=size, steps=steps, entities=found)


def to_json(totals: Totals, settings: Mapping[str, Any], planned: int) -> dict[str, Any]:
    """Collect all numbers."""
    return {
        "settings": dict(settings),
        "shards": {"finished": totals.shards, "planned": planned},
        "samples": totals.samples,
        "bytes": totals.bytes,
        "steps": {
            name: {
                "came": step.came,
                "kept": step.kept,
                "filtered": step.filtered,
                "failed": step.failed,
                "seconds": round(step.seconds, 3),
            }
            for name, step in totals.steps.items()
        },
        "entities": totals.entities,
    }


def make_table(totals: Totals, planned: int) -> str:
    """Write the counts in Markdown; the last column is the time of one worker for a sample."""
    lines = [HEADER]
    for name, step in totals.steps.items():
        each = f"{step.seconds / step.came:.3f}" if step.came else "–"
        row = (name, step.came, step.kept, _listed(step.filtered), _listed(step.failed), each)
        lines.append(f"| {' | '.join(map(str, row))} |")
    lines += [
        "",
        f"{totals.samples} samples ({totals.bytes / 1e9:.3f} GB) in {totals.shards} of {planned} "
        "shards.",
    ]
    if totals.entities.get(KEPT):
        dropped = {reason: n for reason, n in totals.entities.items() if reason != KEPT}
        lines.append(f"{totals.entities[KEPT]} entities; dropped: {_listed(dropped)}.")
    return "\n".join(lines) + "\n"


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {reason}" for reason, n in counts.items()) or "–"
