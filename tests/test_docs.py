"""What the documents say holds, and ``scripts/check_docs.py`` would notice if it did not."""

import re
import shlex
from pathlib import Path

import pytest

from kosmosg import KosmosGPipeline
from kosmosg.cli.parsing import UsageError
from scripts import check_docs
from tests import tiny
from tests.cli.options import read_options
from tests.diffusion import loras
from tests.diffusion.test_control import write_controlnet
from tests.hub import TOKEN, connect, running

TEXTS = {name: (check_docs.ROOT / name).read_text("utf-8") for name in check_docs.DOCUMENTS}
COMMAND = re.compile(r"^ *python -m (kosmosg|miniature)\b((?:[^\n#|;\\]|\\\n)*)", re.MULTILINE)


def fences(text: str, language: str) -> list[str]:
    """Blocks of code in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def test_the_documents_are_right(capsys: pytest.CaptureFixture[str]) -> None:
    assert (check_docs.main(), capsys.readouterr().out) == (0, "")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("`make bread`", "there is no make bread"),
        ("```sh\nmake test && make bread\n```", "there is no make bread"),
        ("`samples/no.json`", "there is no samples/no.json"),
        ("`kosmosg/no.py`", "there is no kosmosg/no.py"),
        ("[this](docs/no.md)", "the link docs/no.md leads nowhere"),
    ],
)
def test_what_does_not_exist_is_reported(text: str, problem: str) -> None:
    assert list(check_docs.check_names("README.md", text + "\n")) == [problem]


def test_a_wrong_table_of_inputs_is_reported() -> None:
    text = TEXTS["docs/inputs.md"]
    row = next(line for line in text.splitlines(keepends=True) if line.startswith("| `width` |"))
    (problem,) = check_docs.check_inputs(text.replace(row, ""))
    assert "the inputs or their order differ" in problem
    problems = check_docs.check_inputs(text.replace("from 64 to 1024 | pixels", "| pixels"))
    assert problems == [f"docs/inputs.md: the row of width lacks {side}" for side in (64, 1024)]


def test_a_quirk_without_a_row_is_reported() -> None:
    text = TEXTS["docs/deviations.md"]
    (problem,) = check_docs.check_quirks(
        text.replace("| `kosmosg/models/aligner.py` |", "| a |", 1)
    )
    assert (
        problem == "kosmosg/models/aligner.py has 2 NOTE(reference), and docs/deviations.md 1 rows"
    )


@pytest.mark.parametrize("name", TEXTS)
def test_the_commands_can_be_given(name: str) -> None:
    """Those in blocks of shell are parsed, with all that they need."""
    for code in fences(TEXTS[name], "sh"):
        for package, words in COMMAND.findall(code):
            arguments = shlex.split(words.replace("\\\n", " "))
            if "--help" not in arguments:
                read_options(arguments, package)


def test_a_command_that_is_none_would_be_seen() -> None:
    (found,) = COMMAND.findall(
        "python -m kosmosg generate --prompt x \\\n    --fast 3  # quickly\n"
    )
    assert shlex.split(found[1].replace("\\\n", " ")) == [
        "generate",
        "--prompt",
        "x",
        "--fast",
        "3",
    ]
    with pytest.raises(UsageError, match="kosmosg generate has no option --fast"):
        read_options(["generate", "--prompt", "x", "--fast", "3"])


@pytest.mark.parametrize("name", ["README.md", "docs/python.md"])
def test_the_python_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for what is marked as ``py`` and needs downloads: tests/diffusion/test_reuse.py."""
    weights = tiny.write_weights(tmp_path / "weights", scale=8)
    unet = KosmosGPipeline.from_pretrained(weights).unet
    write_controlnet(weights / "controlnet" / "canny", unet)
    here = tmp_path / "here"
    here.mkdir()
    loras.write(here / "style.safetensors", loras.peft(loras.make_factors(unet)))
    code = "\n".join(fences(TEXTS[name], "python"))
    assert "weights/kosmos-g" in code
    for folder in ("weights/kosmos-g", "weights/stable-diffusion-v1-5"):
        code = code.replace(folder, str(weights))
    code = code.replace("samples/", f"{check_docs.ROOT}/samples/")
    code = code.replace("seed=7", "seed=7, num_inference_steps=2")
    code = code.replace("embeds=negative)", "embeds=negative, num_inference_steps=2)")
    monkeypatch.chdir(here)
    found: dict = {}
    with running() as hub:
        connect(hub, tmp_path / "cache", monkeypatch)
        (tmp_path / "cache").mkdir()
        (tmp_path / "cache" / "token").write_text(TOKEN)  # as `hf auth login` does
        exec(compile(code, name, "exec"), found)
    assert found["condition"].shape == found["negative"].shape
    made = sorted(path.name for path in here.glob("*.png"))
    wanted = ["beach-7.png", "beach-8.png", "beach.png", "combined.png"]
    assert made == (wanted if name == "docs/python.md" else [])
    if name == "docs/python.md":
        assert hub.repositories["models/someone/kosmos-g"].private
        assert found["address"].startswith(f"{hub.origin}/someone/kosmos-g/commit/")
        assert type(found["again"]) is type(found["opened"]) is KosmosGPipeline
