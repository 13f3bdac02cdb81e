"""Requests of the page, carried out by a running container through its HTTP interface."""

import secrets
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx2

from kosmosg.demo.turns import CancelledError, Turn
from kosmosg.errors import KosmosGError, SettingError
from kosmosg.serving.request_file import as_urls, read_data_url
from kosmosg.utils.files import reason

PATIENCE = 10.0  # seconds for what is answered at once
BUSY = 409
BETWEEN_TRIES = 1.0  # seconds
INPUTS = {"prompt", "image1", "images", "num_inference_steps"}


class RemoteError(KosmosGError):
    """The container cannot be reached, is none of KOSMOS-G, or has failed."""


class RemoteGenerator:
    """Draws on a container."""

    # Of steps it tells only a server that it can reach itself, by webhook.
    shows_steps = False

    def __init__(self, target: str):
        """Find the container.

        Args:
            target: Its address, such as ``http://192.168.0.7:5000``.

        Raises:
            SettingError: If that is no address.
            RemoteError: If no KOSMOS-G answers there.
        """
        try:
            url = httpx2.URL(target)
        except httpx2.InvalidURL as error:
            raise SettingError(f"--target {target!r} is no address: {error}.") from error
        if url.scheme not in ("http", "https") or not url.host:
            raise SettingError(
                f"--target {target!r} is no address. Write http://HOST:PORT, as the container says."
            )
        self._target = str(url).rstrip("/")
        self._client = httpx2.Client(base_url=self._target, timeout=PATIENCE, trust_env=False)
        self._check()

    @property
    def title(self) -> str:
        """Who draws, for the page."""
        return f"the container at {httpx2.URL(self._target).netloc.decode()}"

    def generate(self, inputs: Mapping[str, Any], folder: Path, turn: Turn) -> list[Path]:
        """Generate the images of a request; see ``LocalGenerator.generate``.

        Raises:
            RemoteError: With what the container says, if it refuses or fails.
            CancelledError: If nobody waits for the result any more.
        """
        body = {"input": {name: as_urls(value) for name, value in inputs.items()}}
        while True:
            answer = self._ask(body, turn)
            if answer.status_code != BUSY:
                break
            if turn.wait_cancelled(BETWEEN_TRIES):  # it draws for somebody else
                raise CancelledError
        found = self._read(answer)
        files = []
        for index, url in enumerate(found["output"]):
            content, suffix = read_data_url(url)
            files.append(folder / f"{index}{suffix}")
            files[-1].write_bytes(content)
        return files

    def _ask(self, body: Mapping[str, Any], turn: Turn) -> httpx2.Response:
        """Send a request under a name of its own, by which it is cancelled on the way."""
        name = f"demo-{secrets.token_hex(8)}"
        over = threading.Event()

        def watch() -> None:
            while not over.is_set():
                if turn.wait_cancelled(0.1):
                    self._call("POST", f"/predictions/{name}/cancel")
                    return

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            return self._call("PUT", f"/predictions/{name}", json=body, timeout=None)
        finally:
            over.set()
            watcher.join()

    def _read(self, answer: httpx2.Response) -> dict[str, Any]:
        """Take the result out of an answer, or raise what it says."""
        found = self._json(answer)
        if answer.status_code == 422:
            told = [f"{entry['loc'][-1]}: {entry['msg']}" for entry in found["detail"]]
            raise RemoteError(f"The container refused the request: {'; '.join(told)}.")
        if answer.status_code >= 400:
            raise RemoteError(f"The container answered {answer.status_code}: {answer.text[:300]}")
        match found.get("status"):
            case "succeeded":
                return found
            case "canceled":
                raise CancelledError
        raise RemoteError(str(found.get("error") or f"The container answered {found}."))

    def _check(self) -> None:
        """See that a KOSMOS-G is there and ready."""
        health = self._json(self._call("GET", "/health-check"))
        schema = self._json(self._call("GET", "/openapi.json"))
        try:
            names = set(schema["components"]["schemas"]["Input"]["properties"])
            status = health["status"]
        except (KeyError, TypeError):
            names, status = set(), ""
        if not names >= INPUTS:
            raise RemoteError(
                f"What answers at {self._target} is no container of KOSMOS-G. Start one (make "
                "serve, or docker run), and name its address."
            )
        if status not in ("READY", "BUSY"):
            raise RemoteError(
                f"The container at {self._target} is not ready ({status}). Wait until it is; its "
                "log says why if that never happens."
            )

    def _json(self, answer: httpx2.Response) -> Any:
        try:
            return answer.json()
        except ValueError as error:
            raise RemoteError(
                f"What answers at {self._target} is no container of KOSMOS-G. Start one (make "
                "serve, or docker run), and name its address."
            ) from error

    def _call(self, method: str, path: str, **options: Any) -> httpx2.Response:
        try:
            return self._client.request(method, path, **options)
        except httpx2.HTTPError as error:
            raise RemoteError(
                f"The container at {self._target} does not answer ({reason(error)}). Start it, or "
                "give its address by --target."
            ) from error
