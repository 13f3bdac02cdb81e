"""The documents agree with the code, and `scripts/check_docs.py` would notice if they did not."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from kosmosg import KosmosGPipeline
from scripts import check_docs
from scripts.cog_schema import Signature, read_signature
from tests import tiny
from tests.diffusion import loras
from tests.diffusion.test_control import write_controlnet

README = check_docs.README.read_text(encoding="utf-8")


@pytest.fixture
def signature() -> Signature:
    return read_signature((check_docs.ROOT / "predict.py").read_text(encoding="utf-8"))


def test_the_documents_are_right(capsys: pytest.CaptureFixture[str]):
    assert (check_docs.main([]), capsys.readouterr().out) == (0, "")


def test_a_stale_help_text_is_reported_and_mended():
    stale = README.replace("  --prompt PROMPT", "  --text TEXT")
    assert stale != README
    (problem,) = check_docs.check_help(stale)
    assert "`python -m kosmosg generate --help` prints another text" in problem
    assert check_docs.update_help(stale) == README


def test_a_wrong_table_of_inputs_is_reported(signature: Signature):
    row = next(line for line in README.splitlines(keepends=True) if line.startswith("| `width` |"))
    assert list(check_docs.check_inputs(README, signature)) == []
    without = list(check_docs.check_inputs(README.replace(row, ""), signature))
    assert without == ["the inputs' table needs: | `width` | integer | none | from 64 to 1024 |"]
    assert list(
        check_docs.check_inputs(README.replace(row, row + row.replace("width", "depth")), signature)
    ) == ["predict() has no input `depth`"]
    assert (
        list(check_docs.check_inputs(README.replace("from 1 to 8 |", "from 1 to 9 |"), signature))
        != []
    )
    first, second, *others = signature.inputs
    swapped = replace(signature, inputs=(second, first, *others))
    assert "another order" in "".join(check_docs.check_inputs(README, swapped))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("`make bread`", "there is no `make bread`"),
        ("```sh\nmake test && make bread\n```", "there is no `make bread`"),
        ("`samples/no.json`", "there is no `samples/no.json`"),
        ("`kosmosg/no.py`", "there is no `kosmosg/no.py`"),
        ("`no.toml`", "there is no `no.toml`"),
        ("`python -m kosmosg draw`", "`python -m kosmosg` has no command draw"),
        ("`python -m kosmosg convert --fast`", "`python -m kosmosg convert` has no option --fast"),
        ("`python -m kosmosg train cat`", "`python -m kosmosg train` has no command cat"),
        (
            "`python -m kosmosg -v train lm --fast`",
            "`python -m kosmosg train lm` has no option --fast",
        ),
        ("```sh\npython -m kosmosg generate \\\n  --seed x --prompt y\n```", "invalid int value"),
        ("```sh\npython -m kosmosg generate\n```", "arguments are required: --prompt"),
    ],
)
def test_what_does_not_exist_is_reported(text: str, problem: str):
    (found,) = check_docs.check_document(check_docs.README, text + "\n")
    assert problem in found


def test_what_exists_is_not_reported():
    text = (
        "make sure: `make test`, `predict.py`, `weights/kosmos-g/unet`, `dict.txt`, `a/b`, `.py`\n"
        "`python -m kosmosg train lm --seed`, `python -m kosmosg -v`\n"
    )
    assert list(check_docs.check_document(check_docs.README, text)) == []


def test_a_quirk_without_a_row_is_reported():
    sources = {"kosmosg/images.py": "# NOTE(reference): one\n# NOTE(reference): two"}
    table = "### Kept quirks\n\n| where | what |\n|---|---|\n| `kosmosg/images.py` | one |\n"
    (missing,) = check_docs.check_quirks(table, sources)
    assert missing.startswith("kosmosg/images.py has 2 NOTE(reference)")
    (stale,) = check_docs.check_quirks(table, {})
    assert stale.startswith("kosmosg/images.py has 0 NOTE(reference)")


def test_the_readme_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """But for what is marked as ``py`` and needs downloads: tests/techniques/test_reuse.py."""
    weights = tiny.write_weights(tmp_path / "weights", scale=8)
    unet = KosmosGPipeline.from_pretrained(weights).decoder.unet
    write_controlnet(weights / "controlnet" / "canny", unet)
    here = tmp_path / "here"
    here.mkdir()
    loras.write(here / "style.safetensors", loras.peft(loras.make_factors(unet)))
    fences = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    code = "\n".join(fence for fence in fences if "import replicate" not in fence)
    for folder in ("weights/kosmos-g", "weights/stable-diffusion-v1-5"):
        assert folder in code
        code = code.replace(folder, str(weights))
    code = code.replace("samples/", f"{check_docs.ROOT}/samples/")
    code = code.replace("seed=7,", "seed=7, num_inference_steps=2,")
    code = code.replace("embeds=negative)", "embeds=negative, num_inference_steps=2)")
    monkeypatch.chdir(here)
    exec(compile(code, "README.md", "exec"), {})
    names = sorted(path.name for path in here.glob("*.png"))
    assert names == ["beach-7.png", "beach-8.png", "beach.png", "combined.png"]
