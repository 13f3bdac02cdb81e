"""Ray Data as the engine: the same bytes as without it, also when workers die."""

import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest

from kosmosg.curation.engine import ATTEMPTS, Job, find_cause, run_here, run_on_ray
from kosmosg.curation.output import Ledger
from kosmosg.curation.pipelines import Recipe, make_instructpix2pix, make_openimages
from kosmosg.curation.records import Draft, Outcome
from kosmosg.curation.workers import Stage, share_out
from kosmosg.data.schema import StoredPicture
from kosmosg.errors import CurationError, WeightsError
from tests.curation.test_command import write_edits
from tests.curation.test_openimages import make, shards
from tests.curation.world import OPTIONS, draw, mortal_finder, oracles, write_pictures

COUNT, PER_SHARD = 20, 4
CPUS = 2
STORE = 200 * 2**20  # bytes of Ray's object store


def test_the_cause_of_an_error() -> None:
    try:
        try:
            raise KeyError("the cause")
        except KeyError as error:
            raise RuntimeError("what came of it") from error
    except RuntimeError as error:
        assert find_cause(error) == "'the cause'"
    assert find_cause(ValueError("first line\nlast line.\n")) == "last line"
    assert find_cause(ValueError()) == "ValueError"
    told = """ray.exceptions.RayTaskError(UserCodeException): a worker (pid=3)
KeyError: 'inner'

The above exception was the direct cause of the following exception:

kosmosg.errors.WeightsError: a has no safetensors: name another.
ray.exceptions.UserCodeException: UDF failed.
To change this, see elsewhere."""
    assert find_cause(RuntimeError(told)) == "a has no safetensors: name another"
    try:
        raise RuntimeError(told) from RuntimeError()
    except RuntimeError as error:
        assert find_cause(error) == "a has no safetensors: name another"
    other = told.replace("kosmosg.errors.WeightsError", "builtins.OSError")
    assert find_cause(RuntimeError(other)) == "KeyError: 'inner'"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("world") / "pictures", COUNT)


@pytest.fixture(scope="module")
def undisturbed(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    return make(recipe_of(pictures), tmp_path_factory.mktemp("made") / "set", PER_SHARD)


@pytest.fixture(scope="module")
def cluster() -> Iterator[dict[str, float]]:
    ray = pytest.importorskip("ray")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(
        num_cpus=CPUS,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=STORE,
    )
    yield ray.cluster_resources()
    ray.shutdown()


def recipe_of(pictures: Path, **models: Any) -> Recipe:
    return make_openimages(
        pictures, OPTIONS, per_shard=PER_SHARD, models=replace(oracles(COUNT), **models)
    )


def begin(recipe: Recipe, directory: Path, per_shard: int = PER_SHARD) -> Ledger:
    ledger = Ledger(directory=directory, per_shard=per_shard)
    ledger.begin(recipe.settings)
    return ledger


def jobs_of(recipe: Recipe, ledger: Ledger) -> list[Job]:
    return [
        Job(number=number, listing=listing)
        for number, listing in enumerate(recipe.source.listings)
        if number not in ledger.finished()
    ]


def run(recipe: Recipe, ledger: Ledger, cluster: dict[str, float]) -> list[int]:
    workers = share_out(recipe.stages, cluster["CPU"], 0, {})
    return sorted(run_on_ray(jobs_of(recipe, ledger), recipe.stages, ledger, workers))


class MortalRead:
    """Reads, but for once takes its process with it."""

    name = "read"
    batch = 64

    def __init__(self, make: Any, marker: Path):
        self._step, self._marker = make(), marker

    def __call__(self, drafts: Sequence[Draft]) -> Sequence[Outcome]:
        if drafts[0].key == "012.png" and not self._marker.exists():
            self._marker.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        return self._step(drafts)


@pytest.mark.slow
def test_a_stopped_run_goes_on_although_workers_die(
    pictures: Path, undisturbed: Ledger, cluster: dict[str, float], tmp_path: Path
) -> None:
    """One that holds a model and one that does not: each is replaced, and nothing is missing."""
    fatal = draw(9).caption.text
    recipe = recipe_of(pictures, finder=partial(mortal_finder, fatal, tmp_path / "model"))
    first = recipe.stages[0]
    mortal = replace(first, make=partial(MortalRead, first.make, tmp_path / "reader"))
    recipe = replace(recipe, stages=(mortal, *recipe.stages[1:]))
    ledger = begin(recipe, tmp_path / "set")
    numbers = run_here(jobs_of(recipe, ledger), recipe.stages, ledger)
    assert [next(numbers), next(numbers)] == [0, 1]
    numbers.close()
    times = {path: path.stat().st_mtime_ns for path in ledger.directory.glob("*.tar")}
    ledger.begin(recipe.settings)
    assert run(recipe, ledger, cluster) == [2, 3, 4]
    for marker in ("model", "reader"):
        assert int((tmp_path / marker).read_text()) != os.getpid()  # somebody has died
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert shards(ledger.directory) == shards(undisturbed.directory)
    assert without_times(ledger) == without_times(undisturbed)


def without_times(ledger: Ledger) -> list[dict[str, Any]]:
    records = list(ledger.records())
    for record in records:
        for step in record["steps"]:
            del step["seconds"]
    return records


class Fatal:
    """A step that kills whoever works on one sample, or fails for all of them."""

    name = "read"
    batch = 64

    def __init__(self, make: Any, key: str | None):
        self._step, self._key = make(), key

    def __call__(self, drafts: Sequence[Draft]) -> Sequence[Outcome]:
        if self._key is None:
            raise RuntimeError("the graphics card is on fire")
        if any(draft.key == self._key for draft in drafts):
            os.kill(os.getpid(), signal.SIGKILL)
        return self._step(drafts)


def make_fatal(recipe: Recipe, key: str | None) -> Recipe:
    first, *others = recipe.stages
    return replace(recipe, stages=(replace(first, make=partial(Fatal, first.make, key)), *others))


@pytest.mark.slow
def test_a_portion_that_kills_every_worker_is_left_out(
    cluster: dict[str, float], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = make_instructpix2pix(write_edits(tmp_path / "edits", 4), per_shard=1, side=32)
    ledger = begin(recipe, tmp_path / "set", per_shard=1)
    for _ in range(ATTEMPTS - 1):  # processes take long to start
        ledger.count_attempt(1, "read")
    assert run(make_fatal(recipe, "0000001/100"), ledger, cluster) == [0, 2, 3, 4, 5]
    assert ledger.finished() == {0, 2, 3, 4, 5}
    assert "Shard 1 is left out. Step read: 5 workers died over it." in caplog.text
    assert ledger.count_attempt(1, "read") == ATTEMPTS + 2
    ledger.begin(recipe.settings)
    assert run(recipe, ledger, cluster) == [1]
    assert shards(ledger.directory) == shards(make(recipe, tmp_path / "other", 1).directory)


@pytest.mark.slow
def test_what_fails_for_everything_stops_the_run(
    cluster: dict[str, float], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = make_instructpix2pix(write_edits(tmp_path / "edits", 6), per_shard=9, side=32)
    recipe = make_fatal(recipe, None)
    ledger = begin(recipe, tmp_path / "set", per_shard=9)
    (listing,) = recipe.source.listings
    jobs = [Job(number=number, listing=listing) for number in range(12)]
    workers = share_out(recipe.stages, cluster["CPU"], 0, {})
    for numbers in (
        run_here(jobs, recipe.stages, ledger),
        run_on_ray(jobs, recipe.stages, ledger, workers),
    ):
        with pytest.raises(CurationError, match="The run stopped after 9 shards"):
            list(numbers)
        assert caplog.text.count("is left out. Step read: it failed for all 9 samples") == 9
        assert "graphics card is on fire" in caplog.text
        caplog.clear()
    assert not ledger.finished()


def test_one_broken_portion_is_left_out_without_ray_too(tmp_path: Path) -> None:
    recipe = make_instructpix2pix(write_edits(tmp_path / "edits", 6), per_shard=9, side=32)
    ledger = begin(recipe, tmp_path / "set", per_shard=9)
    (listing,) = recipe.source.listings
    jobs = [Job(number=number, listing=listing) for number in range(3)]

    class Once:
        name, batch, calls = "read", 64, 0

        def __init__(self) -> None:
            self._step = recipe.stages[0].make()

        def __call__(self, drafts: Sequence[Draft]) -> Sequence[Outcome]:
            self.calls += len(drafts) == 9
            if self.calls == 2:
                raise RuntimeError("for the whole of the second portion")
            return self._step(drafts)

    stages = (Stage(name="read", make=Once),)
    assert list(run_here(jobs, stages, ledger)) == [0, 2]
    assert ledger.finished() == {0, 2}


def no_model() -> Any:
    raise WeightsError("nobody/model has no safetensors.")


@pytest.mark.slow
def test_a_model_that_is_not_there_stops_the_run(
    pictures: Path, cluster: dict[str, float], tmp_path: Path
) -> None:
    recipe = recipe_of(pictures, finder=no_model)
    read, _, entities, *_ = recipe.stages
    recipe = replace(recipe, stages=(read, entities))
    ledger = begin(recipe, tmp_path / "set")
    with pytest.raises(CurationError, match=r"The run stopped: nobody/model has no safetensors\."):
        run(recipe, ledger, cluster)
    assert not ledger.finished()


@dataclass(frozen=True, kw_only=True)
class Names:
    """A portion of one sample, from nowhere."""

    number: int

    def drafts(self) -> list[Draft]:
        return [Draft(key=str(self.number))]


class Fast:
    """Makes large drafts in no time, and notes when."""

    name = "read"
    batch = 1

    def __init__(self, log: Path):
        self._log = log

    def __call__(self, drafts: Sequence[Draft]) -> Sequence[Outcome]:
        note(self._log, "+")
        picture = StoredPicture(data=os.urandom(LARGE), name="noise")
        return [replace(draft, picture=picture) for draft in drafts]


class Slow(Fast):
    """Holds a model, and takes its time."""

    name = "caption"

    def __call__(self, drafts: Sequence[Draft]) -> Sequence[Outcome]:
        time.sleep(0.1)
        note(self._log, "-")
        return [replace(draft, picture=None) for draft in drafts]


def note(log: Path, sign: str) -> None:
    with log.open("a") as file:
        file.write(sign)


LARGE = 10 * 2**20  # bytes


@pytest.mark.slow
def test_a_slow_stage_holds_the_earlier_ones_back(
    cluster: dict[str, float], tmp_path: Path
) -> None:
    """Otherwise they would fill the object store, and then the disk."""
    stages = (
        Stage(name="read", make=partial(Fast, tmp_path / "log")),
        Stage(name="caption", make=partial(Slow, tmp_path / "log"), model=True),
    )
    jobs = [Job(number=number, listing=Names(number=number)) for number in range(50)]
    ledger = Ledger(directory=tmp_path / "set", per_shard=1)
    ledger.begin({})
    workers = share_out(stages, cluster["CPU"], 0, {})
    assert LARGE * len(jobs) > 2 * STORE
    assert len(list(run_on_ray(jobs, stages, ledger, workers))) == len(jobs)
    signs = (tmp_path / "log").read_text()
    assert signs.count("+") == signs.count("-") == len(jobs)
    waiting = accumulate(1 if sign == "+" else -1 for sign in signs)
    assert LARGE * max(waiting) < STORE
