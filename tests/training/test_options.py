"""Settings of a run: bounds, the learning rate by hand, shares of a batch."""

from pathlib import Path
from typing import Any

import pytest

from kosmosg.data.options import DataOptions, EntityOptions, NamedData, StreamOptions
from kosmosg.errors import TrainingError
from kosmosg.training.options import CHANGEABLE, FREE, LoopOptions
from tests.cli.options import read_options


def options(**changes: Any) -> LoopOptions:
    common: dict[str, Any] = {"updates": 10, "batch_size": 4, "learning_rate": 0.8}
    return LoopOptions(output=Path("run"), **(common | changes))


def test_learning_rate_by_hand() -> None:
    """Up in 4 updates, down to 0 behind the last one of 10."""
    schedule = options(warmup_updates=4)
    found = [schedule.learning_rate_at(step) for step in range(10)]
    wanted = [0.2, 0.4, 0.6, 0.8, 6 / 6, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6]
    wanted = wanted[:4] + [0.8 * share for share in wanted[4:]]
    assert found == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("warmup", "updates", "wanted"),
    [
        (0, 4, [0.8, 0.6, 0.4, 0.2]),
        (4, 4, [0.2, 0.4, 0.6, 0.8]),
        (8, 4, [0.1, 0.2, 0.3, 0.4]),  # stopped before it is up
    ],
)
def test_learning_rate_without_one_half(warmup: int, updates: int, wanted: list[float]) -> None:
    schedule = options(warmup_updates=warmup, updates=updates)
    assert [schedule.learning_rate_at(step) for step in range(updates)] == pytest.approx(wanted)


def test_published_values_are_the_defaults() -> None:
    """Those of the authors' training scripts."""
    found = options()
    assert (found.betas, found.epsilon, found.weight_decay) == ((0.9, 0.98), 1e-6, 0.01)
    assert (found.warmup_updates, found.clip_norm, found.save_every) == (375, 2.0, 2000)
    schedule = options(learning_rate=1e-3 - 1e-12, updates=300_000)
    assert schedule.learning_rate_at(374) == pytest.approx(1e-3)
    assert schedule.learning_rate_at(150_187) == pytest.approx(0.5e-3, rel=1e-4)


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("updates", 0, "at least 1"),
        ("batch_size", 0, "at least 1"),
        ("micro_batch_size", 0, "at least 1"),
        ("learning_rate", 0.0, "above 0 and below 1"),
        ("learning_rate", float("nan"), "above 0 and below 1"),
        ("warmup_updates", -1, "at least 0"),
        ("weight_decay", 1.0, "from 0 to below 1"),
        ("betas", (0.9, 1.0), "both from 0 to below 1"),
        ("epsilon", 0.0, "above 0"),
        ("clip_norm", 0.0, "above 0"),
        ("ema_decay", 1.0, "above 0 and below 1"),
        ("seed", -1, "from 0 to 4294967295"),
        ("save_every", 0, "at least 1"),
        ("sample_every", -1, "at least 0"),
        ("log_every", 0, "at least 1"),
        ("keep", 0, "at least 1"),
    ],
)
def test_bounds(name: str, value: Any, wanted: str) -> None:
    with pytest.raises(TrainingError) as caught:
        options(**{name: value})
    option = name.replace("_", "-")
    assert str(caught.value) == f"--{option} is {value}; it must be {wanted}."


@pytest.mark.parametrize("stage", ["lm", "align", "instruct", "clip", "vae", "decoder", "probe"])
def test_the_command_line_has_the_same_defaults(stage: str) -> None:
    """And every stage has all of them."""
    words = ["train", stage, "--output", "run", "--updates", "10", "--batch-size", "4"]
    needed = {
        "lm": "weights",
        "align": "weights",
        "instruct": "weights",
        "clip": "config tokenizer",
    }
    needed |= {"vae": "config", "decoder": "config clip vae"}
    for name in needed.get(stage, "").split():
        words += [f"--{name}", "somewhere"]
    if stage != "probe":
        words += ["--data", "a", "--data", "b:2", "--seed", "3"]
    package = "kosmosg" if needed.get(stage) == "weights" else "miniature"
    found = read_options(words, package)
    seed = 0 if stage == "probe" else 3
    assert found.items() >= vars(options(learning_rate=1e-3, seed=seed)).items()
    if stage != "probe":
        data = (
            NamedData(path=Path("a")),
            NamedData(path=Path("b"), weight=2.0),
        )
        reading = DataOptions(data=data) if stage == "decoder" else StreamOptions(data=data)
        assert found.items() >= vars(reading).items()
    if stage == "instruct":
        assert found.items() >= vars(EntityOptions()).items()


def test_share() -> None:
    assert options(batch_size=12).share(3) == 4
    with pytest.raises(TrainingError, match=r"batch of 12 .* among 5 processes"):
        options(batch_size=12).share(5)


def test_identity_leaves_out_what_may_change() -> None:
    identity = options(optimizer="adafactor").identity()
    assert not identity.keys() & set(FREE)
    assert identity.keys() | set(FREE) == set(LoopOptions.__dataclass_fields__)
    assert identity.keys() >= set(CHANGEABLE)


def test_former_names_still_work() -> None:
    """With the same meaning, so that scripts go on working."""
    words = ["train", "lm", "--weights", "w", "--data", "d", "--output", "o", "--batch-size", "1"]
    new = ["--updates", "9", "--warmup-updates", "8", "--packing-streams", "7"]
    old = ["--steps", "9", "--warmup-steps", "8", "--lanes", "7"]
    found = read_options([*words, *old])
    assert found == read_options([*words, *new])
    assert (found["updates"], found["warmup_updates"], found["packing_streams"]) == (9, 8, 7)
