"""The device that networks run on."""

import torch

from kosmosg.errors import SettingError
from kosmosg.utils.files import reason


def choose_device(device: str | torch.device | None = None) -> torch.device:
    """Take the device that was named, or CUDA if there is one, or the CPU.

    Raises:
        SettingError: If there is no such device here.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise SettingError(
            f"device {device!r} cannot be used here ({reason(error)}). Try cpu."
        ) from error
    return chosen
