"""Numbers that a user gave, within their bounds."""

from numbers import Real
from typing import Any

from kosmosg.errors import SettingError


def check_number(name: str, value: Any, low: float, high: float) -> float:
    """Check that a value is a number within bounds; one of numpy is a number, too.

    Raises:
        SettingError: Naming the setting, the value and the bounds.
    """
    if not isinstance(value, Real) or isinstance(value, bool) or value != value:
        raise SettingError(f"{name} must be a number from {low} to {high}, not {value!r}.")
    number: Any = value
    if not low <= number <= high:
        raise SettingError(f"{name} is {value}; it must be from {low} to {high}.")
    return float(value)


def check_integer(name: str, value: Any, low: int, high: int) -> int:
    """Check that a value is a whole number within bounds; ``2.0`` counts as one.

    Raises:
        SettingError: Naming the setting, the value and the bounds.
    """
    number = check_number(name, value, low, high)
    if number != int(number):
        raise SettingError(f"{name} is {value}; it must be a whole number.")
    return int(value)
