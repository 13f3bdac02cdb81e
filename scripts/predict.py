"""Start the Cog server, post one request file, keep the images."""

import argparse
import sys
import time
from pathlib import Path

from kosmosg.serving.request_file import read_data_url, read_request
from scripts.local_server import ROOT, LocalServer, ServerError, check_weights


def main() -> int:
    """Run ``make predict``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("request", type=Path, help="request file, such as those in samples/")
    parser.add_argument("--weights", type=Path, required=True, help="weights directory")
    parser.add_argument("--outputs", type=Path, default=ROOT / "outputs")
    arguments = parser.parse_args()
    try:
        inputs = read_request(arguments.request)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    arguments.outputs.mkdir(parents=True, exist_ok=True)
    print("starting the server; this can take half a minute, and minutes at full size", flush=True)
    start = time.perf_counter()
    try:
        check_weights(arguments.weights)
        with LocalServer(arguments.weights, log=arguments.outputs / "server.log") as server:
            ready = time.perf_counter()
            print(f"server ready after {ready - start:.1f} s")
            prediction = server.predict(inputs).json()
    except ServerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return report(prediction, arguments.request.stem, arguments.outputs, ready)


def report(prediction: dict, name: str, outputs: Path, started: float) -> int:
    """Write the images of a prediction and print where they are."""
    for line in prediction.get("logs", "").splitlines():
        if line.startswith(("seed:", "image ")):
            print(line)
    if prediction.get("status") != "succeeded":
        print(f"error: {prediction.get('error') or prediction}", file=sys.stderr)
        return 1
    for index, url in enumerate(prediction["output"]):
        content, suffix = read_data_url(url)
        path = outputs / f"{name}-{index}{suffix}"
        path.write_bytes(content)
        print(path)
    print(f"predicted in {time.perf_counter() - started:.1f} s; metrics: {prediction['metrics']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
