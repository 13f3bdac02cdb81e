"""Leave the Cog server running on this machine."""

import argparse
import os
import socket
import sys
from pathlib import Path

from scripts.local_server import (
    ROOT,
    ServerError,
    check_weights,
    server_command,
    server_environment,
)

CALL = """\
The server will answer on http://127.0.0.1:{port} (stop it with Ctrl-C). To call it:

  curl -s http://127.0.0.1:{port}/predictions -H 'Content-Type: application/json' \\
    -d '{{"input": {{"prompt": "a <i> in the snow", "num_images": 1, \
"image1": "data:image/png;base64,'"$(base64 -w0 samples/penguin.png)"'"}}}}'
"""


def main() -> int:
    """Run ``make serve``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=5000)
    parser.add_argument("--weights", type=Path, required=True, help="weights directory")
    arguments = parser.parse_args()
    try:
        check_weights(arguments.weights)
        check_port(arguments.port)
        environment = server_environment(arguments.weights, arguments.port)
    except ServerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(CALL.format(port=arguments.port), flush=True)
    os.chdir(ROOT)
    # The server takes this process's place, so that Ctrl-C and SIGTERM reach it directly.
    os.execve(sys.executable, server_command(), environment)  # noqa: S606


def check_port(port: int) -> None:
    """Check that the server will be able to listen on a port.

    Raises:
        ServerError: If there is no such port, or it is taken.
    """
    with socket.socket() as probe:
        # As the server does: what a stopped one left behind does not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or "not from 0 to 65535"
            raise ServerError(
                f"port {port} cannot be listened on ({reason}). Name another: make serve PORT=8000."
            ) from error


if __name__ == "__main__":
    sys.exit(main())
