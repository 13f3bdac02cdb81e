"""What the figures were measured on: the machine, its load and the versions."""

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import torch

LIBRARIES = ("torch", "diffusers", "transformers", "safetensors", "accelerate", "numpy")
# What Linux calls the instructions for bfloat16, on x86 and on ARM.
BFLOAT16_FLAGS = {"amx_bf16", "avx512_bf16", "bf16"}


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Name the processor, the device, the memory and the system."""
    machine: dict[str, Any] = {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "bfloat16": sorted(cpu_flags() & BFLOAT16_FLAGS),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": f"{platform.system()} {platform.release()}",
        "device": device.type,
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        machine["gpu"] = properties.name
        machine["gpu_memory_gb"] = round(properties.total_memory / 1e9, 1)
        machine["cuda"] = torch.version.cuda
    return machine


def describe_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that do the work."""
    return {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES}


def load_average() -> float:
    """Processes that wanted to run in the last minute: above zero, something else was at work."""
    return round(os.getloadavg()[0], 2)


def cpu_name() -> str:
    """The processor's name, as far as the system tells."""
    return next(_cpu_entries("model name"), platform.processor() or platform.machine())


def cpu_flags() -> set[str]:
    """What the processor can do, in the words of Linux; nothing elsewhere."""
    return set(next(_cpu_entries("flags", "Features"), "").split())


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device computes in bfloat16, and not in float32 with conversions around it."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(cpu_flags() & BFLOAT16_FLAGS)


def free_memory(device: torch.device) -> int:
    """Bytes that can be allocated on a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def _cpu_entries(*keys: str):
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() in keys:
            yield value.strip()
