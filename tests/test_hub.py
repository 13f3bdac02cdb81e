"""The loopback Hub, with huggingface_hub's own client: what other tests rely on."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tests.hub import TOKEN, Fault, Hub, connect, running

FILES = {"README.md": b"hello\n", "unet/config.json": b"{}", "unet/a.safetensors": b"weights" * 99}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running() as found:
        connect(found, tmp_path / "cache", monkeypatch)
        yield found


def content(folder: str | Path) -> dict[str, bytes]:
    paths = [path for path in Path(folder).rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_a_snapshot_of_a_commit(hub: Hub) -> None:
    first = hub.add("someone/model", FILES).branches["main"]
    hub.repositories["models/someone/model"].commit({"other": b""})
    found = snapshot_download("someone/model", revision=first, allow_patterns=["unet/*"])
    assert content(found) == {name: FILES[name] for name in FILES if name.startswith("unet")}
    assert content(snapshot_download("someone/model")) == {"other": b""}
    count = len(hub.downloads())
    snapshot_download("someone/model", revision=first)
    assert hub.downloads()[count:] == ["README.md"], "the rest is in the cache"
    assert sorted(hub.downloads()[:count]) == ["unet/a.safetensors", "unet/config.json"]


def test_a_broken_transfer_goes_on(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("someone/model", FILES)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 50)  # 10 MB would begin again
    hub.faults["unet/a.safetensors"] = [Fault(cut=100)]
    found = hf_hub_download("someone/model", "unet/a.safetensors")
    assert Path(found).read_bytes() == FILES["unet/a.safetensors"]
    assert any(seen.headers.get("Range") == "bytes=100-" for seen in hub.seen)


def test_what_is_not_there_or_not_allowed(hub: Hub) -> None:
    hub.add("someone/secret", FILES, private=True)
    hub.add("someone/gated", FILES, gated=True)
    with pytest.raises(RepositoryNotFoundError):
        snapshot_download("someone/nothing")
    with pytest.raises(RepositoryNotFoundError):
        snapshot_download("someone/secret")
    with pytest.raises(GatedRepoError):
        snapshot_download("someone/gated")
    with pytest.raises(RevisionNotFoundError):
        snapshot_download("someone/secret", revision="v2", token=TOKEN)
    with pytest.raises(RemoteEntryNotFoundError):
        hf_hub_download("someone/secret", "nothing", token=TOKEN)
    assert content(snapshot_download("someone/secret", token=TOKEN)) == FILES


def test_what_is_pushed_can_be_fetched(hub: Hub, tmp_path: Path) -> None:
    for name, data in FILES.items():
        (tmp_path / "new" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "new" / name).write_bytes(data)
    api = HfApi(endpoint=hub.origin, token=TOKEN)
    name = api.create_repo("mine", private=True).repo_id
    api.upload_folder(repo_id=name, folder_path=tmp_path / "new")
    assert content(snapshot_download(name, token=TOKEN)).items() >= FILES.items()
    request = api.upload_folder(repo_id=name, folder_path=tmp_path / "new" / "unet", create_pr=True)
    assert request.pr_url
    assert api.create_repo("mine", exist_ok=True).repo_id == name
    for token, owner in ((TOKEN, "another"), ("wrong", "someone")):
        with pytest.raises(HfHubHTTPError):
            HfApi(endpoint=hub.origin, token=token).create_repo(f"{owner}/new")
