"""What became of samples: the summary of a shard, and the totals of a run."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from kosmosg.curation.records import RULES, ShardRecords

KEPT = "kept"
HEADER = "| step | came | kept | filtered | failed | s each |\n|---|---:|---:|---|---|---:|"


def make_summary(shard: ShardRecords, size: int) -> dict[str, Any]:
    """Count what became of a shard.

    Args:
        shard: As the last step leaves it.
        size: Of its file, in bytes.
    """
    reasons: dict[str, Counter[str]] = {each.step: Counter() for each in shard.counts}
    for each in shard.set_aside:
        reasons[each.step][each.reason] += 1
    entities = Counter(
        rule for each in (*shard.records, *shard.set_aside) for _, rule in each.dropped
    )
    entities[KEPT] = sum(len(record.tags) for record in shard.records)
    return {
        "shard": shard.number,
        "samples": len(shard.records),
        "bytes": size,
        "steps": [asdict(each) | {"set_aside": dict(reasons[each.step])} for each in shard.counts],
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

    def add(self, summary: Mapping[str, Any]) -> None:
        """Add what the step made of one shard."""
        self.came += summary["came"]
        self.kept += summary["kept"]
        self.seconds += summary["seconds"]
        self.set_aside.update(summary["set_aside"])

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
        shards: Finished shards, those of which nothing is left included.
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
    def of(cls, summaries: Iterable[Mapping[str, Any]]) -> "Totals":
        """Add up the summaries of shards."""
        shards = samples = size = 0
        steps: dict[str, StepTotal] = {}
        entities: Counter[str] = Counter()
        for summary in summaries:
            shards += 1
            samples += summary["samples"]
            size += summary["bytes"]
            entities.update(summary["entities"])
            for step in summary["steps"]:
                steps.setdefault(step["step"], StepTotal()).add(step)
        found = dict(sorted(entities.items()))
        return cls(shards=shards, samples=samples, bytes=size, steps=steps, entities=found)

    @property
    def reasons(self) -> Counter[str]:
        """Why samples were set aside, by whatever step."""
        return sum((step.set_aside for step in self.steps.values()), Counter())


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
