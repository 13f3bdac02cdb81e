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
    ShardPlan,
    plan_missing,
    run_here,
    run_on_ray,
    share_out,
)
from kosmosg.curation.options import EditOptions
from kosmosg.curation.output import OutputFolder
from kosmosg.curation.pipelines import Pipeline, make_instructpix2pix, make_openimages
from kosmosg.curation.records import Outcome, Record
from kosmosg.curation.steps import PipelineStep
from kosmosg.errors import CurationError, WeightsError
from tests.curation.folders import shards, write_edits
from tests.curation.mortal import OnFire, make_mortal
from tests.curation.test_openimages import make
from tests.curation.world import OPTIONS, oracles, write_images

COUNT, PER_SHARD = 20, 4
CPUS = 2


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("world") / "images", COUNT)


@pytest.fixture(scope="module")
def undisturbed(images: Path, tmp_path_factory: pytest.TempPathFactory) -> OutputFolder:
    return make(pipeline_of(images), tmp_path_factory.mktemp("made") / "set", PER_SHARD)


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


def pipeline_of(images: Path, **models: Any) -> Pipeline:
    return make_openimages(
        images, OPTIONS, per_shard=PER_SHARD, models=replace(oracles(COUNT), **models)
    )


def begin(pipeline: Pipeline, directory: Path, per_shard: int = PER_SHARD) -> OutputFolder:
    output = OutputFolder(directory=directory, per_shard=per_shard)
    output.begin(pipeline.settings)
    return output


def run(pipeline: Pipeline, output: OutputFolder, cluster: dict[str, float]) -> list[int]:
    workers = share_out(pipeline.steps, cluster["CPU"], 0, {})
    return sorted(run_on_ray(plan_missing(pipeline, output), pipeline.steps, output, workers))


@pytest.mark.slow
def test_a_stopped_run_goes_on_although_workers_die(
    images: Path,
    undisturbed: OutputFolder,
    cluster: dict[str, float],
    tmp_path: Path,
    capfd: pytest.CaptureFixture,
) -> None:
    """A worker with a model and one without are replaced; what kills them all is left out."""
    pipeline = pipeline_of(images)
    output = begin(pipeline, tmp_path / "set")
    numbers = run_here(plan_missing(pipeline, output), pipeline.steps, output)
    assert [next(numbers), next(numbers)] == [0, 1]
    numbers.close()
    times = {path: path.stat().st_mtime_ns for path in output.directory.glob("*.tar")}

    output.begin(pipeline.settings)
    mortal = make_mortal(pipeline, "entities", "009.png", tmp_path / "model")
    mortal = make_mortal(mortal, "read", "012.png", tmp_path / "reader")
    mortal = make_mortal(mortal, "cut", "016.png")
    for _ in range(ATTEMPTS - 1):  # processes take long to start
        output.count_attempt(4, "cut")
    assert run(mortal, output, cluster) == [2, 3]
    for marker in ("model", "reader"):
        assert int((tmp_path / marker).read_text()) != os.getpid()  # somebody has died
    assert output.count_attempt(4, "cut") == ATTEMPTS + 2
    told = "A shard is left out. Shard 4, step cut: 5 workers died over it."
    assert told in capfd.readouterr().err

    output.begin(pipeline.settings)
    assert list(run_here(plan_missing(pipeline, output), pipeline.steps, output)) == [4]
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert shards(output.directory) == shards(undisturbed.directory)
    assert without_times(output) == without_times(undisturbed)


def without_times(output: OutputFolder) -> list[dict[str, Any]]:
    summaries = list(output.summaries())
    for summary in summaries:
        for step in summary["steps"]:
            del step["seconds"]
    return summaries


@pytest.mark.slow
def test_what_fails_for_everything_stops_the_run(
    cluster: dict[str, float],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture,
) -> None:
    edits = write_edits(tmp_path / "edits", 6)
    pipeline = make_instructpix2pix(edits, EditOptions(side=32), per_shard=9)
    output = begin(pipeline, tmp_path / "set", per_shard=9)
    (listing,) = pipeline.source.listings
    plans = [ShardPlan(number=number, listing=listing) for number in range(12)]
    steps = (PipelineStep(name="read", make=OnFire),)
    workers = share_out(steps, cluster["CPU"], 0, {})
    capfd.readouterr()
    for numbers in (run_here(plans, steps, output), run_on_ray(plans, steps, output, workers)):
        with pytest.raises(CurationError, match=r"run stopped: Step read: .* on fire\. Mend"):
            list(numbers)
        told = caplog.text + capfd.readouterr().err
        assert told.count("A shard is left out. Step read: it failed for all 9 samples") >= BROKEN
        assert "on fire.\nTraceback" not in told
        caplog.clear()
    assert not output.finished()


def test_one_broken_shard_is_left_out_without_ray_too(tmp_path: Path) -> None:
    edits = write_edits(tmp_path / "edits", 6)
    pipeline = make_instructpix2pix(edits, EditOptions(side=32), per_shard=9)
    output = begin(pipeline, tmp_path / "set", per_shard=9)
    (listing,) = pipeline.source.listings
    plans = [ShardPlan(number=number, listing=listing) for number in range(3)]

    class Once:
        name, batch, calls = "read", 64, 0

        def __init__(self) -> None:
            self._step = pipeline.steps[0].make()

        def __call__(self, records: Sequence[Record]) -> Sequence[Outcome]:
            self.calls += len(records) == 9
            if self.calls == 2:
                raise RuntimeError("for the whole of the second shard")
            return self._step(records)

    steps = (PipelineStep(name="read", make=Once),)
    assert list(run_here(plans, steps, output)) == [0, 2]
    assert output.finished() == {0, 2}


def no_model() -> Any:
    raise WeightsError("nobody/model has no safetensors.")


@pytest.mark.slow
def test_a_model_that_is_not_there_stops_the_run(
    images: Path, cluster: dict[str, float], tmp_path: Path
) -> None:
    pipeline = pipeline_of(images, finder=no_model)
    read, _, entities, *_ = pipeline.steps
    pipeline = replace(pipeline, steps=(read, entities))
    output = begin(pipeline, tmp_path / "set")
    with pytest.raises(CurationError, match=r"The run stopped: nobody/model has no safetensors\."):
        run(pipeline, output, cluster)
    assert not output.finished()
