"""The loop on a toy: what it computes, and that nothing stops it from going on."""

import random
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from kosmosg.errors import TrainingError
from kosmosg.training.checkpoints import read_checkpoint
from kosmosg.training.data import RoundRobin
from kosmosg.training.loop import train
from kosmosg.training.options import LoopOptions
from tests.training import killers
from tests.training.logs import read_log
from tests.training.processes import run_to_the_end, run_together, started
from tests.training.toy import (
    ToyBatch,
    ToyStage,
    ToyStream,
    assert_same_run,
    times,
    toy_options,
    train_in_process,
    train_toy,
    weights,
)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run from its beginning to its end."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    train_toy(toy_options(folder))
    return folder


# ------------------------------------------------------------------ what it computes


def test_losses_go_down(tmp_path: Path) -> None:
    train_toy(toy_options(tmp_path / "run", updates=60))
    losses = [value for _, value in read_log(tmp_path / "run")["loss"]]
    assert len(losses) == 60
    assert sum(losses[-10:]) < 0.3 * sum(losses[:10])


def test_the_log_has_everything(undisturbed: Path) -> None:
    log = read_log(undisturbed)
    assert log.keys() == {"loss", "double", "gradient", "rate"}
    assert {tuple(step for step, _ in entries) for entries in log.values()} == {tuple(range(1, 13))}
    for (_, loss), (_, double) in zip(log["loss"], log["double"], strict=True):
        assert double == pytest.approx(2 * loss, rel=1e-6)


def test_the_log_holds_means_over_its_interval(tmp_path: Path, undisturbed: Path) -> None:
    train_toy(toy_options(tmp_path / "run", log_every=5))
    every = [value for _, value in read_log(undisturbed)["loss"]]
    found = read_log(tmp_path / "run")["loss"]
    wanted = [(5, sum(every[:5]) / 5), (10, sum(every[5:10]) / 5), (12, sum(every[10:]) / 2)]
    assert [step for step, _ in found] == [5, 10, 12]
    assert [value for _, value in found] == pytest.approx([value for _, value in wanted], rel=1e-6)


def test_the_result_is_the_moving_average(tmp_path: Path) -> None:
    """Recomputed from the weights after each update, which checkpoints keep."""
    train_toy(toy_options(tmp_path / "run", updates=5, save_every=1, keep=5, ema_decay=0.35))
    torch.manual_seed(0)
    average = {
        name: p.detach() for name, p in ToyStage().network.named_parameters(prefix="network")
    }
    for step in range(1, 6):
        saved = read_checkpoint(tmp_path / "run" / "checkpoints" / f"step-{step:08d}")
        decay = min(0.35, step / (9 + step)) if step > 1 else 0.0  # it forgets its beginning
        for name in average:
            average[name] = decay * average[name] + (1 - decay) * saved.weights[name]
            torch.testing.assert_close(saved.ema[name], average[name], atol=1e-6, rtol=0)
    found = weights(tmp_path / "run")
    for name, tensor in average.items():
        torch.testing.assert_close(found[name], tensor, atol=1e-6, rtol=0)
        assert not torch.equal(found[name], saved.weights[name])


def test_without_an_average_the_result_is_the_last_weights(tmp_path: Path) -> None:
    train_toy(toy_options(tmp_path / "run", ema_decay=None))
    saved = read_checkpoint(tmp_path / "run" / "checkpoints" / "step-00000012")
    assert saved.ema == {}
    for name, tensor in saved.weights.items():
        assert torch.equal(weights(tmp_path / "run")[name], tensor)


def test_only_what_is_trained_changes(undisturbed: Path) -> None:
    torch.manual_seed(0)
    before = ToyStage().state_dict()
    for name, tensor in weights(undisturbed).items():
        assert torch.equal(tensor, before[name]) == name.startswith("frozen"), name
    saved = read_checkpoint(undisturbed / "checkpoints" / "step-00000012")
    assert not any(name.startswith("frozen") for name in saved.weights)


def test_bfloat16_runs(tmp_path: Path) -> None:
    train_toy(toy_options(tmp_path / "run", precision="bf16", updates=30))
    losses = [value for _, value in read_log(tmp_path / "run")["loss"]]
    assert sum(losses[-5:]) < sum(losses[:5])
    assert {tensor.dtype for tensor in weights(tmp_path / "run").values()} == {torch.float32}


def test_float16_needs_a_gpu(tmp_path: Path) -> None:
    if torch.accelerator.is_available():
        pytest.skip("there is one")
    with pytest.raises(TrainingError, match="fp16 needs a GPU"):
        train_toy(toy_options(tmp_path / "run", precision="fp16"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_float16_resumes_with_its_loss_scale(tmp_path: Path) -> None:
    options = partial(toy_options, precision="fp16", updates=12)
    train_toy(options(tmp_path / "whole"))
    with pytest.raises(KeyboardInterrupt):
        train_toy(options(tmp_path / "parts"), end=8 * 7)
    train_toy(options(tmp_path / "parts"))
    assert_same_run(tmp_path / "parts", tmp_path / "whole")
    state = read_checkpoint(tmp_path / "parts" / "checkpoints" / "step-00000012")
    assert state.scaler["scale"] > 0


class Wasteful(ToyStream):
    """Skips a sample of each kind for every sample that it gives."""

    @property
    def skipped(self) -> dict[str, dict[str, int]]:
        given = self._position // self._processes
        return {"a": {"image": given}, "b": {"image": given, "too-small": 1}}


def train_wastefully(options: LoopOptions) -> None:
    train(ToyStage, Wasteful, options)


def test_what_was_skipped_is_told_when_a_run_ends(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture
) -> None:
    train_wastefully(toy_options(tmp_path / "run", updates=3))
    assert caplog.messages.count("run: skipped in all 48 × image, 1 × too-small") == 1
    train_wastefully(toy_options(tmp_path / "run", updates=3))  # nothing is done, nothing is said
    assert len([line for line in caplog.messages if "skipped" in line]) == 1
    train_toy(toy_options(tmp_path / "other", updates=3))
    assert not any("other: skipped" in line for line in caplog.messages)
    options = toy_options(tmp_path / "two", updates=3)
    options.output.mkdir()
    assert run_together(train_wastefully, options) == [0, 0]
    assert capfd.readouterr().err.count("two: skipped in all 48 × image, 2 × too-small") == 1


class Closing(ToyStream):
    """Counts how often it is closed."""

    closed = 0

    def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize("end", [None, 10])
def test_the_stream_is_closed_however_a_run_ends(tmp_path: Path, end: int | None) -> None:
    streams: list[Closing] = []

    def open_stream(rank: int, processes: int) -> RoundRobin:
        streams.extend(Closing(rank, processes, end) for _ in range(2))
        return RoundRobin(streams)

    with pytest.raises(KeyboardInterrupt) if end else nullcontext():
        train(ToyStage, open_stream, toy_options(tmp_path / "run", updates=4))
    assert [stream.closed for stream in streams] == [1, 1]


class Greedy(ToyStage):
    def losses(self, batch: ToyBatch) -> dict[str, Tensor]:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")


def test_too_little_memory_is_explained(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="again with a smaller --micro-batch-size"):
        train_toy(toy_options(tmp_path / "run"), build=Greedy)


# ------------------------------------------------------------------ going on


@pytest.mark.parametrize("log_every", [1, 4])
def test_a_stopped_run_goes_on_as_if_undisturbed(tmp_path: Path, log_every: int) -> None:
    """Stopped between two checkpoints, twice; a log entry's mean may reach across both."""
    changes: dict[str, Any] = {"log_every": log_every, "save_every": 3}
    for end in (8 * 5, 8 * 8):
        with pytest.raises(KeyboardInterrupt):
            train_toy(toy_options(tmp_path / "parts", **changes), end=end)
    train_toy(toy_options(tmp_path / "parts", **changes))
    train_toy(toy_options(tmp_path / "whole", **changes))
    assert_same_run(tmp_path / "parts", tmp_path / "whole")


@pytest.mark.parametrize("killer", killers.MOMENTS)
def test_a_killed_run_goes_on_as_if_undisturbed(
    tmp_path: Path, undisturbed: Path, killer: str
) -> None:
    options = toy_options(tmp_path / "run")
    assert run_to_the_end(killers.train_and_die, options, killer) == -9
    assert not options.output.joinpath("weights").exists()
    assert run_to_the_end(train_in_process, options) == 0
    assert_same_run(options.output, undisturbed)
    assert not list(options.output.rglob("*.part"))


def test_a_run_killed_at_random_again_and_again(tmp_path: Path) -> None:
    """Saving after every update, so that most of the time is spent writing."""
    options = toy_options(tmp_path / "run", updates=40, save_every=1, log_every=7)
    chooser, survived = random.Random(0), 0
    for _ in range(5):
        with started(train_in_process, options) as process:
            before = latest(options)
            while process.is_alive() and latest(options) <= before:
                time.sleep(0.001)
            time.sleep(chooser.uniform(0, 0.05))
            survived += process.is_alive()
    assert survived >= 3, "hardly any was killed in the middle"
    assert run_to_the_end(train_in_process, options) == 0
    train_toy(toy_options(tmp_path / "whole", updates=40, save_every=1, log_every=7))
    assert_same_run(options.output, tmp_path / "whole")


def latest(options: LoopOptions) -> str:
    return max(
        (folder.name for folder in options.output.glob("checkpoints/step-????????")), default=""
    )


def test_a_finished_run_does_nothing(tmp_path: Path, undisturbed: Path) -> None:
    before = times(undisturbed)
    assert train_toy(toy_options(undisturbed)) == undisturbed / "weights"
    assert times(undisturbed) == before


def test_a_finished_run_can_be_given_more_updates(tmp_path: Path) -> None:
    short = train_toy(toy_options(tmp_path / "run", updates=8))
    before = {file.name: file.read_bytes() for file in short.iterdir()}
    with pytest.raises(KeyboardInterrupt):  # nor is it lost when it stops on the way
        train_toy(toy_options(tmp_path / "run"), end=8 * 10)
    train_toy(toy_options(tmp_path / "run"))
    options = toy_options(tmp_path / "run")
    rates = read_log(tmp_path / "run")["rate"]
    assert [step for step, _ in rates] == list(range(1, 13))
    for step, rate in rates[8:]:  # it goes on as if the run had been planned so long
        assert rate == pytest.approx(options.learning_rate_at(step - 1))
    kept = tmp_path / "run" / "weights-step-00000008"
    assert {file.name: file.read_bytes() for file in kept.iterdir()} == before


def test_an_unfinished_run_keeps_its_number_of_updates(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_toy(toy_options(tmp_path / "run"), end=8 * 5)
    with pytest.raises(TrainingError, match="updates was 12 and is 13"):
        train_toy(toy_options(tmp_path / "run", updates=13))


def test_other_settings_are_refused(undisturbed: Path) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"learning_rate": 0.01}, "learning_rate was 0.03 and is 0.01"),
        ({"betas": (0.5, 0.9)}, r"betas was \[0.9, 0.98\] and is \[0.5, 0.9\]"),
        ({"ema_decay": None}, "ema_decay was 0.9 and is None"),
        ({"seed": 3, "updates": 11}, "updates was 12 and is 11; seed was 0 and is 3"),
    ]
    for changes, message in cases:
        with pytest.raises(TrainingError, match=f"{message}. .*name another output folder"):
            train_toy(toy_options(undisturbed, **changes))


def test_a_result_without_its_checkpoint_is_not_overwritten(tmp_path: Path) -> None:
    options = toy_options(tmp_path / "run")
    (tmp_path / "run" / "weights").mkdir(parents=True)
    with pytest.raises(TrainingError, match="is there already"):
        train_toy(options)
    assert not (tmp_path / "run" / "checkpoints").exists()
