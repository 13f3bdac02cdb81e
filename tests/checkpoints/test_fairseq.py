"""Reading checkpoints: what is in them is data, whatever a pickle says."""

import argparse
import enum
import io
import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from kosmosg.checkpoints.fairseq import read_fairseq_checkpoint
from kosmosg.errors import CheckpointError

WEIGHT = torch.arange(6.0).reshape(2, 3)


class Runs:
    """Pickles to a call of any function: what an attacker would send."""

    def __init__(self, function: Callable, *arguments: Any):
        self.call = (function, arguments)

    def __reduce__(self) -> tuple:
        return self.call

    def __call__(self) -> None:
        """Only what can be called may stand for a function in a pickle."""


class Stateful:
    """An object with state, of a class that the reader does not know."""

    def __init__(self) -> None:
        self.names = ["a", "b"]


class OddList(list):
    """A list of a foreign class: pickled as a call followed by items."""


class OddDict(dict):
    """A dictionary of a foreign class."""


class Odd(enum.Enum):
    """Pickled as a call with a value."""

    LIST = ["a"]  # noqa: RUF012


def save(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def test_container_of_the_trainer(tmp_path: Path) -> None:
    """Only the model is read; everything around it may be of unknown classes."""
    content = {
        "args": None,
        "cfg": argparse.Namespace(lr=[0.1], nested=Stateful()),
        "model": OrderedDict(weight=WEIGHT, parameter=torch.nn.Parameter(WEIGHT + 1)),
        "criterion": None,
        "optimizer_history": [{"num_updates": 3}],
        "task_state": Odd.LIST,
        "numbers": numpy.float64(1.5),
        "array": numpy.arange(3),
        "extra_state": {"metrics": Stateful()},
        "last_optimizer_state": {"state": {0: {"exp_avg": WEIGHT.double()}}},
    }
    tensors = read_fairseq_checkpoint(save(tmp_path / "c.pt", content))
    assert list(tensors) == ["weight", "parameter"]
    torch.testing.assert_close(tensors["weight"], WEIGHT)
    torch.testing.assert_close(tensors["parameter"].detach(), WEIGHT + 1)


@pytest.mark.parametrize("name", ["c.pt", "c.safetensors", "c.bin"])
def test_bare_state_dict_in_either_format(tmp_path: Path, name: str) -> None:
    """The content decides, not the suffix."""
    path = tmp_path / name
    save_file({"weight": WEIGHT}, path) if "safetensors" in name else save(path, {"weight": WEIGHT})
    torch.testing.assert_close(read_fairseq_checkpoint(path)["weight"], WEIGHT)


def test_tensors_stay_mapped_to_the_file(tmp_path: Path) -> None:
    path = save(tmp_path / "c.pt", {"model": {"weight": WEIGHT}})
    tensors = read_fairseq_checkpoint(path)
    mapped = Path("/proc/self/maps").read_text()
    assert str(path) in mapped
    del tensors


def attacks(marker: Path) -> dict[str, Any]:
    """Contents that would create the marker file if anything of them ran."""
    touch = f"touch {marker}"
    return {
        "os.system": Runs(os.system, touch),
        "eval": Runs(eval, f"open({str(marker)!r}, 'w')"),
        "exec": Runs(exec, f"open({str(marker)!r}, 'w')"),
        "open": Runs(open, str(marker), "w"),
        "in the configuration": {"cfg": {"nested": [Runs(os.system, touch)]}},
        "beside the model": {"model": {"weight": WEIGHT}, "extra": Runs(os.system, touch)},
        "inside the model": {"model": {"weight": WEIGHT, "evil": Runs(os.system, touch)}},
        "as a key": {"model": {Runs(os.system, touch): WEIGHT}},
        "memory without end": Runs(bytearray, 2**45),
        "getattr": Runs(getattr, Runs(__import__, "os"), "system"),
        "method of a module": Runs(Runs(getattr, Runs(__import__, "os"), "system"), touch),
        "torch function": Runs(torch.hub.load_state_dict_from_url, f"file://{marker}"),
    }


@pytest.mark.parametrize("name", list(attacks(Path())))
def test_nothing_in_a_pickle_runs(tmp_path: Path, name: str) -> None:
    marker = tmp_path / "marker"
    path = tmp_path / "c.pt"
    save(path, attacks(marker)[name])
    # Refused, or read with a placeholder in its place: either is fine.
    with suppress(CheckpointError):
        tensors = read_fairseq_checkpoint(path)
        assert all(isinstance(tensor, torch.Tensor) for tensor in tensors.values())
    assert not marker.exists()


def test_the_attacks_work_on_an_ordinary_unpickler(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    torch.load(save(tmp_path / "c.pt", attacks(marker)["os.system"]), weights_only=False)
    assert marker.exists()


def raw_archive(path: Path, program: bytes, *others: str) -> Path:
    """An archive in torch's layout around a hand-written pickle."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/version", "3\n")
        for other in others:
            archive.writestr(f"archive/{other}", b"")
    return path


@pytest.mark.parametrize(
    "program",
    [
        b"cos\nsystem\n(S'touch marker'\ntR.",
        b'c__builtin__\nexec\n(S\'open("marker", "w")\'\ntR.',
        b"\x80\x02cos\nsystem\nX\x0c\x00\x00\x00touch marker\x85R.",
        b"(S'touch marker'\nios\nsystem\n.",
        b"ctorch._utils\n_rebuild_tensor_v2\n(S'storage'\nI0\n(tt(ttR.",
        b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00.",
        b"",
        b"garbage",
    ],
)
def test_hand_written_programs(
    tmp_path: Path, program: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError):
        read_fairseq_checkpoint(raw_archive(tmp_path / "c.pt", program))
    assert not (tmp_path / "marker").exists()


def test_torchscript_is_refused(tmp_path: Path) -> None:
    path = raw_archive(tmp_path / "c.pt", pickle.dumps({}), "constants.pkl")
    with pytest.raises(CheckpointError, match="got a torchscript checkpoint"):
        read_fairseq_checkpoint(path)


def damaged(content: bytes) -> dict[str, bytes]:
    return {
        "empty": b"",
        "truncated": content[: len(content) // 2],
        "text": b"<html>403 Forbidden</html>",
        "zip of nothing": b"PK\x05\x06" + bytes(18),
        "magic alone": b"PK\x03\x04",
        "legacy pickle": pickle.dumps({"weight": 1}),
    }


@pytest.mark.parametrize("name", list(damaged(b"")))
def test_damaged_files(tmp_path: Path, name: str) -> None:
    buffer = io.BytesIO()
    torch.save({"weight": WEIGHT}, buffer)
    path = tmp_path / "c.pt"
    path.write_bytes(damaged(buffer.getvalue())[name])
    with pytest.raises(CheckpointError, match=r"c\.pt"):
        read_fairseq_checkpoint(path)


@pytest.mark.parametrize(
    "content", [{}, {"model": {}}, {"model": [1]}, [WEIGHT], {"model": {"a": 1}}]
)
def test_contents_that_are_no_model(tmp_path: Path, content: Any) -> None:
    with pytest.raises(CheckpointError, match=r"c\.pt"):
        read_fairseq_checkpoint(save(tmp_path / "c.pt", content))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint"):
        read_fairseq_checkpoint(tmp_path / "c.pt")


@pytest.mark.parametrize("odd", [OddList([1]), OddDict(a=1)])
def test_containers_of_foreign_classes_are_refused(tmp_path: Path, odd: Any) -> None:
    path = save(tmp_path / "c.pt", {"model": {"weight": WEIGHT}, "task_state": odd})
    with pytest.raises(
        CheckpointError, match=r"c\.pt cannot .*write its 'model' entry alone"
    ) as found:
        read_fairseq_checkpoint(path)
    assert "Can only" in str(found.value)
    assert "weights_only" not in str(found.value), "torch's advice to run the file"


def test_numbers_of_eight_bits(tmp_path: Path) -> None:
    """They are read from either format."""
    tensors = {"weight": WEIGHT.to(torch.float8_e4m3fn)}
    save_file(tensors, tmp_path / "c.safetensors")
    for path in (save(tmp_path / "c.pt", {"model": tensors}), tmp_path / "c.safetensors"):
        found = read_fairseq_checkpoint(path)["weight"]
        assert found.dtype == torch.float8_e4m3fn
        assert torch.equal(found.float(), WEIGHT)


def test_reading_leaves_nothing_allowed(tmp_path: Path) -> None:
    """What stood in for a name is not accepted from others afterwards."""
    path = save(tmp_path / "c.pt", {"model": {"weight": WEIGHT}, "cfg": Stateful()})
    read_fairseq_checkpoint(path)
    with pytest.raises(pickle.UnpicklingError, match="Stateful"):
        torch.load(path, weights_only=True)


def test_a_storage_that_is_too_short(tmp_path: Path) -> None:
    path = save(tmp_path / "c.pt", {"model": {"weight": torch.zeros(1000)}})
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(tmp_path / "d.pt", "w") as cut:
        for item in whole.infolist():
            content = whole.read(item)
            cut.writestr(item, content[:40] if "/data/" in item.filename else content)
    with pytest.raises(CheckpointError, match=r"d\.pt cannot be read"):
        read_fairseq_checkpoint(tmp_path / "d.pt")


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(program=st.binary(max_size=80))
def test_random_programs_only_ever_raise_ours(tmp_path: Path, program: bytes) -> None:
    with suppress(CheckpointError):
        read_fairseq_checkpoint(raw_archive(tmp_path / "fuzz.pt", program))


def test_entries_that_are_no_weights_are_named(tmp_path: Path) -> None:
    path = save(tmp_path / "k.pt", {"model": {"weight": WEIGHT, 7: WEIGHT, "note": "hello"}})
    with pytest.raises(CheckpointError, match=r"no tensors with names: 7, note\. Nothing"):
        read_fairseq_checkpoint(path)
