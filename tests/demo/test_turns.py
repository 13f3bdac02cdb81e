"""One request after the other, and nobody waits for those who are gone."""

import threading
from concurrent.futures import CancelledError as FutureCancelledError

import pytest

from kosmosg.demo import turns as module
from kosmosg.demo.turns import CancelledError, Turn, Turns
from kosmosg.errors import SettingError


def test_places_move_up_and_who_leaves_frees_the_turn() -> None:
    turns, free, begun, order = Turns(), threading.Event(), threading.Event(), []

    def block(turn: Turn) -> None:
        begun.set()
        free.wait(10)
        turn.step(1, 2)

    first = turns.take("first", block)
    assert begun.wait(10)
    second = turns.take("second", lambda turn: order.append("second"))
    third = turns.take("third", lambda turn: order.append("third"))
    assert [turns.place(turn) for turn in (first, second, third)] == [0, 1, 2]
    turns.leave("second")
    assert turns.place(third) == 1
    turns.leave("first")
    free.set()
    with pytest.raises(CancelledError):
        first.future.result(10)
    third.future.result(10)
    with pytest.raises(FutureCancelledError):
        second.future.result(0)
    assert order == ["third"]
    turns.close()


def test_a_queue_that_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 1)
    turns, free = Turns(), threading.Event()
    for name in "ab":
        turns.take(name, lambda turn: free.wait(10))
    with pytest.raises(SettingError, match="waiting already"):
        turns.take("c", lambda turn: None)
    free.set()
    turns.close()
