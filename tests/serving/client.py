"""The running server as the tests use it."""

import base64
import io
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import requests
from PIL import Image

from kosmosg.serving.request_file import data_url, read_data_url
from scripts.local_server import LocalServer

# The smallest request there is, with everything fixed.
SMALL: dict[str, Any] = {
    "prompt": "a cat",
    "num_images": 1,
    "num_inference_steps": 1,
    "width": 64,
    "height": 64,
    "seed": 1,
    "output_format": "png",
}
PATIENCE = 2.0  # seconds


class Server(LocalServer):
    """A server with a temporary folder and a log of its own."""

    def __init__(self, weights: Path, folder: Path, **environment: str):
        self.temporary = folder / "tmp"
        self.temporary.mkdir(parents=True)
        self.log = folder / "log"
        self._normal: np.ndarray | None = None
        environment = {"TMPDIR": str(self.temporary), **environment}
        super().__init__(weights, log=self.log, timeout=120.0, environment=environment)

    @property
    def worker(self) -> psutil.Process:
        """The process that holds the model."""
        (child,) = psutil.Process(self.pid).children()
        return child

    def post(self, body: dict[str, Any] | str, **headers: str) -> requests.Response:
        """Post a body and wait for the answer.

        coglet answers before it frees its slot, so that the very next request can come too early:
        409 is tried again for a moment.
        """
        data = body if isinstance(body, str) else json.dumps(body)
        headers = {"Content-Type": "application/json", **headers}
        deadline = time.monotonic() + PATIENCE
        while True:
            answer = requests.post(
                f"{self.url}/predictions", data=data.encode(), headers=headers, timeout=120
            )
            if answer.status_code != 409 or time.monotonic() > deadline:
                return answer
            time.sleep(0.01)

    def answer(self, **inputs: Any) -> dict[str, Any]:
        """Send the small request with some inputs changed; it must succeed."""
        response = self.post({"input": SMALL | inputs})
        assert response.status_code == 200, response.text[:2000]
        answer = response.json()
        assert answer["status"] == "succeeded", answer.get("error")
        return answer

    def generate(self, **inputs: Any) -> np.ndarray:
        """Like ``answer``; gives the pixels, ``(images, height, width, 3)``."""
        return pixels(self.answer(**inputs))

    def refuse(self, **inputs: Any) -> str:
        """Send a request that must be refused, and see that the server bears it.

        Returns:
            What the caller is told.
        """
        return self.refused(self.post({"input": SMALL | inputs}))

    def refused(self, response: requests.Response) -> str:
        """Take the message out of a refusal, and see that the server bears it."""
        if response.status_code == 200:
            answer = response.json()
            assert answer["status"] == "failed", answer["status"]
            assert "output" not in answer
            message = answer["error"]
        else:
            assert response.status_code in (400, 422), response.status_code
            message = response.text
        assert "Traceback" not in message
        self.check_normal()
        return message

    def check_normal(self) -> None:
        """See that the small request gives what it gave the first time."""
        found = self.generate()
        if self._normal is None:
            self._normal = found
        np.testing.assert_array_equal(found, self._normal)

    def wait_idle(self, seconds: float) -> float:
        """Wait until the server takes requests again; returns after how long."""
        start = time.monotonic()
        while self.health().get("status") != "READY":
            assert time.monotonic() - start < seconds, f"not READY after {seconds:.1f} s"
            time.sleep(0.01)
        return time.monotonic() - start

    def leftovers(self) -> list[Path]:
        """Files in the server's temporary folder, without torch's own cache."""
        return sorted(
            path
            for path in self.temporary.rglob("*")
            if path.is_file() and "torchinductor" not in str(path)
        )


def files(answer: dict[str, Any]) -> list[bytes]:
    """The output files of an answer."""
    return [read_data_url(url)[0] for url in answer["output"]]


def pixels(answer: dict[str, Any]) -> np.ndarray:
    """The output images of an answer, which all have one size."""
    images = [Image.open(io.BytesIO(content)).convert("RGB") for content in files(answer)]
    return np.stack([np.asarray(image) for image in images])


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """Write an image into a file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def url(image: Image.Image | bytes, name: str = "image.png") -> str:
    """Write an image, or a file's content, as a data URL."""
    return data_url(image if isinstance(image, bytes) else encode(image), name)


def photo(seed: int = 0, size: tuple[int, int] = (48, 40)) -> Image.Image:
    """Draw coarse random blotches, which survive the scaling to the model's input."""
    values = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(values).resize(size, Image.Resampling.NEAREST)


def text_url(content: str, kind: str) -> str:
    """Write a text as a data URL of some type."""
    return f"data:{kind};base64,{base64.b64encode(content.encode()).decode()}"
