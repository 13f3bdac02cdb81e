"""The processes of a run: how many there are, and which of them this one is."""

from datetime import timedelta

import torch
from accelerate import PartialState

# One process encodes images, writes results or is slower than the others, while these wait.
PATIENCE = timedelta(hours=12)


def find_processes(cpu: bool = False) -> PartialState:
    """Find the processes of a run and the device of this one.

    Args:
        cpu: Stay on the CPU even if there is a GPU.
    """
    # Processes without a GPU only know of each other if they are told to stay on the CPU.
    cpu = cpu or not torch.accelerator.is_available()
    processes = PartialState(cpu=cpu, timeout=PATIENCE)
    if processes._cpu != cpu and processes.num_processes == 1:
        # There is one for the whole program, with the device of whoever asked first.
        PartialState._reset_state()
        processes = PartialState(cpu=cpu, timeout=PATIENCE)
    assert processes.device is not None
    if processes.device.type == "cpu":
        # One of several is told "cpu:0", which torch takes for another device than "cpu": weights
        # would be copied from where their files are mapped, and where a tensor lies in memory can
        # decide the last bit of a product.
        processes.device = torch.device("cpu")
    return processes
