"""``demo``: a page in the browser that draws."""

import os
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from kosmosg.cli.generate import ModelOptions
from kosmosg.errors import SettingError

PASSWORD = "KOSMOSG_DEMO_PASSWORD"  # noqa: S105 - the name of a variable


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Open a page in the browser that generates images.

    Attributes:
        target: Address of a running container that draws, in place of this machine.
        host: Address to listen on; 0.0.0.0 lets other machines reach the page.
        port: Port to listen on.
        password: What the page asks everybody for; else KOSMOSG_DEMO_PASSWORD, else nothing.
        samples: Folder of request files, which become examples.
    """

    target: str | None = None
    host: str = "127.0.0.1"
    port: int = 7860
    password: str | None = None
    samples: Path = Path("samples")
    model: ModelOptions

    def __post_init__(self) -> None:
        if self.target is not None and self.model != ModelOptions():
            raise SettingError(
                "--weights, --device and --dtype are the container's own when --target names one. "
                "Leave them out, or --target."
            )

    def run(self) -> None:
        """Serve the page until it is stopped."""
        if find_spec("gradio") is None:
            raise SettingError(
                "The page needs gradio. Install what belongs to it, in the folder of the project: "
                "pip install -e '.[demo]'."
            )
        from kosmosg.demo.launch import check_address, is_this_machine, serve

        password = self.password or os.environ.get(PASSWORD) or None
        check_address(self.host, self.port)
        if not is_this_machine(self.host) and password is None:
            print(
                f"note: everybody who reaches {self.host} can draw here; --password asks for one.",
                file=sys.stderr,
            )
        if self.target is not None:
            from kosmosg.demo.remote import RemoteGenerator

            generator = RemoteGenerator(self.target)
        else:
            import torch

            from kosmosg.demo.local import LocalGenerator
            from kosmosg.serving.service import Service

            dtype = getattr(torch, self.model.dtype) if self.model.dtype else None
            service = Service.open(self.model.weights, device=self.model.device, dtype=dtype)
            generator = LocalGenerator(service)
        serve(
            generator,
            host=self.host,
            port=self.port,
            password=password,
            samples=self.samples,
        )
