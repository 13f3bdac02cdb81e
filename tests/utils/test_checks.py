"""Numbers that a user gave."""

import json
from typing import Any

import numpy as np
import pytest

from kosmosg.errors import SettingError
from kosmosg.utils.checks import check_integer, check_number


@pytest.mark.parametrize("value", [5, 5.0, np.int64(5), np.uint8(5), np.float32(5), np.float64(5)])
def test_numbers_of_numpy_are_numbers(value: Any) -> None:
    assert json.dumps([check_integer("seed", value, 0, 9)]) == "[5]"
    assert json.dumps([check_number("seed", value, 0, 9)]) == "[5.0]"


@pytest.mark.parametrize(
    "value", [True, np.bool_(True), "5", None, float("nan"), np.float32("nan"), 5j, [5]]
)
def test_what_is_no_number(value: Any) -> None:
    with pytest.raises(SettingError, match="seed must be a number from 0 to 9"):
        check_number("seed", value, 0, 9)


@pytest.mark.parametrize("value", [-1, 10, np.int64(10), float("inf"), 10**400])
def test_out_of_bounds(value: Any) -> None:
    with pytest.raises(SettingError, match="it must be from 0 to 9"):
        check_number("seed", value, 0, 9)


def test_a_number_that_is_not_whole() -> None:
    with pytest.raises(SettingError, match=r"seed is 5\.5; it must be a whole number"):
        check_integer("seed", np.float64(5.5), 0, 9)
