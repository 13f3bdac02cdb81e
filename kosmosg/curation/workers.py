"""The machines of Ray, and how their cores and GPUs are shared out among the steps."""

import logging
import math
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from kosmosg.curation.steps import PipelineStep
from kosmosg.errors import CurationError

KNOCK = 10.0  # seconds for a cluster to answer

# By the name of a step, how many workers it has, and how many GPUs each; nothing: as it comes.
WorkerOverrides = Mapping[str, tuple[int, float | None]]


@dataclass(frozen=True, kw_only=True)
class Workers:
    """How much of a machine the workers of a step take.

    Attributes:
        count: How many; nothing: as many as there is room for.
        cpus: Cores of each.
        gpus: GPUs of each, or parts of one.
    """

    count: int | None
    cpus: float
    gpus: float = 0.0


def parse_workers(texts: Sequence[str], steps: Sequence[str]) -> WorkerOverrides:
    """Read ``caption=5x1``: five workers with a GPU each.

    Args:
        texts: As they are given.
        steps: The names of all steps.

    Raises:
        CurationError: If one is of another form, or names no step.
    """
    overrides: dict[str, tuple[int, float | None]] = {}
    for text in texts:
        step, _, rest = text.partition("=")
        count, times, gpus = rest.partition("x")
        try:
            overrides[step] = (int(count), float(gpus) if times else None)
        except ValueError:
            overrides[step] = (0, None)
        if step not in steps or not _possible(*overrides[step]):
            raise CurationError(
                f"--workers {text}: wanted STEP=N or STEP=NxGPUS, such as {steps[0]}=2, with one "
                f"of {', '.join(steps)}, at least one worker, and GPUs up to 1 or whole."
            )
    return overrides


def share_out(
    steps: Sequence[PipelineStep], cpus: float, gpus: float, overrides: WorkerOverrides
) -> dict[str, Workers]:
    """Decide how many workers each step has, and how large they are.

    Unless told otherwise, each model has as many workers as there are GPUs, and an equal part of
    one for each; without GPUs it has one worker. The cores are shared out among them, and one share
    is left for the other steps.

    Args:
        steps: All of them.
        cpus: Cores of all machines.
        gpus: GPUs of all machines.
        overrides: What was told.

    Raises:
        CurationError: If there are too few GPUs: Ray would wait for ever. Or if a step without a
            model is to have some.
    """
    models = [step.name for step in steps if step.model]
    counts, parts = {}, {}
    for step in steps:
        count, part = overrides.get(step.name, (None, None))
        if part and not step.model:
            raise CurationError(
                f"Step {step.name} has no model, and so no use for a GPU. Choose its number of "
                "workers alone."
            )
        if step.model:
            count = count or max(1, int(gpus))
            part = _part(min(1.0, gpus), len(models)) if part is None else part
        counts[step.name], parts[step.name] = count, part or 0.0
    wanted = sum(counts[name] * parts[name] for name in models)
    if wanted > gpus:
        raise CurationError(
            f"The workers want {wanted:g} GPUs, and there are {gpus:g}. Choose fewer of them, or "
            f"smaller parts, for {', '.join(models)}."
        )
    cores = min(1.0, _part(cpus, sum(counts[name] for name in models) + 1))
    return {
        step.name: Workers(count=counts[step.name], cpus=cores, gpus=parts[step.name])
        for step in steps
    }


@contextmanager
def connected(address: str | None = None, cpus: int | None = None) -> Iterator[Mapping[str, float]]:
    """Start Ray on this machine, or join a cluster, and leave it at the end.

    Args:
        address: Of the cluster, or ``auto``; nothing: this machine, whatever runs on it besides.
        cpus: Cores of this machine to use; nothing: all.

    Yields:
        What all machines have, such as ``{"CPU": 16.0, "GPU": 1.0}``.

    Raises:
        CurationError: If it does not start, or nobody answers at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody
    import ray

    if ray.is_initialized():
        yield ray.cluster_resources()
        return
    if address and address != "auto":
        _check_address(address)
    verbose = logging.getLogger().isEnabledFor(logging.INFO)
    try:
        ray.init(
            address=address or "local",
            num_cpus=None if address else cpus,
            include_dashboard=None if address else False,
            log_to_driver=verbose,
            logging_level=logging.INFO if verbose else logging.ERROR,
        )
    except (OSError, ValueError, RuntimeError) as error:
        where = address or "this machine"
        raise CurationError(f"Ray does not start on {where}: {_why(error)}") from error
    try:
        yield ray.cluster_resources()
    finally:
        ray.shutdown()


def _possible(count: int, gpus: float | None) -> bool:
    """Tell whether there can be so many workers: Ray divides one GPU, but not several."""
    return count > 0 and (gpus is None or 0 <= gpus <= 1 or gpus in range(2, 65))


def _part(whole: float, parts: int) -> float:
    """Divide, and round down, so that the parts fit into the whole."""
    return math.floor(100 * whole / parts) / 100


def _why(error: Exception) -> str:
    """Say why Ray does not start, and what helps."""
    if "AF_UNIX" in str(error):
        name = "RAY_TMPDIR" if "RAY_TMPDIR" in os.environ else "TMPDIR"
        return (
            f"the path of its temporary folder is too long for sockets ({name}="
            f"{os.environ.get(name)}). Set RAY_TMPDIR to a folder with a short path, such as /tmp."
        )
    reason = " ".join(str(error).split()).rstrip(".")
    return (
        f"{reason}. Check the address, and that the cluster runs the same version of Ray, or work "
        "without it: --in-process."
    )


def _check_address(address: str) -> None:
    """Knock at an address: Ray would try for half an hour where nobody answers."""
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal() and int(port) < 2**16):
        raise CurationError(
            f"--address {address}: wanted HOST:PORT, such as 10.0.0.1:6379, or auto."
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK).close()
    except OSError as error:
        raise CurationError(
            f"--address {address}: nobody answers there ({error}). Name the machine and port that "
            "`ray start --head` printed, and see that its firewall lets this one in."
        ) from error
