"""What stands in a folder, by names, sizes and the ends of files."""

import re
from pathlib import Path

from kosmosg.fingerprint import EDGE, fingerprint, fingerprint_of


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
    (tmp_path / "two" / "link to nothing").symlink_to("nowhere")
    (tmp_path / "three").symlink_to("one")
    assert len({fingerprint(tmp_path / name) for name in ("one", "two", "three")}) == 1
    assert fingerprint(tmp_path / "one" / "file") != fingerprint(tmp_path / "one")


def test_both_ends_of_a_large_file_count(tmp_path: Path) -> None:
    file, found = tmp_path / "file", set()
    for place in (0, EDGE, 3 * EDGE - 1):  # of two edges, and of less than three
        for size in (EDGE + 1, 3 * EDGE):
            content = bytearray(size)
            content[min(place, size - 1)] = 1
            file.write_bytes(content)
            found.add((size, fingerprint(file)))
    assert len({each for size, each in found if size == 3 * EDGE}) == 3
    assert len({each for size, each in found if size == EDGE + 1}) == 2


def test_numbers_that_json_can_hold() -> None:
    assert fingerprint_of({"a": 1, "b": [2]}) == fingerprint_of({"b": [2], "a": 1})
    assert fingerprint_of({"a": 1}) != fingerprint_of({"a": 2})
