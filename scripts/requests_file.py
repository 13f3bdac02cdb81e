"""Request files: JSON as Cog's API takes it, with ``@name`` for a file beside it."""

import base64
import json
import mimetypes
from pathlib import Path
from typing import Any


def read_request(file: Path) -> dict[str, Any]:
    """Read the inputs of a request file, with files as data URLs.

    Raises:
        ValueError: If it is no request, or a file is missing.
    """
    try:
        inputs = json.loads(file.read_text(encoding="utf-8"))["input"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f'{file} is not a request, {{"input": {{…}}}}: {error!r}') from error
    return {name: _resolve(value, file.parent) for name, value in inputs.items()}


def data_url(content: bytes, name: str = "image.png") -> str:
    """Write a file's content as a data URL."""
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def read_data_url(url: str) -> tuple[bytes, str]:
    """Read a data URL's content and the suffix that belongs to its type."""
    head, _, body = url.partition(",")
    kind = head.removeprefix("data:").partition(";")[0]
    return base64.b64decode(body), mimetypes.guess_extension(kind) or ".bin"


def _resolve(value: Any, folder: Path) -> Any:
    if isinstance(value, list):
        return [_resolve(item, folder) for item in value]
    if isinstance(value, str) and value.startswith("@"):
        path = folder / value[1:]
        if not path.is_file():
            raise ValueError(f"there is no file {path}")
        return data_url(path.read_bytes(), path.name)
    return value
