"""Run the container and check it: ``python -m scripts.image_test IMAGE``.

It runs as people run it who trust nothing: under a number for a user, on a read-only root, without
capabilities, within 2 GB. It needs a Docker engine and the image that ``make image`` builds.
"""

import argparse
import io
import json
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
from PIL import Image

from kosmosg.serving.request_file import read_data_url, read_request
from scripts.local_server import free_port

ROOT = Path(__file__).resolve().parent.parent
HARDENED = (
    *("--user", "12345", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL"),  # noqa: S108
    *("--security-opt", "no-new-privileges", "--memory", "2g"),
)
STOP_TIMEOUT = 120  # seconds that a running request may take
# The miniature knows one kind of image: an image of full noise or of one colour is none.
LEAST_SPREAD = 5.0
FORBIDDEN = ("tests", "runs", "docs", "benchmarks", "miniature", ".git", ".venv", "outputs")


class CheckFailed(Exception):
    """Something is not as it should be; the message says what."""


def main() -> int:
    """Check an image, and print what was measured.

    Returns:
        0 if everything holds, 1 if not, or if no engine answers.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image")
    image = parser.parse_args().image
    try:
        check_engine(image)
        check_content(image)
        check_requests(image)
        check_stop(image)
    except CheckFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("the image is as it should be")
    return 0


def check_engine(image: str) -> None:
    """Make sure that an engine answers and has the image; print the image's layers."""
    try:
        docker("version")
    except (OSError, CheckFailed) as error:
        raise CheckFailed(f"no Docker engine answers ({error}). Start one.") from error
    try:
        layers = docker(
            "history", "--no-trunc=false", "--format", "{{.Size}}\t{{.CreatedBy}}", image
        )
    except CheckFailed as error:
        raise CheckFailed(f"there is no image {image}; make image builds it.") from error
    print("size per layer:", *(line for line in layers.splitlines() if line[0] != "0"), sep="\n  ")


def check_content(image: str) -> None:
    """Look for what should have stayed outside."""
    found = docker("run", "--rm", "--network", "none", image, "find", "/src", "-maxdepth", "2")
    names = {Path(line).relative_to("/src").as_posix() for line in found.splitlines()}
    if wrong := sorted(names & {*FORBIDDEN, "weights/checkpoints", "requirements-dev.txt"}):
        raise CheckFailed(f"the image holds {', '.join(wrong)}; see .dockerignore.")
    if missing := {"predict.py", "kosmosg/pipeline.py", "weights/miniature"} - names:
        raise CheckFailed(f"the image lacks {', '.join(sorted(missing))}.")


def check_requests(image: str) -> None:
    """Send every request of ``samples/``, and hostile ones between them."""
    with running(image) as (name, client, seconds):
        print(f"READY after {seconds:.1f} s")
        outputs = ROOT / "outputs" / "image-test"
        outputs.mkdir(parents=True, exist_ok=True)
        for file in sorted((ROOT / "samples").glob("*.json")):
            for number, url in enumerate(succeed(client, read_request(file))):
                content, suffix = read_data_url(url)
                (outputs / f"{file.stem}-{number}{suffix}").write_bytes(content)
                look_at(content, file.stem)
            print(f"{file.stem}: as it should be")
        for hostile in ("/etc/passwd", "file:///etc/passwd", "data:image/png;base64,AAAA"):
            found = post(client, {"prompt": "<i>", "image1": hostile})
            if found.get("status") != "failed" or "root:" in json.dumps(found):
                raise CheckFailed(f"image1={hostile!r} was answered by {str(found)[:300]}")
        succeed(client, {"prompt": "a red cat", "num_images": 8})
        print("hostile inputs: refused, and the next request works")
        health = docker("inspect", "--format", "{{.State.Health.Status}}", name).strip()
        if health not in ("healthy", "starting"):
            raise CheckFailed(f"Docker's health check says {health}")
        print(f"memory peak: {read_peak(name) / 1e6:.0f} MB, eight images at once included")


def check_stop(image: str) -> None:
    """Stop it while it works: the request is finished, and the exit status is 0."""
    with running(image) as (name, client, _):
        found: list[dict[str, Any]] = []
        inputs = {"prompt": "a red cat", "num_images": 8, "num_inference_steps": 250}
        request = threading.Thread(target=lambda: found.append(post(client, inputs)))
        request.start()
        time.sleep(2)
        start = time.perf_counter()
        docker("stop", "--time", str(STOP_TIMEOUT), name)
        request.join()
        status = docker("inspect", "--format", "{{.State.ExitCode}}", name).strip()
        if (status, found[0].get("status")) != ("0", "succeeded"):
            raise CheckFailed(f"stopped at work: exit status {status}, {str(found[0])[:300]}")
        seconds = time.perf_counter() - start
        print(f"stopped at work: the request came back, exit status 0 after {seconds:.1f} s")


@contextmanager
def running(image: str) -> Iterator[tuple[str, httpx2.Client, float]]:
    """Run the container on the miniature until it is READY.

    Yields:
        Its name, a client, and the seconds to READY.
    """
    name, port = f"kosmos-g-test-{secrets.token_hex(4)}", free_port()
    environment = ("-e", f"PORT={port}", "-e", "COG_WEIGHTS=weights/miniature")
    docker("run", "-d", "--name", name, "--network", "host", *environment, *HARDENED, image)
    start = time.perf_counter()
    client = httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=600, trust_env=False)
    try:
        while True:
            try:
                state = client.get("/health-check").json()
            except httpx2.HTTPError:
                state = {"status": "STARTING"}
            if state["status"] == "READY":
                break
            running_still = docker("inspect", "--format", "{{.State.Running}}", name).strip()
            if state["status"] != "STARTING" or running_still != "true":
                logs = docker("logs", "--tail", "20", name)
                raise CheckFailed(f"the container says {str(state)[:2000]}\n{logs}")
            time.sleep(0.2)
        yield name, client, time.perf_counter() - start
    finally:
        client.close()
        docker("rm", "-f", name)


def post(client: httpx2.Client, inputs: dict[str, Any]) -> dict[str, Any]:
    """Post a request; a server that has just answered may still be busy for a moment."""
    for _ in range(20):
        answer = client.post("/predictions", json={"input": inputs})
        if answer.status_code != 409:
            break
        time.sleep(0.1)
    return answer.json()


def succeed(client: httpx2.Client, inputs: dict[str, Any]) -> list[str]:
    """Post a request that must succeed."""
    found = post(client, inputs)
    if found.get("status") != "succeeded" or not found["output"]:
        raise CheckFailed(f"the request failed: {str(found)[:500]}")
    return found["output"]


def look_at(content: bytes, name: str) -> None:
    """Make sure that something is on an image."""
    pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"), dtype=float)
    if pixels.std() < LEAST_SPREAD:
        raise CheckFailed(f"{name}: nothing is on an image of the result")


def read_peak(name: str) -> int:
    """Bytes of memory of a container at most, by whichever cgroups the machine has."""
    files = "/sys/fs/cgroup/memory.peak", "/sys/fs/cgroup/memory/memory.max_usage_in_bytes"
    command = f"cat {files[0]} 2>/dev/null || cat {files[1]}"
    return int(docker("exec", name, "sh", "-c", command))


def docker(*words: str) -> str:
    """Run Docker's client and return what it prints.

    Raises:
        CheckFailed: With what it says, if it fails.
    """
    done = subprocess.run(["docker", *words], capture_output=True, text=True)
    if done.returncode:
        raise CheckFailed(f"docker {' '.join(words[:2])}: {done.stderr.strip()[:500]}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
