"""The whole benchmark at small size: every row is measured or says why not."""

import re
from pathlib import Path

import pytest
import torch

from benchmarks.__main__ import main
from benchmarks.decoder import REGIONS
from benchmarks.measuring import Row, psnr_of_tensors, take_turns

GPU_ALONE = {
    *("torch.compile", "CUDA graphs", "autotuning"),
    *("seconds per image at num_images=4", "seconds per image at num_images=8"),
}


def read_rows(table: Path) -> dict[str, list[str]]:
    """Cells of each row by what was measured, without its note."""
    lines = [line for line in table.read_text().splitlines() if line.startswith("| ")][1:]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    return {re.sub(r" \(.*\)$", "", title): rest for title, *rest in cells}


def test_every_row_is_measured_or_says_why_not(tmp_path: Path) -> None:
    words = ["--size", "small", "--rounds", "1", "--device", "cpu", "--steps", "3"]
    assert main([*words, "--folder", str(tmp_path)]) == 0
    rows = read_rows(tmp_path / "small.md")
    assert f"torch {torch.__version__}".split("+")[0] in (tmp_path / "small.md").read_text()
    missing = {title for title, cells in rows.items() if "not measured" in cells[1]}
    assert missing == {*GPU_ALONE, REGIONS}
    for title in rows.keys() - missing:
        ratio = float(re.match(r"\*\*([\d.e+-]+)\*\*", rows[title][3])[1])  # type: ignore[index]
        assert 0 < ratio < 1e5, title
    assert rows["a whole prediction of 50 steps, float32"][4] == "identical"
    assert rows["conditioning, one image, real negative prompt, float32"][4] == "identical"
    for title in ("attention written out", "channels-last U-Net and VAE decoder"):
        assert float(rows[title][4].removesuffix(" dB")) > 30
    assert {"opening weights in their stored precision", "converting a .pt checkpoint"} <= {*rows}
    left = {path.name for path in (tmp_path / "small").iterdir()}
    assert left == {"checkpoint.pt", "tokenizer", "stable-diffusion", "weights"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rounds", "0"], "--rounds is 0"),
        (["--steps", "2"], "--steps is 2; it must be from 3 to 50"),
        (["--weights", "nowhere"], "nowhere is not a weights directory"),
        (["--device", "abacus"], "'abacus' cannot be used here"),
    ],
)
def test_mistakes(
    words: list[str],
    message: str,
    tmp_path: Path,
    tiny_weights: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    common = ["--size", "small", "--folder", str(tmp_path), "--weights", str(tiny_weights)]
    assert main([*common, *words, "--only", "conversion"]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rounds", "few"], "error: --rounds is few; it must be a whole number."),
        (["--suite", "decoder"], "error: benchmarks has no option --suite; did you mean --size?"),
        (["--only", "nothing"], "error: --only is 'nothing'; choose one of prediction, "),
        (["--size", "small", "decoder"], "error: benchmarks cannot tell what 'decoder' is for."),
    ],
)
def test_words_that_cannot_be_read(
    words: list[str], message: str, capsys: pytest.CaptureFixture
) -> None:
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(message)


def test_trials_take_turns_and_ratios_are_those_of_a_round() -> None:
    order: list[str] = []
    clock = {"a": iter([9.0, 2.0, 4.0]), "b": iter([9.0, 1.0, 1.0])}

    def trial(name: str) -> float:
        order.append(name)
        return next(clock[name])

    found = take_turns({name: lambda name=name: trial(name) for name in clock}, rounds=2)
    assert order == ["b", "a", "a", "b", "b", "a"]
    row = Row(title="t", baseline="b", values=tuple(found["a"]), baselines=tuple(found["b"]))
    assert row.ratios == [2.0, 4.0]
    assert "| 3 s | 1 s | **3** (2 – 4) |" in str(row)


def test_psnr_knows_the_range() -> None:
    reference = torch.tensor([0.0, 2.0])
    assert psnr_of_tensors(reference + 0.2, reference) == pytest.approx(20.0)
    assert psnr_of_tensors(reference, reference) == float("inf")
