"""Run the real Cog server on this machine, without Docker."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

import requests

from scripts import cog_schema

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = ROOT / ".cog" / "openapi_schema.json"


class ServerError(RuntimeError):
    """The server did not start; the message holds the end of its log."""


class LocalServer:
    """``python -m cog.server.http`` in a process of its own.

    Use it as a context manager: it is READY inside and stopped behind.
    """

    def __init__(
        self,
        weights: str | Path,
        *,
        port: int | None = None,
        log: Path | None = None,
        timeout: float = 600.0,
        environment: dict[str, str] | None = None,
    ):
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = log
        self._timeout = timeout
        self._environment = server_environment(weights, self.port) | (environment or {})
        self._process: subprocess.Popen | None = None

    def __enter__(self) -> Self:
        self.start()
        try:
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Process id of the server; the worker that holds the model is its child."""
        assert self._process
        return self._process.pid

    def start(self) -> None:
        """Start the process without waiting for the model."""
        # The child has its own copy of the descriptor; ours is closed.
        with (self._log or Path(os.devnull)).open("wb") as output:
            self._process = subprocess.Popen(
                server_command(),
                cwd=ROOT,
                env=self._environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_ready(self) -> None:
        """Wait until the model is loaded.

        Raises:
            ServerError: If setup fails, the process ends, or the time is over.
        """
        deadline = time.monotonic() + self._timeout
        while time.monotonic() < deadline:
            assert self._process
            if self._process.poll() is not None:
                raise ServerError(f"the server ended early.\n{self.log_tail()}")
            health = self.health()
            if health.get("status") == "READY":
                return
            if health.get("status") == "SETUP_FAILED":
                logs = health.get("setup", {}).get("logs", "")
                raise ServerError(f"setup failed.\n{logs[-4000:] or self.log_tail()}")
            time.sleep(0.2)
        raise ServerError(f"not ready after {self._timeout:.0f} s.\n{self.log_tail()}")

    def health(self) -> dict[str, Any]:
        """Ask for the server's state; empty as long as nobody answers."""
        try:
            return requests.get(f"{self.url}/health-check", timeout=10).json()
        except (requests.RequestException, ValueError):
            return {}

    def predict(self, inputs: dict[str, Any], timeout: float = 600.0) -> requests.Response:
        """Post one request and wait for its end; a server that is busy is asked for a second."""
        for _ in range(20):
            answer = requests.post(
                f"{self.url}/predictions", json={"input": inputs}, timeout=timeout
            )
            if answer.status_code != 409:  # it is free again a moment after it has answered
                break
            time.sleep(0.05)
        return answer

    def log_tail(self) -> str:
        """The last lines that the server wrote, if they are kept."""
        if not self._log or not self._log.is_file():
            return ""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-20:])

    def stop(self) -> None:
        """Stop the server and its worker."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def server_command() -> list[str]:
    """The command that Cog's container runs."""
    return [sys.executable, "-m", "cog.server.http", "--host", "127.0.0.1"]


def server_environment(weights: str | Path, port: int) -> dict[str, str]:
    """What the command needs around it; writes the schema that inputs are checked against.

    Cog's build writes the schema from ``predict.py``; without it every input is accepted.
    """
    status = cog_schema.main([str(ROOT / "predict.py"), "--output", str(SCHEMA)])
    if status:
        raise ServerError("predict.py breaks a rule of Cog's parser, see above")
    # The worker is started as plain `python`, found by PATH.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return {
        **os.environ,
        "PATH": path,
        "PORT": str(port),
        "COG_PREDICT_TYPE_STUB": "predict.py:Predictor",
        "COG_WEIGHTS": str(Path(weights).resolve()),
    }


def check_weights(weights: Path) -> None:
    """Check that there is a weights folder, before a server is started on it.

    A server whose setup fails stays, for probes to ask; who starts one by hand would wait for it.

    Raises:
        ServerError: If there is none.
    """
    if not weights.is_dir():
        raise ServerError(
            f"there are no weights in {weights}. Convert a checkpoint (python -m kosmosg "
            "convert), or name the miniature (WEIGHTS=weights/miniature)."
        )


def free_port() -> int:
    """Find a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
