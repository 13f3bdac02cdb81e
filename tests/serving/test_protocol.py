"""Requests at the same time, webhooks, cancellation and the end of the process."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import numpy as np
import psutil
import pytest
import requests

from tests.serving.client import SMALL, Server, pixels

LONG = SMALL | {"num_inference_steps": 250}
ASYNC = {"Prefer": "respond-async"}


class Hook(ThreadingHTTPServer):
    """Takes what the server posts to a webhook."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _HookHandler)
        self.posts: list[dict[str, Any]] = []
        self.url = f"http://127.0.0.1:{self.server_port}/"

    def wait_for(self, status: str, seconds: float = 20.0) -> dict[str, Any]:
        """Wait for a post with a status."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for post in list(self.posts):
                if post["status"] == status:
                    return post
            time.sleep(0.01)
        raise AssertionError(f"no {status} but {[post['status'] for post in self.posts]}")


class _HookHandler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        cast(Hook, self.server).posts.append(json.loads(body))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hook() -> Iterator[Hook]:
    site = Hook()
    thread = threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield site
    site.shutdown()
    thread.join()
    site.server_close()


def put(server: Server, name: str, body: dict[str, Any], **headers: str) -> requests.Response:
    server.wait_idle(10)
    return put_at_once(server, name, body, **headers)


def put_at_once(
    server: Server, name: str, body: dict[str, Any], **headers: str
) -> requests.Response:
    address = f"{server.url}/predictions/{name}"
    return requests.put(address, json=body, headers=headers, timeout=60)


def cancel(server: Server, name: str) -> requests.Response:
    return requests.post(f"{server.url}/predictions/{name}/cancel", timeout=10)


# ------------------------------------------------------------------ at the same time


def test_second_request_while_busy(server: Server, hook: Hook) -> None:
    """It is turned away at once, and does no harm to the first."""
    inputs = SMALL | {"num_inference_steps": 30}
    body = {"input": inputs, "webhook": hook.url}
    assert put(server, "first", body, **ASYNC).status_code == 202
    assert server.health()["status"] == "BUSY"
    # Not by our own client, which asks again.
    second = requests.post(f"{server.url}/predictions", json={"input": SMALL}, timeout=60)
    assert second.status_code == 409
    assert "busy" in second.json()["error"]
    again = put_at_once(server, "first", body, **ASYNC)
    assert again.status_code == 202
    assert again.json()["id"] == "first"
    np.testing.assert_array_equal(
        pixels(hook.wait_for("succeeded")), server.generate(num_inference_steps=30)
    )
    assert [post["status"] for post in hook.posts].count("succeeded") == 1


def test_id_may_be_used_again(server: Server) -> None:
    """Once a prediction is over, its id draws anew."""
    for seed in (1, 2):
        answer = put(server, "again", {"input": SMALL | {"seed": seed}})
        assert answer.status_code == 200
        assert answer.json()["id"] == "again"
        np.testing.assert_array_equal(pixels(answer.json()), server.generate(seed=seed))


# ------------------------------------------------------------------ asynchronous


@pytest.mark.parametrize(
    ("inputs", "status"), [({}, "succeeded"), ({"prompt": "<i>"}, "failed")], ids=str
)
def test_webhook(server: Server, hook: Hook, inputs: dict[str, Any], status: str) -> None:
    """The only post that was asked for is the last one, with everything in it."""
    body = {
        "input": SMALL | inputs,
        "webhook": hook.url,
        "webhook_events_filter": ["completed"],
    }
    server.wait_idle(10)
    response = server.post(body, **ASYNC)
    assert response.status_code == 202
    assert response.json()["status"] == "starting"
    post = hook.wait_for(status)
    assert len(hook.posts) == 1
    assert post["id"] == response.json()["id"]
    if status == "succeeded":
        np.testing.assert_array_equal(pixels(post), server.generate(**inputs))
        assert post["metrics"]["image_output_count"] == 1
    else:
        assert "1 <i> marker" in post["error"]
    assert "seed: 1\n" in post["logs"]
    server.check_normal()


def test_webhook_hears_of_progress(server: Server, hook: Hook) -> None:
    """Posts between start and end carry the log so far."""
    # Long enough that some posts fall between, which the server makes twice a second at most.
    body = {"input": SMALL | {"num_inference_steps": 250, "num_images": 8}, "webhook": hook.url}
    put(server, "progress", body, **ASYNC)
    logs = hook.wait_for("succeeded")["logs"]
    between = [post["logs"] for post in hook.posts if post["status"] == "processing"]
    assert any("%|" in earlier and earlier != logs for earlier in between)
    assert all(logs.startswith(earlier) for earlier in between)
    assert logs.endswith("250/250\n")


# ------------------------------------------------------------------ cancellation


def start_long(server: Server, name: str, **body: Any) -> None:
    """Start a long run and return when its steps are under way."""
    marked = len(server.log.read_text())
    assert put(server, name, {"input": LONG} | body, **ASYNC).status_code == 202
    deadline = time.monotonic() + 20
    while server.log.read_text()[marked:].count("%|") < 3:
        assert time.monotonic() < deadline, "no steps were taken"
        time.sleep(0.01)


def test_cancel(server: Server, hook: Hook) -> None:
    """A run of 250 steps ends within a few of them, and leaves no trace."""
    server.generate(num_inference_steps=20)
    before = server.worker.memory_info().rss
    start_long(server, "long", webhook=hook.url)
    response = cancel(server, "long")
    start = time.monotonic()
    assert response.status_code == 200
    server.wait_idle(5)
    post = hook.wait_for("canceled")
    taken = post["logs"].count("%|")
    step = post["metrics"]["predict_time"] / taken
    assert time.monotonic() - start < max(1.0, 5 * step)
    assert 3 <= taken < 125
    assert "output" not in post
    server.check_normal()
    assert server.worker.memory_info().rss - before < 20e6
    kept = server.leftovers()
    assert [path.name for path in kept] == ["0-seed-1.png"]  # of the request afterwards


def test_cancel_while_the_caller_waits(server: Server) -> None:
    """The waiting caller is told."""
    answers: list[requests.Response] = []
    server.wait_idle(10)
    thread = threading.Thread(
        target=lambda: answers.append(put_at_once(server, "waiting", {"input": LONG}))
    )
    thread.start()
    time.sleep(0.5)
    assert cancel(server, "waiting").status_code == 200
    thread.join(timeout=10)
    assert answers[0].json()["status"] == "canceled"
    server.check_normal()


def test_cancel_at_any_moment(server: Server) -> None:
    """In whatever the worker is busy with: tokens, steps, decoding, or writing files."""
    body = {"input": SMALL | {"num_images": 4, "num_inference_steps": 3, "width": 128}}
    statuses = set()
    for number in range(25):
        assert put(server, f"moment-{number}", body, **ASYNC).status_code == 202
        time.sleep(0.015 * number)
        statuses.add(cancel(server, f"moment-{number}").status_code)
        server.wait_idle(5)
    assert 200 in statuses
    server.check_normal()
    assert [path.name for path in server.leftovers()] == ["0-seed-1.png"]


def test_cancel_of_nothing(server: Server) -> None:
    assert cancel(server, "unknown").status_code == 404
    server.check_normal()


# ------------------------------------------------------------------ the end of the process


@pytest.mark.parametrize("moment", ["idle", "busy"])
def test_sigterm(weights: Path, tmp_path: Path, moment: str) -> None:
    """The processes end by themselves, and take their files with them."""
    with Server(weights, tmp_path) as server:
        server.generate(num_images=2)
        assert len(server.leftovers()) == 2
        if moment == "busy":
            start_long(server, "long")
        family = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
        assert len(family) >= 2
        family[0].terminate()
        _, alive = psutil.wait_procs(family, timeout=10)
        assert not alive
        assert not server.leftovers()
        assert not list(server.temporary.glob("kosmosg-*"))
