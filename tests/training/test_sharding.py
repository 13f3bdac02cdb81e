"""A run's state on shards: gathered whole, put back, and the same as on one process.

Accelerate shards on GPUs alone; ``sharding`` does here what it does there.
"""

from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from kosmosg.training.checkpoints import read_checkpoint
from tests.training import sharding
from tests.training.logs import read_log
from tests.training.processes import run_together
from tests.training.toy import toy_options


def values(run: Path, name: str) -> list[float]:
    return [value for _, value in read_log(run)[name]]


def test_shards_compute_what_one_process_does(tmp_path: Path) -> None:
    for name in ("shards", "whole"):
        (tmp_path / name).mkdir()
    assert run_together(sharding.train_sharded, toy_options(tmp_path / "shards")) == [0, 0]
    sharding.train_whole(toy_options(tmp_path / "whole"))
    for name in ("loss", "double", "gradient"):
        found, wanted = (values(tmp_path / run, name) for run in ("shards", "whole"))
        assert found == pytest.approx(wanted, rel=1e-5)

    states = [
        read_checkpoint(tmp_path / run / "checkpoints" / "step-00000012")
        for run in ("shards", "whole")
    ]
    for part in ("weights", "ema"):
        found, wanted = (getattr(state, part) for state in states)
        assert found.keys() == wanted.keys()
        for name in wanted.keys() - {"seen"}:
            torch.testing.assert_close(found[name], wanted[name], atol=1e-5, rtol=0)
    moments, wanted = (state.optimizer for state in states)
    assert {name: each.keys() for name, each in moments.items()} == {
        name: each.keys() for name, each in wanted.items()
    }
    for name, each in wanted.items():
        torch.testing.assert_close(moments[name]["exp_avg"], each["exp_avg"], atol=1e-4, rtol=0)
        assert moments[name]["step"] == 12
    results = [
        load_file(tmp_path / run / "weights/model.safetensors") for run in ("shards", "whole")
    ]
    assert results[0].keys() == results[1].keys()
    for name in results[0].keys() - {"seen"}:
        torch.testing.assert_close(results[0][name], results[1][name], atol=1e-5, rtol=0)


def test_shards_in_mixed_precision(tmp_path: Path) -> None:
    """Gathered in bfloat16; weights, moments and losses stay as they are."""
    for name in ("shards", "whole"):
        (tmp_path / name).mkdir()
    options = partial(toy_options, precision="bf16", updates=4)
    assert run_together(sharding.train_sharded, options(tmp_path / "shards")) == [0, 0]
    sharding.train_whole(options(tmp_path / "whole"))
    found, wanted = (values(tmp_path / run, "loss") for run in ("shards", "whole"))
    assert found == pytest.approx(wanted, rel=0.02)
    assert any(torch.tensor(value).bfloat16().item() != value for value in found), "rounded"
    state = read_checkpoint(tmp_path / "shards" / "checkpoints" / "step-00000004")
    tensors = [*state.weights.values(), *state.ema.values()]
    tensors += [tensor for each in state.optimizer.values() for tensor in each.values()]
    assert {tensor.dtype for tensor in tensors} == {torch.float32}


def test_killed_shards_go_on_as_if_undisturbed(tmp_path: Path) -> None:
    for name in ("parts", "whole"):
        (tmp_path / name).mkdir()
    parts, whole = toy_options(tmp_path / "parts"), toy_options(tmp_path / "whole")
    assert -9 in run_together(sharding.train_sharded_and_die, parts)
    assert run_together(sharding.train_sharded, parts) == [0, 0]
    assert run_together(sharding.train_sharded, whole) == [0, 0]
    assert read_log(parts.output) == read_log(whole.output)
    found, wanted = (load_file(run / "weights/model.safetensors") for run in tmp_path.iterdir())
    for name, tensor in wanted.items():
        assert torch.equal(found[name], tensor), name
