"""A Hub on the loopback interface, for huggingface_hub's own client to talk to.

It keeps repositories with their commits in memory and answers as the real one does: information on
a repository, its files, downloads with ETag, commit and range (what lies in large file storage by a
redirect), and for writing the creation of repositories, uploads and commits.
"""

import base64
import hashlib
import json
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar, cast
from urllib.parse import parse_qs, unquote, urlsplit

import huggingface_hub
import pytest
import transformers.utils.hub
from huggingface_hub import constants

TOKEN = "hf_loopback"  # whoever shows it may read and write everything
USER = "someone"
LARGE = (
    ".safetensors",
    ".bin",
    ".pt",
    ".model",
    ".jpg",
    ".png",
    ".parquet",
)  # kept in large file storage


@dataclass(kw_only=True)
class Repository:
    """A model, data set or space with its history.

    Attributes:
        private: Unknown to whoever shows no token.
        gated: Its files are refused to whoever shows no token.
        commits: The files of every commit, by its hash.
        branches: The commits that branches and tags point to, by their names.
    """

    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        """Let a branch consist of these files, and return the commit's hash."""
        content = [(name, hashlib.sha1(data).hexdigest()) for name, data in sorted(files.items())]
        commit = hashlib.sha1(repr((len(self.commits), branch, content)).encode()).hexdigest()
        self.commits[commit] = dict(files)
        self.branches[branch] = commit
        return commit

    def find(self, revision: str) -> str | None:
        """Look a branch or commit up."""
        return revision if revision in self.commits else self.branches.get(revision)

    @property
    def files(self) -> dict[str, bytes]:
        """What the main branch holds."""
        return self.commits[self.branches["main"]]


@dataclass(kw_only=True)
class Fault:
    """What goes wrong with one GET of a file.

    Attributes:
        status: Answer with this status and nothing else.
        cut: Break the connection after so many bytes.
        body: Send this in place of the file.
    """

    status: int | None = None
    cut: int | None = None
    body: bytes | None = None


@dataclass(kw_only=True)
class Seen:
    """One request as it came."""

    method: str
    path: str
    headers: dict[str, str]


class Hub(ThreadingHTTPServer):
    """Repositories by kind and name, such as ``"models/someone/kosmos-g"``."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, Repository] = {}
        self.stored: dict[str, bytes] = {}  # large files by their SHA-256
        self.faults: dict[str, list[Fault]] = {}  # by the file's path; each counts once
        self.seen: list[Seen] = []

    @property
    def origin(self) -> str:
        """The address that ``HF_ENDPOINT`` names."""
        return f"http://127.0.0.1:{self.server_port}"

    def add(
        self, name: str, files: dict[str, bytes] | Path, kind: str = "models", **properties: Any
    ) -> Repository:
        """Publish a model or a data set, from files in memory or from a folder."""
        if isinstance(files, Path):
            found = [path for path in files.rglob("*") if path.is_file()]
            files = {path.relative_to(files).as_posix(): path.read_bytes() for path in found}
        repository = Repository(**properties)
        repository.commit(files)
        self.repositories[f"{kind}/{name}"] = repository
        return repository

    def downloads(self) -> list[str]:
        """Paths of all files that were fetched, in order."""
        found = (
            re.search("/(?:resolve|lfs)/[^/]+/(.*)", seen.path)
            for seen in self.seen
            if seen.method == "GET"
        )
        return [match[1] for match in found if match]

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing about clients that go away."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # pyright: ignore[reportArgumentType]


class _Handler(BaseHTTPRequestHandler):
    """Routes as in the Hub's OpenAPI description; only what the client uses."""

    protocol_version = "HTTP/1.1"
    ROUTES = (
        ("GET", "/api/KIND/NAME", "info"),
        ("GET", "/api/KIND/NAME/revision/REVISION", "info"),
        ("GET", "/api/KIND/NAME/tree/REVISION(?:/FOLDER)?", "tree"),
        ("POST", "/api/KIND/NAME/paths-info/REVISION", "paths"),
        ("GET", "/(KIND/)?NAME/resolve/REVISION/FILE", "resolve"),
        ("GET", "/api/whoami-v2", "whoami"),
        ("GET", "/lfs/OID/FILE", "fetch_large"),
        ("PUT", "/lfs/OID", "store_large"),
        ("POST", "/(KIND/)?NAME.git/info/lfs/objects/batch", "batch"),
        ("POST", "/api/KIND/NAME/preupload/REVISION", "preupload"),
        ("POST", "/api/KIND/NAME/commit/REVISION", "commit"),
        ("POST", "/api/repos/create", "create"),
        ("POST", "/api/validate-yaml", "validate"),
    )
    PARTS: ClassVar = {
        "KIND": "(?P<kind>models|datasets|spaces)",
        "NAME": "(?P<name>[^/]+/[^/]+?)",
        "REVISION": "(?P<revision>[^/]+)",
        "FILE": "(?P<file>.+)",
        "FOLDER": "(?P<folder>.+)",
        "OID": "(?P<oid>[0-9a-f]{64})",
    }

    @property
    def hub(self) -> Hub:
        return cast(Hub, self.server)

    def do_HEAD(self) -> None:
        self._route("GET")

    def do_GET(self) -> None:
        self._route("GET")

    def do_PUT(self) -> None:
        self._route("PUT")

    def do_POST(self) -> None:
        self._route("POST")

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _route(self, method: str) -> None:
        parts = urlsplit(self.path)
        self.query = parse_qs(parts.query)
        self.body = b"".join(self._read())
        self.hub.seen.append(
            Seen(method=self.command, path=unquote(parts.path), headers=dict(self.headers))
        )
        for wanted, route, action in self.ROUTES:
            pattern = re.sub("[A-Z]+", lambda word: self.PARTS[word[0]], route)
            match = re.fullmatch(pattern, parts.path)
            if wanted == method and match:
                found = {key: value and unquote(value) for key, value in match.groupdict().items()}
                getattr(self, action)(**found)
                return
        self._refuse(404, "", "no such page")

    def _read(self) -> Iterator[bytes]:
        if self.headers.get("Transfer-Encoding") != "chunked":
            yield self.rfile.read(int(self.headers.get("Content-Length") or 0))
            return
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    # -------------------------------------------------------------- answers

    def _answer(self, content: Any, status: int = 200, **headers: str) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _refuse(self, status: int, code: str, message: str) -> None:
        self._answer(b"", status, X_Error_Code=code, X_Error_Message=message)

    def _may_write(self) -> bool:
        allowed = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if not allowed:
            self._refuse(401, "", "Invalid username or password.")
        return allowed

    def _find(self, kind: str | None, name: str, revision: str) -> tuple[Repository, str] | None:
        """Find repository and commit, or answer why not."""
        repository = self.hub.repositories.get(f"{kind or 'models'}/{name}")
        known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if repository is None or (repository.private and not known):
            # Without a token the Hub does not tell what is missing from what is private.
            self._refuse(404 if known else 401, "RepoNotFound", "Repository not found")
            return None
        commit = repository.find(revision)
        if commit is None:
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return None
        return repository, commit

    # -------------------------------------------------------------- reading

    def whoami(self) -> None:
        if self._may_write():
            self._answer({"name": USER, "type": "user", "orgs": []})

    def info(self, kind: str, name: str, revision: str = "main") -> None:
        if found := self._find(kind, name, revision):
            repository, commit = found
            files = [{"rfilename": file} for file in sorted(repository.commits[commit])]
            about = {"id": name, "modelId": name, "sha": commit, "siblings": files, "tags": []}
            self._answer(about | {"private": repository.private})

    def tree(self, kind: str, name: str, revision: str, folder: str | None = None) -> None:
        if not (found := self._find(kind, name, revision)):
            return
        files, start = found[0].commits[found[1]], f"{folder}/" if folder else ""
        inside = {file: data for file, data in files.items() if file.startswith(start)}
        if not inside:
            self._answer(b"", 404, X_Error_Code="EntryNotFound", X_Repo_Commit=found[1])
            return
        folders = {
            f"{start}{'/'.join(parts[:depth])}"
            for parts in (file.removeprefix(start).split("/") for file in inside)
            for depth in range(1, len(parts))
        }
        listed = [{"type": "directory", "path": each, "oid": "0" * 40} for each in sorted(folders)]
        listed += [_describe(file, data) for file, data in sorted(inside.items())]
        if self.query.get("recursive", ["false"]) != ["true"]:
            listed = [each for each in listed if "/" not in each["path"].removeprefix(start)]
        self._answer(listed)

    def paths(self, kind: str, name: str, revision: str) -> None:
        if found := self._find(kind, name, revision):
            files, wanted = found[0].commits[found[1]], parse_qs(self.body.decode())["paths"]
            self._answer([_describe(file, files[file]) for file in wanted if file in files])

    def resolve(self, kind: str | None, name: str, revision: str, file: str) -> None:
        if not (found := self._find(kind, name, revision)):
            return
        repository, commit = found
        allowed = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if repository.gated and not allowed:
            self._refuse(403, "GatedRepo", f"Access to model {name} is restricted.")
            return
        data = repository.commits[commit].get(file)
        if data is None:
            self._answer(b"", 404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
            return
        about = _describe(file, data)
        if "lfs" not in about:
            self._send(data, file, ETag=f'"{about["oid"]}"', X_Repo_Commit=commit)
            return
        oid = about["lfs"]["oid"]
        self.hub.stored[oid] = data
        # Another host, as the real storage is: the client must not send its token there.
        self._answer(
            b"",
            302,
            Location=f"http://localhost:{self.hub.server_port}/lfs/{oid}/{file}",
            X_Repo_Commit=commit,
            X_Linked_Etag=f'"{oid}"',
            X_Linked_Size=str(len(data)),
        )

    def fetch_large(self, oid: str, file: str) -> None:
        self._send(self.hub.stored[oid], file, ETag=f'"{oid}"')

    def _send(self, data: bytes, file: str, **headers: str) -> None:
        """Send a file, or from some byte on, as well as its faults let it."""
        faults = self.hub.faults.get(file, [])
        fault = faults.pop(0) if faults and self.command == "GET" else Fault()
        if fault.status:
            self._refuse(fault.status, "", "out of order")
            return
        data = data if fault.body is None else fault.body
        status, whole = 200, len(data)
        if wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first, last = int(wanted[1]), min(int(wanted[2] or whole), whole - 1)
            status, data = 206, data[first : last + 1]
            headers["Content_Range"] = f"bytes {first}-{last}/{whole}"
        headers["Accept_Ranges"] = "bytes"
        if fault.cut is None:
            self._answer(data, status, **headers)
            return
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data[: fault.cut])
        self.close_connection = True

    # -------------------------------------------------------------- writing

    def create(self) -> None:
        if not self._may_write():
            return
        asked = json.loads(self.body)
        owner = asked.get("organization") or USER
        if owner != USER:
            self._refuse(403, "", f"You don't have the rights to create a model under {owner}")
            return
        name = f"{owner}/{asked['name']}"
        key = f"{asked.get('type', 'model')}s/{name}"
        about = {"url": f"{self.hub.origin}/{name}", "name": name, "id": name}
        if key in self.hub.repositories:
            self._answer(about | {"error": "You already created this model repo"}, 409)
            return
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        self.hub.repositories[key] = repository = Repository(private=private)
        repository.commit({".gitattributes": b"*.safetensors filter=lfs\n"})
        self._answer(about)

    def validate(self) -> None:
        self._answer({"errors": [], "warnings": []})

    def preupload(self, kind: str, name: str, revision: str) -> None:
        if not self._may_write() or not (found := self._find(kind, name, revision)):
            return
        old = found[0].commits[found[1]]
        files = []
        for asked in json.loads(self.body)["files"]:
            file = asked["path"]
            about = _describe(file, old[file]) if file in old else {}
            mode = "lfs" if file.endswith(LARGE) else "regular"
            oid = about.get("lfs", about).get("oid")
            files.append({"path": file, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self._answer({"files": files})

    def batch(self, kind: str | None, name: str) -> None:
        if not self._may_write():
            return
        objects = []
        for asked in json.loads(self.body)["objects"]:
            known = {} if asked["oid"] not in self.hub.stored else {"known": True}
            action = {"upload": {"href": f"{self.hub.origin}/lfs/{asked['oid']}"}}
            objects.append(dict(asked) | ({} if known else {"actions": action}))
        self._answer({"transfer": "basic", "objects": objects})

    def store_large(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            self._refuse(400, "", "the content does not have this hash")
            return
        self.hub.stored[oid] = self.body
        self._answer(b"")

    def commit(self, kind: str, name: str, revision: str) -> None:
        if not self._may_write() or not (found := self._find(kind, name, revision)):
            return
        repository, before = found
        files = dict(repository.commits[before])
        for line in self.body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                files[value["path"]] = self.hub.stored[value["oid"]]
            elif item["key"] == "deletedFile":
                del files[value["path"]]
        # A pull request is a branch of its own.
        request = f"refs/pr/{len(repository.branches)}" if "create_pr" in self.query else None
        commit = repository.commit(files, request or revision)
        address = f"{self.hub.origin}/{name}"
        about = {"commitUrl": f"{address}/commit/{commit}", "commitOid": commit, "success": True}
        if request:
            about["pullRequestUrl"] = f"{address}/discussions/{request.rpartition('/')[2]}"
        self._answer(about)


def _describe(file: str, data: bytes) -> dict[str, Any]:
    """Describe a file as the Hub lists it: a hash of git, and if it is large one of its content."""
    about: dict[str, Any] = {"type": "file", "path": file, "size": len(data)}
    blob = data
    if file.endswith(LARGE):
        oid = hashlib.sha256(data).hexdigest()
        blob = f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\n".encode()
        about["lfs"] = {"oid": oid, "size": len(data), "pointerSize": len(blob)}
    about["oid"] = hashlib.sha1(b"blob %d\0" % len(blob) + blob).hexdigest()
    return about


@contextmanager
def running() -> Iterator[Hub]:
    """Serve until the end of the block."""
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        thread.join()
        hub.server_close()


def connect(hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process's client talk to the hub, without a token, with a cache of its own.

    The client reads the environment once, when it is imported; ``environment`` has what a process
    of its own needs.
    """
    monkeypatch.setattr(constants, "ENDPOINT", hub.origin)
    template = hub.origin + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    for api in (huggingface_hub.hf_api.api, transformers.utils.hub.hf_api()):  # both keep one
        monkeypatch.setattr(api, "endpoint", hub.origin)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.delenv("HF_TOKEN", raising=False)


def environment(hub: Hub, cache: Path) -> dict[str, str]:
    """Variables of a process whose client is to talk to the hub."""
    return {
        "HF_ENDPOINT": hub.origin,
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(cache),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
