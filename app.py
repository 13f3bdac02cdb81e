"""The page on a Hugging Face Space, which runs this file; elsewhere use ``make demo``."""

import os
import sys

from kosmosg.cli.main import main

if __name__ == "__main__":
    weights = os.environ.get("KOSMOSG_WEIGHTS", "weights/miniature")
    # A Space says where its own proxy looks for the page.
    host = os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1")
    port = os.environ.get("GRADIO_SERVER_PORT", "7860")
    sys.exit(main(["demo", "--weights", weights, "--host", host, "--port", port]))
