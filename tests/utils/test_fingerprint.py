"""What stands in a folder, by names, sizes and samples of the files."""

import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from kosmosg.utils.fingerprint import WINDOW, WINDOWS, fingerprint, fingerprint_of


def test_it_tells_contents_names_and_sizes_apart(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    (folder / "part").mkdir(parents=True)
    file = folder / "part" / "weights"
    found = set()
    for content in (b"", b"x", b"y", b"xx"):
        file.write_bytes(content)
        found.add(fingerprint(folder))
    file.rename(folder / "part" / "other")
    found.add(fingerprint(folder))
    (folder / "more").write_bytes(b"")
    found.add(fingerprint(folder))
    assert len(found) == 6
    assert all(re.fullmatch("sha256:[0-9a-f]{12}", each) for each in found)


def test_it_does_not_matter_where_a_folder_lies(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(b"same")
    (tmp_path / "two" / ".lock").touch()
    (tmp_path / "two" / ".git").mkdir()
    (tmp_path / "two" / ".git" / "HEAD").touch()
    (tmp_path / "two" / "link to nothing").symlink_to("nowhere")
    (tmp_path / "three").symlink_to("one")
    assert len({fingerprint(tmp_path / name) for name in ("one", "two", "three")}) == 1
    assert fingerprint(tmp_path / "one" / "file") != fingerprint(tmp_path / "one")


@pytest.mark.parametrize("size", [3 * WINDOW - 1, WINDOW * WINDOWS])
def test_every_byte_of_a_small_file_counts(tmp_path: Path, size: int) -> None:
    file, found = tmp_path / "file", set()
    places = (0, WINDOW - 1, WINDOW, size // 2, size - 1)
    for place in places:
        content = bytearray(size)
        content[place] = 1
        file.write_bytes(content)
        found.add(fingerprint(file))
    assert len(found) == len(places)


def test_both_ends_of_a_large_file_count(tmp_path: Path) -> None:
    file, found, size = tmp_path / "file", set(), 3 * WINDOW * WINDOWS + 7
    for place in (0, size - 1):
        content = bytearray(size)
        content[place] = 1
        file.write_bytes(content)
        found.add(fingerprint(file))
    assert len(found) == 2


def test_weights_that_differ_in_their_middle_alone(tmp_path: Path) -> None:
    """As AlignerNet's do in a start: behind a long header, and before layers that are frozen."""
    frozen = {f"{letter}.{n:04}": torch.ones(500) for letter in "kz" for n in range(2000)}
    found = set()
    for value in (0.0, 1.0):
        trained = {f"l.{n:02}": torch.full((20_000,), value) for n in range(10)}
        save_file({**frozen, **trained}, tmp_path / "model.safetensors")
        found.add(fingerprint(tmp_path))
    content = (tmp_path / "model.safetensors").read_bytes()
    assert int.from_bytes(content[:8], "little") > 32 * WINDOW
    assert len(content) > 4 * WINDOW * WINDOWS
    assert len(found) == 2


def test_links_do_not_lead_around(tmp_path: Path) -> None:
    """Two links of a folder to itself would be followed 2 to the power of 40 times."""
    (tmp_path / "a" / "below").mkdir(parents=True)
    (tmp_path / "a" / "file").write_text("content")
    plain = fingerprint(tmp_path / "a")
    for name in ("one", "two"):
        (tmp_path / "a" / name).symlink_to(tmp_path / "a")
        (tmp_path / "a" / "below" / name).symlink_to("..")
    (tmp_path / "a" / "broken").symlink_to("nowhere")
    (tmp_path / "a" / "circle").symlink_to("circle")
    assert fingerprint(tmp_path / "a") == plain


def test_a_link_counts_as_what_it_leads_to(tmp_path: Path) -> None:
    for name in ("linked", "copied"):
        (tmp_path / name).mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").write_text("content")
    for name in ("one", "two"):
        (tmp_path / "linked" / name).symlink_to(tmp_path / "elsewhere")
        shutil.copytree(tmp_path / "elsewhere", tmp_path / "copied" / name)
    assert fingerprint(tmp_path / "linked") == fingerprint(tmp_path / "copied")


def test_numbers_that_json_can_hold() -> None:
    assert fingerprint_of({"a": 1, "b": [2]}) == fingerprint_of({"b": [2], "a": 1})
    assert fingerprint_of({"a": 1}) != fingerprint_of({"a": 2})
