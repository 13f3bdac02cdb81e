"""Turns at the networks: one request after the other, each with its place in the queue."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from PIL import Image

from kosmosg.errors import SettingError

MOST_WAITING = 50


class CancelledError(Exception):
    """The request was cancelled, or the tab that it came from is gone."""


class Turn:
    """A request in the queue, at work, or done.

    Attributes:
        done: Steps that are done, of how many.
        previews: What is being drawn, one small image for each at work.
    """

    def __init__(self, owner: str):
        self.owner = owner
        self.done: tuple[int, int] = (0, 0)
        self.previews: list[Image.Image] = []
        self.future: Future[Any] = Future()
        self._cancelled = threading.Event()

    def step(self, done: int, total: int) -> None:
        """Note a step.

        Raises:
            CancelledError: If nobody waits for the result any more.
        """
        self.done = (done, total)
        self.check()

    def check(self) -> None:
        """Raise ``CancelledError`` if nobody waits for the result any more."""
        if self._cancelled.is_set():
            raise CancelledError

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for the result any more."""
        return self._cancelled.is_set()

    def wait_cancelled(self, seconds: float) -> bool:
        """Wait so long, or until nobody waits for the result any more."""
        return self._cancelled.wait(seconds)

    def cancel(self) -> None:
        """Leave the queue, or stop after the step that is being taken."""
        self._cancelled.set()
        self.future.cancel()


class Turns:
    """The queue. One thread does all the work, so that two requests never meet."""

    def __init__(self) -> None:
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="networks")
        self._turns: list[Turn] = []
        self._lock = threading.Lock()

    def take(self, owner: str, work: Callable[[Turn], Any]) -> Turn:
        """Queue up.

        Args:
            owner: The tab, by which ``leave`` finds its requests.
            work: Does it; the turn's ``future`` gets what it returns or raises.

        Raises:
            SettingError: If too many are waiting.
        """
        turn = Turn(owner)

        def run() -> Any:
            turn.check()
            return work(turn)

        with self._lock:
            self._forget()
            if len(self._turns) > MOST_WAITING:
                raise SettingError(
                    f"{MOST_WAITING} requests are waiting already. Try again in a while."
                )
            turn.future = self._worker.submit(run)
            self._turns.append(turn)
        return turn

    def place(self, turn: Turn) -> int:
        """How many are before it; 0 is at work."""
        with self._lock:
            self._forget()
            return self._turns.index(turn) if turn in self._turns else 0

    def leave(self, owner: str) -> None:
        """Cancel all requests of a tab."""
        with self._lock:
            mine = [turn for turn in self._turns if turn.owner == owner]
        for turn in mine:
            turn.cancel()

    def close(self) -> None:
        """Cancel everything, and wait for the step that is being taken."""
        with self._lock:
            turns = list(self._turns)
        for turn in turns:
            turn.cancel()
        self._worker.shutdown()

    def _forget(self) -> None:
        self._turns = [turn for turn in self._turns if not turn.future.done()]
