"""Trials in turns, ratios by round, fidelity, and steps that are computed."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from benchmarks import measuring
from benchmarks.drawing import StepClock
from benchmarks.measuring import (
    Measurement,
    Timed,
    interleave,
    psnr_of_pictures,
    psnr_of_tensors,
)

CPU = torch.device("cpu")


def test_trials_take_turns_forwards_and_backwards() -> None:
    order: list[str] = []

    def trial(name: str):
        return lambda: order.append(name) or len(order)

    found = interleave({name: trial(name) for name in "abc"}, rounds=2, warm_ups=1)
    assert "".join(order) == "cba" + "abc" + "cba"
    assert found == {"a": [4, 9], "b": [5, 8], "c": [6, 7]}, "the first round is not thrown away"


@given(st.lists(st.floats(0.1, 10), min_size=3, max_size=9), st.floats(0.1, 10))
def test_a_machine_that_changes_its_speed_changes_no_ratio(slow: list[float], ratio: float) -> None:
    measurement = Measurement(values=tuple(ratio * s for s in slow), baselines=tuple(slow))
    assert measurement.ratio == pytest.approx(ratio)


def test_a_short_function_is_called_until_the_clock_can_tell(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls, now = [], [0.0]
    monkeypatch.setattr(measuring.time, "perf_counter", lambda: now[0])

    def function() -> None:
        calls.append(1)
        now[0] += 0.03

    trial = Timed(function, CPU)
    assert trial() == pytest.approx(0.03)
    assert len(calls) == 1
    assert trial() == pytest.approx(0.03)
    assert len(calls) == 1 + 4, "0.1 s are four calls of 0.03 s"


def test_fidelity() -> None:
    grey, lighter = (Image.new("RGB", (4, 4), (value,) * 3) for value in (100, 101))
    assert psnr_of_pictures(grey, grey) == math.inf
    assert psnr_of_pictures(lighter, grey) == pytest.approx(20 * math.log10(255))
    ramp = torch.linspace(-1, 1, 9)
    assert psnr_of_tensors(ramp, ramp) == math.inf
    assert psnr_of_tensors(ramp + 0.02, ramp) == pytest.approx(40)
    assert psnr_of_tensors(10 * ramp + 0.2, 10 * ramp) == pytest.approx(40), "peak is not the range"
    noise = np.random.default_rng(0).normal(size=9)
    assert psnr_of_tensors(ramp + torch.from_numpy(noise), ramp) < 20


def test_steps_that_are_not_run_are_computed_from_those_that_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two seconds of conditioning, one of decoding; steps of 10 s, and one that was disturbed."""
    clock = StepClock(CPU, steps=5)
    for end in (12.0, 22.0, 32.0, 92.0, 102.0):
        monkeypatch.setattr("benchmarks.drawing.time.perf_counter", lambda end=end: end)
        clock.tick()
    assert clock.whole(103.0) == 103.0 + 45 * 10.0
    whole = StepClock(CPU, steps=50)
    whole.tick()
    assert whole.whole(7.0) == 7.0, "a prediction of all steps is what it was measured to be"
