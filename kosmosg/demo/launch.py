"""The page on an address: to this machine alone, and nothing is fetched from elsewhere."""

import hmac
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kosmosg.errors import SettingError
from kosmosg.prompts.images import MAX_BYTES

if TYPE_CHECKING:
    from gradio import Blocks

# For whatever gradio's page refers to: the browser fetches from here, or not at all.
POLICY = "; ".join(
    [
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self' data: blob:",
        "worker-src 'self' blob:",
        "form-action 'self'",
        "object-src 'none'",
    ]
)


def check_address(host: str, port: int) -> None:
    """Check, before anything is loaded, that the page can be there.

    Raises:
        SettingError: If it cannot.
    """
    if not 0 <= port <= 65535:
        raise SettingError(f"--port is {port}; it must be from 0 to 65535.")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        reason = error.strerror or error
        raise SettingError(
            f"The page cannot be on {host}:{port} ({reason}). Name another --port or --host."
        ) from error


def is_this_machine(host: str) -> bool:
    """Tell whether only this machine reaches an address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def serve(generator: Any, *, host: str, port: int, password: str | None, samples: Path) -> None:
    """Serve the page until Ctrl-C or SIGTERM.

    Args:
        generator: What carries out requests.
        host: Address to listen on.
        port: Port.
        password: What everybody is asked for.
        samples: Folder of request files, which become examples.
    """
    with open_page(generator, host=host, port=port, password=password, samples=samples) as url:
        print(f"The page is on {url} (stop it with Ctrl-C).", flush=True)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        try:
            signal.pause()
        except KeyboardInterrupt:
            print("Stopped.")


@contextmanager
def open_page(
    generator: Any,
    *,
    host: str = "127.0.0.1",
    port: int,
    password: str | None = None,
    samples: Path,
) -> Iterator[str]:
    """Serve the page in threads of their own; see ``serve``.

    Yields:
        Its address.
    """
    with tempfile.TemporaryDirectory(prefix="kosmosg-demo-") as folder:
        # Read by gradio when it is imported: where files go, and that nobody is told of anything.
        os.environ["GRADIO_TEMP_DIR"] = folder
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
        from kosmosg.demo.drawing import Studio
        from kosmosg.demo.page import make_page

        studio = Studio(generator, Path(folder))
        page = make_page(studio, samples)
        try:
            _launch(page, host, port, password)
            name = host if not is_this_machine(host) or ":" not in host else f"[{host}]"
            yield f"http://{name}:{port}"
        finally:
            page.close(verbose=False)
            studio.turns.close()


def _launch(page: "Blocks", host: str, port: int, password: str | None) -> None:
    from starlette.middleware import Middleware

    from kosmosg.demo.look import make_theme, read_text

    def ask(_: str, given: str) -> bool:
        return hmac.compare_digest(given.encode(), (password or "").encode())

    page.launch(
        server_name=host,
        server_port=port,
        auth=ask if password else None,
        auth_message="Any name, and the password that the page was started with.",
        max_file_size=MAX_BYTES,
        app_kwargs={"middleware": [Middleware(OnlyFromHere)]},
        theme=make_theme(),
        css=read_text("style.css"),
        js=read_text("page.js"),
        footer_links=[],
        allowed_paths=[],
        quiet=True,
        share=False,
        inbrowser=False,
        prevent_thread_lock=True,
        enable_monitoring=False,
        run_history=False,
        mcp_server=False,
        ssr_mode=False,
        pwa=False,
        num_workers=0,
    )


class OnlyFromHere:
    """Tells the browser to fetch nothing from elsewhere, and fetches nothing for it."""

    def __init__(self, app: Any):
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on, and the answer back with the policy."""

        async def answer(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = [(b"content-security-policy", POLICY.encode())]
                headers += [(b"referrer-policy", b"no-referrer")]
                message = {**message, "headers": [*message.get("headers", []), *headers]}
            await send(message)

        await self._app(scope, receive, answer)
