"""From the button to the images: a request is made, waits for its turn, and is shown."""

import asyncio
import traceback
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kosmosg.demo import form, mask, show
from kosmosg.demo.sessions import Sessions
from kosmosg.demo.turns import CancelledError, Turn, Turns
from kosmosg.errors import KosmosGError
from kosmosg.serving.metadata import read_recipe

BETWEEN_LOOKS = 0.1  # seconds
UNEXPECTED = "Something went wrong in the program that draws; its log says what."


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """The result of a request.

    Attributes:
        inputs: What was asked for, by the names of the server.
        files: The images.
        seeds: That of each.
        mixed: Whether they are a strip from one image to another.
    """

    inputs: dict[str, Any]
    files: list[Path]
    seeds: list[int]
    mixed: bool = False


@dataclass(frozen=True, kw_only=True)
class Update:
    """What has changed while a request is carried out.

    Attributes:
        progress: HTML.
        drawn: The result, once.
        error: A message, and the part of the page that it is about.
        over: Nothing follows.
    """

    progress: str
    drawn: Drawn | None = None
    error: tuple[form.Place, str] | None = None
    over: bool = False


class Studio:
    """Generator, queue and files of all tabs.

    Args:
        generator: ``LocalGenerator`` or ``RemoteGenerator``, which carries out requests.
        root: Folder for the files of all tabs.
    """

    def __init__(self, generator: Any, root: Path):
        self.generator = generator
        self.turns = Turns()
        self.sessions = Sessions(root)

    def read(
        self, values: Mapping[str, Any], images: list[Path], painted: Any, session: str
    ) -> dict[str, Any]:
        """Make the inputs of a request from what is filled in; see ``form.collect``."""
        uploaded = [value for value in values.values() if isinstance(value, Path)]
        if painted:
            uploaded += [Path(file) for file in painted.values() if isinstance(file, str)]
            uploaded += map(Path, painted["layers"])
        self.sessions.note(session, [*images, *uploaded])
        values = {**values, **mask.split(painted, self.sessions.folder(session))}
        return form.collect(values, images)

    async def draw(self, inputs: dict[str, Any], session: str) -> AsyncIterator[Update]:
        """Generate the images of a request, and tell how it goes."""
        folder = self.sessions.folder(session)

        def work(turn: Turn) -> Drawn:
            return _finish(inputs, self.generator.generate(inputs, _fresh(folder), turn))

        async for update in self._follow(work, session):
            yield update

    async def mix(
        self, ends: list[Path], inputs: dict[str, Any], frames: int, session: str
    ) -> AsyncIterator[Update]:
        """Likewise a strip from one image to another."""
        folder = self.sessions.folder(session)
        self.sessions.note(session, ends)

        def work(turn: Turn) -> Drawn:
            files = self.generator.mix(ends, inputs, frames, _fresh(folder), turn)
            return _finish(inputs | form.name_images(ends), files, mixed=True)

        async for update in self._follow(work, session):
            yield update

    async def run(self, work: Callable[[Turn], Any], session: str) -> Any:
        """Do something else that needs the networks, in its turn."""
        turn = self.turns.take(session, work)
        return await asyncio.wrap_future(turn.future)

    def close(self, session: str) -> None:
        """Free the turn of a tab that was closed, and remove its files."""
        self.turns.leave(session)
        self.sessions.close(session)

    async def _follow(self, work: Callable[[Turn], Drawn], session: str) -> AsyncIterator[Update]:
        try:
            turn = self.turns.take(session, work)
        except KosmosGError as error:
            yield failed(error)
            return
        last = ""
        try:
            while not turn.future.done():
                steps = self.generator.shows_steps
                now = show.progress(turn, self.turns.place(turn), steps=steps)
                if now != last:
                    yield Update(progress=now)
                    last = now
                await asyncio.sleep(BETWEEN_LOOKS)
            yield _conclude(turn)
        finally:
            turn.cancel()  # the tab may be gone


def _conclude(turn: Turn) -> Update:
    """Tell how a request has ended."""
    done, total = turn.done
    try:
        if turn.future.cancelled():
            raise CancelledError
        drawn = turn.future.result()
    except CancelledError:
        after = f" after step {done} of {total}" if total else ""
        return Update(progress=show.status(f"Cancelled{after}."), over=True)
    except KosmosGError as error:
        return failed(error)
    except Exception:  # noqa: BLE001 - the page goes on, and the log says what
        traceback.print_exc()
        return failed(KosmosGError(UNEXPECTED))
    number = len(drawn.files)
    left_out = drawn.inputs["num_images"] - number if not drawn.mixed else 0
    text = f"{number} images drawn." if number != 1 else "1 image drawn."
    if left_out > 0:
        text += f" {left_out} left out: flagged by the safety checker."
    return Update(progress=show.status(text), drawn=drawn, over=True)


def failed(error: KosmosGError) -> Update:
    """Tell what is wrong."""
    return Update(
        progress=show.status("Nothing was drawn: see the error."),
        error=(form.place_of(str(error)), str(error)),
        over=True,
    )


def _finish(inputs: dict[str, Any], files: list[Path], *, mixed: bool = False) -> Drawn:
    """Read from the files which seeds made them: random ones are known only now."""
    seeds = [read_recipe(file)["seed"] for file in files]
    return Drawn(inputs=inputs | {"seed": seeds[0]}, files=files, seeds=seeds, mixed=mixed)


def _fresh(folder: Path) -> Path:
    """Make a folder for the images of one request; those before stay as long as the tab."""
    numbers = [int(path.name) for path in folder.iterdir() if path.name.isdigit()]
    made = folder / str(max(numbers, default=0) + 1)
    made.mkdir()
    return made
