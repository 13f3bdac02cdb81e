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
    return {name: as_urls(value) for name, value in read_inputs(file).items()}


def read_inputs(file: Path) -> dict[str, Any]:
    """Read the inputs of a request file, with the files beside it as paths.

    Raises:
        ValueError: If it is no request, or a file is missing.
    """
    try:
        inputs = dict(json.loads(file.read_text(encoding="utf-8"))["input"])
    except OSError as error:
        raise ValueError(f"{file} cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{file} is not text. Name a request file, such as samples/yellow-cat.json; images "
            "are named in it."
        ) from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f'{file} is not a request, {{"input": {{…}}}}: {error!r}') from error
    return {name: _find(value, file.parent) for name, value in inputs.items()}


def write_request(inputs: dict[str, Any], file: Path) -> None:
    """Write a request file that needs no other: paths become data URLs."""
    body = {"input": {name: as_urls(value) for name, value in inputs.items()}}
    file.write_text(json.dumps(body, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def as_urls(value: Any) -> Any:
    """Write a path, also one in a list, as the data URL of its file; leave the rest as it is."""
    if isinstance(value, list):
        return [as_urls(item) for item in value]
    return data_url(value.read_bytes(), value.name) if isinstance(value, Path) else value


def data_url(content: bytes, name: str = "image.png") -> str:
    """Write a file's content as a data URL."""
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def read_data_url(url: str) -> tuple[bytes, str]:
    """Read a data URL's content and the suffix that belongs to its type."""
    head, _, body = url.partition(",")
    kind = head.removeprefix("data:").partition(";")[0]
    return base64.b64decode(body), mimetypes.guess_extension(kind) or ".bin"


def _find(value: Any, folder: Path) -> Any:
    if isinstance(value, list):
        return [_find(item, folder) for item in value]
    if isinstance(value, str) and value.startswith("@"):
        path = folder / value[1:]
        if not path.is_file():
            raise ValueError(f"there is no file {path}")
        return path
    return value
