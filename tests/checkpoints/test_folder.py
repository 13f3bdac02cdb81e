"""Where weights are looked for, and what is said if there are none."""

from pathlib import Path

import pytest

from kosmosg.checkpoints.folder import COMPONENTS, find_weights
from kosmosg.errors import WeightsError


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, without the environment variable."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KOSMOSG_WEIGHTS", raising=False)
    return tmp_path


def make(directory: Path) -> Path:
    for name in COMPONENTS:
        (directory / name).mkdir(parents=True)
    return directory


def test_the_order_of_places(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(places / "weights" / "kosmos-g")
    assert find_weights() == Path("weights/kosmos-g")
    monkeypatch.setenv("KOSMOSG_WEIGHTS", str(make(places / "variable")))
    assert find_weights() == places / "variable"
    assert find_weights(make(places / "argument")) == places / "argument"


def test_the_miniature_is_never_taken_silently(places: Path) -> None:
    make(places / "weights" / "miniature")
    with pytest.raises(WeightsError, match="--weights weights/miniature"):
        find_weights()


@pytest.mark.parametrize("argument", [None, "elsewhere"])
def test_places_and_remedies_are_named(places: Path, argument: str | None) -> None:
    with pytest.raises(WeightsError) as caught:
        find_weights(argument)
    for part in ("COG_WEIGHTS", "--weights", "KOSMOSG_WEIGHTS", "weights/kosmos-g"):
        assert part in str(caught.value)
    for remedy in ("kosmosg convert", "kosmosg download"):
        assert remedy in str(caught.value)
    assert "miniature" not in str(caught.value), "it is not there"
    assert (argument or "weights/kosmos-g") in str(caught.value)


def test_a_named_place_without_weights_is_not_passed_over(
    places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(places / "weights" / "kosmos-g")
    monkeypatch.setenv("KOSMOSG_WEIGHTS", "missing")
    with pytest.raises(WeightsError, match="missing"):
        find_weights()


def test_a_directory_of_something_else(places: Path) -> None:
    make(places / "weights" / "kosmos-g")
    (places / "weights" / "kosmos-g" / "vae").rmdir()
    with pytest.raises(WeightsError, match="lacks vae"):
        find_weights()
