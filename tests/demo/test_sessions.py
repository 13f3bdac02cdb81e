"""Nothing of a tab stays when it is closed."""

from pathlib import Path

from kosmosg.demo.sessions import Sessions


def test_the_files_of_a_closed_tab_are_gone(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    sessions = Sessions(root)
    both, mine, foreign = root / "both.png", root / "mine.png", tmp_path / "sample.png"
    for file in (both, mine, foreign):
        file.touch()
    sessions.note("me", [both, mine, foreign])
    sessions.note("you", [both])
    (sessions.folder("me") / "0.png").touch()
    sessions.close("me")
    assert not mine.exists() and both.exists() and foreign.exists()
    sessions.close("you")
    assert [path for path in root.rglob("*") if path.is_file()] == []


def test_a_name_that_is_a_path_leads_nowhere(tmp_path: Path) -> None:
    root = tmp_path / "root"
    folder = Sessions(root).folder("../../elsewhere")
    assert folder.parent == root / "sessions"
