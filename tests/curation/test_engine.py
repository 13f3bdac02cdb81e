"""Ray Data as the engine: the same bytes as without it, also when workers die."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kosmosg.curation.engine import (
    ATTEMPTS,
    BROKEN,
    Job,
    run_here,
    run_on_ray,
    share_out,
)
from kosmosg.curation.options import EditOptions
from kosmosg.curation.output import Ledger
from kosmosg.curation.pipelines import Recipe, make_instructpix2pix, make_openimages
from kosmosg.curation.records import Draft, Outcome
from kosmosg.curation.steps import Stage
from kosmosg.errors import CurationError, WeightsError
from tests.curation.folders import shards, write_edits
from tests.curation.mortal import OnFire, make_mortal
from tests.curation.test_openimages import make
from tests.curation.world import OPTIONS, oracles, write_pictures

COUNT, PER_SHARD = 20, 4
CPUS = 2


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
        object_store_memory=200 * 2**20,
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


@pytest.mark.slow
def test_a_stopped_run_goes_on_although_workers_die(
    pictures: Path,
    undisturbed: Ledger,
    cluster: dict[str, float],
    tmp_path: Path,
    capfd: pytest.CaptureFixture,
) -> None:
    """A worker with a model and one without are replaced; what kills them all is left out."""
    recipe = recipe_of(pictures)
    ledger = begin(recipe, tmp_path / "set")
    numbers = run_here(jobs_of(recipe, ledger), recipe.stages, ledger)
    assert [next(numbers), next(numbers)] == [0, 1]
    numbers.close()
    times = {path: path.stat().st_mtime_ns for path in ledger.directory.glob("*.tar")}

    ledger.begin(recipe.settings)
    mortal = make_mortal(recipe, "entities", "009.png", tmp_path / "model")
    mortal = make_mortal(mortal, "read", "012.png", tmp_path / "reader")
    mortal = make_mortal(mortal, "cut", "016.png")
    for _ in range(ATTEMPTS - 1):  # processes take long to start
        ledger.count_attempt(4, "cut")
    assert run(mortal, ledger, cluster) == [2, 3]
    for marker in ("model", "reader"):
        assert int((tmp_path / marker).read_text()) != os.getpid()  # somebody has died
    assert ledger.count_attempt(4, "cut") == ATTEMPTS + 2
    told = "A shard is left out. Shard 4, step cut: 5 workers died over it."
    assert told in capfd.readouterr().err

    ledger.begin(recipe.settings)
    assert list(run_here(jobs_of(recipe, ledger), recipe.stages, ledger)) == [4]
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert shards(ledger.directory) == shards(undisturbed.directory)
    assert without_times(ledger) == without_times(undisturbed)


def without_times(ledger: Ledger) -> list[dict[str, Any]]:
    records = list(ledger.records())
    for record in records:
        for step in record["steps"]:
            del step["seconds"]
    return records


@pytest.mark.slow
def test_what_fails_for_everything_stops_the_run(
    cluster: dict[str, float],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture,
) -> None:
    edits = write_edits(tmp_path / "edits", 6)
    recipe = make_instructpix2pix(edits, EditOptions(side=32), per_shard=9)
    ledger = begin(recipe, tmp_path / "set", per_shard=9)
    (listing,) = recipe.source.listings
    jobs = [Job(number=number, listing=listing) for number in range(12)]
    stages = (Stage(name="read", make=OnFire),)
    workers = share_out(stages, cluster["CPU"], 0, {})
    capfd.readouterr()
    for numbers in (run_here(jobs, stages, ledger), run_on_ray(jobs, stages, ledger, workers)):
        with pytest.raises(CurationError, match=r"run stopped: Step read: .* on fire\. Mend"):
            list(numbers)
        told = caplog.text + capfd.readouterr().err
        assert told.count("A shard is left out. Step read: it failed for all 9 samples") >= BROKEN
        assert "on fire.\nTraceback" not in told
        caplog.clear()
    assert not ledger.finished()


def test_one_broken_portion_is_left_out_without_ray_too(tmp_path: Path) -> None:
    edits = write_edits(tmp_path / "edits", 6)
    recipe = make_instructpix2pix(edits, EditOptions(side=32), per_shard=9)
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
