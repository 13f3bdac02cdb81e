"""The interface that callers and the container rely on: predict.py's signature and cog.yaml.

``contract.json`` is the output of Cog's own generator for the signature agreed on. A change to it
is a change to the public interface.
"""

import ast
import difflib
import importlib.util
import inspect
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from kosmosg.diffusion import settings
from kosmosg.diffusion.schedulers import SAMPLERS

ROOT = Path(__file__).parent.parent
CONTRACT = ROOT / "tests" / "contract.json"
PREDICT = ROOT / "predict.py"


def _load(path: Path) -> ModuleType:
    """Imports a file that is no module of a package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


cog_schema = _load(ROOT / "scripts" / "cog_schema.py")


def _source(parameters: str, constants: str = "", head: str = "") -> str:
    head = head or "from typing import Optional\nfrom cog import BasePredictor, Input, Path"
    return f"""{head}
{constants}

class Predictor(BasePredictor):
    def predict(self, {parameters}) -> list[Path]:
        return []
"""


def _inputs(source: str) -> dict:
    document = cog_schema.schema(cog_schema.read_signature(source))
    return document["components"]["schemas"]["Input"]


def test_signature_equals_the_contract():
    document = cog_schema.schema(cog_schema.read_signature(PREDICT.read_text()))
    contract = CONTRACT.read_text()
    if cog_schema.render(document) != contract:
        expected = json.dumps(json.loads(contract), indent=1).splitlines()
        found = json.dumps(document, indent=1).splitlines()
        names = ("tests/contract.json", "predict.py")
        lines = difflib.unified_diff(expected, found, *names, n=8, lineterm="")
        pytest.fail("the public interface changed:\n" + "\n".join(lines), pytrace=False)


def test_signature_is_plain():
    assert cog_schema.violations(PREDICT.read_text()) == []


def test_runtime_signature_equals_the_contract():
    expected = json.loads(CONTRACT.read_text())["components"]["schemas"]["Input"]["properties"]
    order = sorted(expected, key=lambda name: expected[name]["x-order"])
    parameters = inspect.signature(_load(PREDICT).Predictor.predict).parameters
    assert list(parameters) == ["self", *order]


def test_predict_py_is_a_thin_adapter():
    source = PREDICT.read_text()
    assert len(source.splitlines()) <= 140
    imported = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add("." * node.level + (node.module or "").partition(".")[0])
    assert imported - sys.stdlib_module_names <= {"cog", "kosmosg"}


BAD_INPUTS = {
    # Cog drops these without a word, and the input becomes required or loses its bound.
    "int that defaults to None": ("x: int = Input(default=None)", "default=None needs"),
    "Path that defaults to None": ("x: Path = Input(default=None)", "default=None needs"),
    "list that defaults to None": ("x: list[Path] = Input(default=None)", "default=None needs"),
    "computed bound": ("x: int = Input(default=1, le=2**31 - 1)", "le must be"),
    "named bound": ("x: int = Input(default=1, ge=ONE)", "ge must be"),
    "bound in parentheses": ("x: int = Input(default=1, ge=(1))", "ge must be"),
    "bound with underscores": ("x: int = Input(default=1, le=1_000)", "le must be"),
    "boolean bound": ("x: int = Input(default=1, ge=True)", "ge must be"),
    "computed length": ("x: str = Input(default='', max_length=2 * 8)", "max_length must be"),
    "computed default": ("x: float = Input(default=3 * 2.0)", "default must be"),
    "attribute as default": ("x: float = Input(default=config.scale)", "default must be"),
    "imported default": ("x: float = Input(default=SCALE)", "default must be"),
    "computed constant as default": ("x: int = Input(default=COMPUTED)", "default must be"),
    "constant in parentheses as default": ("x: int = Input(default=WRAPPED)", "default must be"),
    "default in parentheses": ("x: int = Input(default=(5))", "default must be"),
    "positional default": ("x: int = Input(5)", "with keywords only"),
    "default factory": ("x: list[str] = Input(default_factory=list)", "not supported"),
    "unpacked keywords": ("x: int = Input(**LIMITS)", "not supported"),
    # These come out garbled.
    "concatenated description": ('x: int = Input(description="a " "b")', "description must be"),
    "added description": ('x: int = Input(description="a " + "b")', "description must be"),
    "f-string description": ('x: int = Input(description=f"at {ONE}")', "description must be"),
    "description in parentheses": ('x: int = Input(description=("a"))', "description must be"),
    "escape in a description": (r'x: int = Input(description="a\tb")', "description must be"),
    "named description": ("x: int = Input(description=TEXT)", "description must be"),
    "concatenated default": ('x: str = Input(default="a" "b")', "default must be"),
    "escape in a default": (r'x: str = Input(default="a\n")', "default must be"),
    "named accept": ("x: Path = Input(accept=TEXT)", "accept must be"),
    # These fail the build.
    "computed choices": ('x: str = Input(default="a", choices=list(NAMES))', "choices must be"),
    "comprehension": ('x: str = Input(default="a", choices=[n for n in NAMES])', "choices must be"),
    "tuple of choices": ('x: str = Input(default="a", choices=("a", "b"))', "choices must be"),
    "imported choices": ('x: str = Input(default="a", choices=IMPORTED)', "choices must be"),
    "names among choices": ('x: str = Input(default="a", choices=["a", TEXT])', "choices must be"),
    "comment in choices": (
        'x: str = Input(default="a", choices=["a",  # first\n "b"])',
        "choices must be",
    ),
    "comment in constant choices": ("x: str = Input(choices=COMMENTED)", "choices must be"),
    "cog.Input": ("x: int = cog.Input(default=1)", "write Input("),
    "default without Input": ("x: int = 1", "write Input("),
    "Literal": ('x: Literal["a"] = Input(default="a")', "x: Literal["),
    "Enum": ("x: Scheduler = Input()", "x: Scheduler is not"),
    "cog.Path": ("x: cog.Path = Input()", "x: cog.Path is not"),
    "union": ("x: int | str = Input(default=1)", "x: int | str is not"),
    "list of optional items": ("x: list[Optional[int]] = Input()", "x: list[Optional[int]] is"),
    "missing annotation": ("x=Input(default=1)", "x: the type annotation is missing"),
    "bare parameter": ("x", "x: the type annotation is missing"),
    "variable keywords": ("**x: int", "plain parameters only"),
    "keyword-only parameter": ("*, x: int = Input(default=1)", "plain parameters only"),
}
CONSTANTS = """
from kosmosg.config import IMPORTED, SCALE
ONE = 1
TEXT = "text"
NAMES = ["a", "b"]
COMPUTED = 2 * 3
WRAPPED = (6)
COMMENTED = [
    "a",  # first
    "b",
]
"""


@pytest.mark.parametrize(("parameters", "reported"), BAD_INPUTS.values(), ids=BAD_INPUTS)
def test_bad_inputs_are_reported(parameters: str, reported: str):
    source = _source(parameters, CONSTANTS)
    assert [reported in line for line in cog_schema.violations(source)] == [True]
    with pytest.raises(ValueError, match=re.escape(reported)):
        cog_schema.read_signature(source)


@pytest.mark.parametrize(
    ("old", "new", "reported"),
    [
        ("import BasePredictor, Input, Path", "import BasePredictor, Input, Path as X", "its name"),
        ("from cog import", "from pathlib import Path\nfrom cog import", "must be cog's"),
        (" -> list[Path]", "", "the return value: the type annotation is missing"),
        ("-> list[Path]", "-> Optional[Path]", "cannot be optional"),
        ("-> list[Path]", "-> dict", "the return value: dict is not"),
        ("    def predict", "    @torch.inference_mode()\n    def predict", "decorator"),
        ("def predict", "def run", "no method Predictor.predict()"),
        ("class Predictor", "class Runner", "no method Predictor.predict()"),
    ],
    ids=lambda text: text.strip().replace("\n", " / "),
)
def test_bad_surroundings_are_reported(old: str, new: str, reported: str):
    source = _source("x: int = Input(default=1)")
    assert cog_schema.violations(source) == []
    assert [reported in line for line in cog_schema.violations(source.replace(old, new))] == [True]


GOOD_INPUTS = {
    "Optional[Path]": (
        "Optional[Path] = Input(default=None)",
        {"default": None, "format": "uri", "nullable": True, "type": "string"},
    ),
    "Path | None": (
        'Path | None = Input(default=None, accept="image/*")',
        {
            "default": None,
            "format": "uri",
            "nullable": True,
            "type": "string",
            "x-cog-accept": "image/*",
        },
    ),
    "list[Path]": (
        "list[Path] = Input()",
        {"items": {"format": "uri", "type": "string"}, "type": "array"},
    ),
    "Optional[list[Path]]": (
        "Optional[list[Path]] = Input(default=None)",
        {
            "default": None,
            "items": {"format": "uri", "type": "string"},
            "nullable": True,
            "type": "array",
        },
    ),
    "required": ("str", {"type": "string"}),
    "list default": (
        'list[str] = Input(default=["a", "b"])',
        {"default": ["a", "b"], "items": {"type": "string"}, "type": "array"},
    ),
    "numbers": (
        "float = Input(default=-0.5, ge=-1, le=2.0)",
        {"default": -0.5, "maximum": 2, "minimum": -1, "type": "number"},
    ),
    "text": (
        """str = Input(default='é "', min_length=1, max_length=9, regex=r"\\w+")""",
        {"default": 'é "', "maxLength": 9, "minLength": 1, "pattern": r"\w+", "type": "string"},
    ),
    "constant default": ("int = Input(default=ONE)", {"default": 1, "type": "integer"}),
}


@pytest.mark.parametrize(("parameter", "expected"), GOOD_INPUTS.values(), ids=GOOD_INPUTS)
def test_good_inputs_pass(parameter: str, expected: dict):
    source = _source(f"the_input: {parameter}", CONSTANTS)
    assert cog_schema.violations(source) == []
    inputs = _inputs(source)
    assert inputs["properties"] == {"the_input": {**expected, "title": "The Input", "x-order": 0}}
    required = "default" not in expected
    assert inputs.get("required", []) == (["the_input"] if required else [])


@pytest.mark.parametrize("choices", ['["a", "b"]', "NAMES", "[\n  'a',\n  'b',\n]"])
def test_choices_become_a_component(choices: str):
    source = _source(f'x: str = Input(default="a", choices={choices})', CONSTANTS)
    assert cog_schema.violations(source) == []
    components = cog_schema.schema(cog_schema.read_signature(source))["components"]["schemas"]
    reference = {"allOf": [{"$ref": "#/components/schemas/x"}], "default": "a", "x-order": 0}
    assert components["Input"]["properties"] == {"x": reference}
    assert components["x"]["enum"] == ["a", "b"]
    assert components["x"]["type"] == "string"


def test_script_writes_the_schema(tmp_path: Path):
    output = tmp_path / ".cog" / "openapi_schema.json"
    assert cog_schema.main([str(PREDICT), "--output", str(output)]) == 0
    assert json.loads(output.read_text())["paths"] == json.loads(CONTRACT.read_text())["paths"]
    assert list(output.parent.iterdir()) == [output]


def test_script_lists_violations(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    bad, output = tmp_path / "predict.py", tmp_path / "schema.json"
    bad.write_text(_source("x: int = Input(default=None), y: int = Input(le=2**8)"))
    assert cog_schema.main([str(bad), "--output", str(output)]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(f"{bad}: line 6: x: default")
    assert lines[1].startswith(f"{bad}: line 6: y: le")
    assert not output.exists()


def test_cog_yaml_builds_the_container_that_was_tested():
    settings = yaml.safe_load((ROOT / "cog.yaml").read_text())
    expected = {
        "gpu": True,
        "cuda": "12.8",  # without it Cog takes CUDA 13, which needs a driver of 580 or later
        "python_version": "3.11",
        "python_requirements": "requirements.lock",
        "sdk_version": "0.23.1",
    }
    assert settings["predict"] == "predict.py:Predictor"
    assert {key: settings["build"].get(key) for key in expected} == expected


@pytest.mark.parametrize("name", ["requirements.txt", "requirements.lock"])
def test_requirements_are_exact(name: str):
    lines = (ROOT / name).read_text().splitlines()
    pins = [pin for line in lines if (pin := line.partition("#")[0].strip())]
    loose = [pin for pin in pins if not re.fullmatch(r"[\w.-]+(\[[\w,-]+\])?==[\w.+!]+", pin)]
    assert loose == []
    assert "torch==2.11.0" in pins  # the last release for which Cog knows a CUDA 12 build


def test_the_literals_are_those_of_the_configuration():
    """Cog reads literals only, so predict.py repeats them."""
    schemas = json.loads(CONTRACT.read_text(encoding="utf-8"))["components"]["schemas"]
    inputs = schemas["Input"]["properties"]
    assert schemas["scheduler"]["enum"] == list(settings.SAMPLER_NAMES) == list(SAMPLERS)
    assert schemas["control_type"]["enum"] == list(settings.CONTROL_TYPES)
    defaults = {
        "text_guidance_scale": settings.DEFAULT_GUIDANCE,
        "guidance_end": settings.GUIDANCE_END,
        "num_inference_steps": settings.DEFAULT_STEPS,
        "scheduler": settings.DEFAULT_SAMPLER,
        "lora_scale": settings.LORA_SCALE,
        "control_type": settings.CONTROL_TYPES[0],
        "control_scale": settings.CONTROL_SCALE,
        "prompt_strength": settings.PROMPT_STRENGTH,
    }
    assert {name: inputs[name]["default"] for name in defaults} == defaults
    assert inputs["seed"]["maximum"] == settings.MAX_SEED
