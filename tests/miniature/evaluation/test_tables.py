"""The tables, with models whose answers are known."""

import json
import math
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel

from kosmosg.errors import WeightsError
from kosmosg.evaluation.models import Sampling, clip_generator, kosmosg_generator
from kosmosg.pipeline import KosmosGPipeline
from miniature.__main__ import main
from miniature.evaluation.probe import Probe, ProbeConfig
from miniature.evaluation.probe_labels import (
    SIDE_BY_SIDE,
    STACKED,
    Reading,
    make_heads,
    true_reading,
)
from miniature.evaluation.prompts import Case, make_cases
from miniature.evaluation.report import make_sheet, make_table, to_json, write_report
from miniature.evaluation.tables import (
    END_TO_END,
    FIRST_ROW,
    RATIO,
    ROWS,
    Row,
    RowResult,
    evaluate_row,
)
from miniature.world import SCENES, Description, World, render
from miniature.world.art import LIST
from miniature.world.vocabulary import write_clip_tokenizer
from tests import tiny
from tests.miniature.art import NOUNS, write_art

PROMPTS, SEED = 14, 3
BY_KEY = {row.key: row for row in ROWS}
Change = Callable[[Description], Description]


def next_of(names: Sequence[str], name: str) -> str:
    return names[(names.index(name) + 1) % len(names)]


def same(description: Description) -> Description:
    return description


def elsewhere(description: Description) -> Description:
    return replace(description, scene=next_of(SCENES, description.scene))


def others(description: Description) -> Description:
    figures = tuple(
        replace(figure, entity=replace(figure.entity, noun=next_of(NOUNS, figure.entity.noun)))
        for figure in description.figures
    )
    return replace(description, figures=figures)


class Oracle:
    """A model that draws exactly what is asked for, or what becomes of it; and its reader."""

    def __init__(self, world: World, row: Row, change: Change = same):
        self._world, self._change = world, change
        self._cases = make_cases(world, row.make, PROMPTS, SEED)
        self._known: dict[bytes, Reading] = {}
        for case in self._cases:
            self._learn(case.target, reading_of(case.wanted))

    def generate(
        self, prompts: Sequence[str], images: Sequence[Sequence[Image.Image]], seeds: Sequence[int]
    ) -> list[Image.Image]:
        drawn = []
        for prompt, given, seed in zip(prompts, images, seeds, strict=True):
            case = self._cases[seed - SEED]
            assert prompt == case.prompt
            assert len(given) == len(case.images)
            image = render(self._world, self._change(case.wanted), np.random.default_rng(seed))
            drawn.append(Image.fromarray(image.image))
            self._learn(drawn[-1], true_reading(image))
        return drawn

    def read(self, images: Sequence[Image.Image]) -> list[Reading]:
        return [self._known[image.tobytes()] for image in images]

    def _learn(self, image: Image.Image, reading: Reading) -> None:
        self._known[image.tobytes()] = reading


def reading_of(description: Description) -> Reading:
    arrangement = {None: None, "next to": SIDE_BY_SIDE}.get(description.relation, STACKED)
    return Reading(
        figures=description.figures,
        arrangement=arrangement,
        scene=description.scene,
        style=description.style,
    )


def measure(
    world: World, key: str, change: Change = same, compared: RowResult | None = None
) -> RowResult:
    row = BY_KEY[key]
    oracle = Oracle(world, row, change)
    return evaluate_row(
        *(row, world, oracle.generate, oracle.read),
        prompts=PROMPTS,
        seed=SEED,
        batch=4,
        compared=compared,
    )


@pytest.mark.parametrize("key", BY_KEY)
def test_who_draws_what_is_asked_for_has_everything_right(world: World, key: str) -> None:
    result = measure(world, key)
    assert {name: found.value for name, found in result.estimates.items()} == dict.fromkeys(
        result.estimates, 1.0
    )
    assert result.ceiling == result.estimates
    assert result.verdicts == [True] * PROMPTS
    assert set(result.row.shown) <= {*result.estimates, RATIO}
    assert set(result.row.asked) <= set(result.row.shown)
    assert result.row.verdict in result.estimates


def test_the_wrong_scene(world: World) -> None:
    values = {n: found.value for n, found in measure(world, "scene", elsewhere).estimates.items()}
    assert values["scene"] == values["entity and scene"] == 0.0
    assert values["entity"] == values["noun"] == values["colour"] == 1.0
    text = measure(world, "text-clip", elsewhere).estimates
    assert text["all"].value == text["scene"].value == 0.0
    assert 0.7 < text["attributes"].value < 0.9
    assert measure(world, "two", elsewhere).estimates["both entities"].value == 1.0


def test_the_wrong_entity(world: World) -> None:
    values = {n: found.value for n, found in measure(world, "scene", others).estimates.items()}
    assert values["scene"] == values["colour"] == 1.0
    assert values["entity"] == values["noun"] == 0.0
    assert measure(world, "two", others).estimates["both entities"].value == 0.0
    change = measure(world, "change", others)
    assert change.estimates["right"].value == 0.0
    assert change.verdicts == [False] * PROMPTS
    assert 0.0 < change.estimates["changed"].value < 1.0


def test_the_ratio_to_the_first_row(world: World) -> None:
    first = measure(world, FIRST_ROW)
    worse = measure(world, "text-aligned", elsewhere, compared=first)
    found, share = worse.estimates[RATIO], worse.estimates["attributes"]
    assert found.value == pytest.approx(share.value)
    assert found.low < found.value < found.high
    assert RATIO not in measure(world, "text-aligned", elsewhere).estimates


def test_the_ratio_is_over_the_same_prompts(world: World) -> None:
    first = measure(world, FIRST_ROW)
    other = replace(first.cases[-1], prompt="something else")
    with pytest.raises(AssertionError, match="other prompts"):
        measure(world, "text-aligned", compared=replace(first, cases=[*first.cases[:-1], other]))


def test_nothing_is_asked_for_that_is_not_shown(world: World) -> None:
    with pytest.raises(AssertionError, match="asked for what is not shown"):
        replace(BY_KEY["scene"], asked={"attributes": 0.5})


def test_numbers_do_not_depend_on_the_batch(world: World) -> None:
    row = BY_KEY["scene"]
    oracle = Oracle(world, row, elsewhere)
    results = [
        evaluate_row(
            *(row, world, oracle.generate, oracle.read), prompts=PROMPTS, seed=SEED, batch=batch
        )
        for batch in (1, 5, 100)
    ]
    assert results[0].estimates == results[1].estimates == results[2].estimates
    steps: list[tuple[int, int]] = []
    evaluate_row(
        *(row, world, oracle.generate, oracle.read),
        prompts=PROMPTS,
        seed=SEED,
        batch=5,
        progress=lambda *step: steps.append(step),
    )
    assert steps == [(5, 14), (10, 14), (14, 14)]


def test_the_report(world: World, tmp_path: Path) -> None:
    results = [measure(world, "text-clip"), measure(world, "scene", others)]
    left_out, settings = {"two": "no weights"}, {"prompts": PROMPTS, "guidance_scale": 5.0}
    table = write_report(results, left_out, settings, tmp_path / "out")
    assert (tmp_path / "out" / "table.md").read_text() == table
    assert (
        "| SD v1.5 | CLIP | attributes | 100.0 % | 78.5 – 100.0 | ≥ 95%, reached | 100.0 % |"
        in (table)
    )
    assert "|  |  |  | entity | 0.0 % | 0.0 – 21.5 | ≥ 90%, **not reached** | 100.0 % |" in table
    assert "Left out: two (no weights)" in table
    assert "guidance scale 5.0" in table
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert found["settings"] == settings
    assert found["left_out"] == left_out
    assert set(found["versions"]) == {"torch", "diffusers", "transformers", "pillow"}
    entity = found["rows"][1]["measured"]["entity"]
    assert entity | {"high": 0} == {
        "value": 0.0,
        "low": 0.0,
        "high": 0,
        "samples": PROMPTS,
        "asked": 0.9,
        "reached": False,
        "true_images": 1.0,
    }
    assert [p["right"] for p in found["rows"][1]["prompts"]] == [False] * PROMPTS
    for key in ("text-clip", "scene"):
        with Image.open(tmp_path / "out" / f"{key}.png") as sheet:
            assert sheet.width > 600


def test_a_number_that_is_none(world: World) -> None:
    nothing = replace(measure(world, "text-clip"), scores=[{"attributes": (0, 4)}] * PROMPTS)
    result = measure(world, "text-aligned", compared=nothing)
    assert math.isnan(result.estimates[RATIO].value)
    assert f"| {RATIO} | – | – | ≥ 97%, **not reached** |" in make_table([result], {}, {})
    content = to_json([result], {}, {})
    assert content["rows"][0]["measured"][RATIO]["value"] is None
    json.dumps(content, allow_nan=False)


def test_a_number_that_was_not_measured(world: World) -> None:
    """Such as the ratio, without the row that it compares with."""
    result = measure(world, "text-aligned")
    table = make_table([result], {}, {})
    assert f"|  |  |  | {RATIO} | not measured | – | ≥ 97% |  |" in table
    assert to_json([result], {}, {})["rows"][0]["measured"][RATIO] == {
        **{"value": None, "low": None, "high": None, "samples": 0},
        **{"asked": 0.97, "reached": None, "true_images": None},
    }
    assert RATIO not in make_table([measure(world, "text-end-to-end")], {}, {})  # nothing is asked


def test_frames_tell_right_from_wrong(world: World) -> None:
    right, wrong = (
        np.asarray(make_sheet(measure(world, "text-clip", change))) for change in (same, elsewhere)
    )
    green, red = ((46, 158, 79), (211, 58, 58))
    assert (right == green).all(axis=2).sum() > 1000 > (right == red).all(axis=2).sum()
    assert (wrong == red).all(axis=2).sum() > 1000 > (wrong == green).all(axis=2).sum()


# ------------------------------------------------------------------ real models


@pytest.fixture(scope="module")
def weights(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights with CLIP's text encoder and a probe beside them."""
    directory = tiny.write_weights(tmp_path_factory.mktemp("evaluation") / "weights")
    words: Any = write_clip_tokenizer(world, directory / "clip_tokenizer")
    config = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=words.model_max_length,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = CLIPTextModel(config)
        probe = Probe(ProbeConfig(heads=make_heads(world), channels=(8, 8), further=0, hidden=8))
    encoder.save_pretrained(directory / "text_encoder")
    probe.save_pretrained(directory / "probe")
    return directory


def test_kosmosg_draws_as_its_pipeline_does(world: World, weights: Path) -> None:
    pipeline = KosmosGPipeline.from_pretrained(weights)
    generate = kosmosg_generator(pipeline, Sampling(steps=2, guidance_scale=3.0))
    case: Case = make_cases(world, BY_KEY["scene"].make, 1, seed=0)[0]
    drawn = generate(["a cat", case.prompt], [(), case.images], [5, 9])
    for index, (prompt, images, seed) in enumerate(
        [("a cat", [], 5), (case.prompt, case.images, 9)]
    ):
        expected = pipeline(
            prompt, images, num_inference_steps=2, guidance_scale=3.0, seed=seed
        ).images[0]
        difference = np.asarray(drawn[index], dtype=int) - np.asarray(expected, dtype=int)
        assert np.abs(difference).max() <= 1


def test_clip_draws_what_the_words_and_the_seed_say(weights: Path) -> None:
    device = torch.device("cpu")
    sampling = Sampling(steps=2, guidance_scale=5.0)
    generate = clip_generator(weights, sampling, device=device, dtype=torch.float32)
    prompts = ["a red cat", "a blue sun in the snow", "a red cat", "a red cat"]
    images = [np.asarray(i, dtype=int) for i in generate(prompts, [()] * 4, [1, 1, 1, 2])]
    assert images[0].shape == (64, 64, 3)
    assert np.abs(images[0] - images[2]).max() <= 1
    assert np.abs(images[0] - images[1]).max() > 0
    assert np.abs(images[0] - images[3]).max() > 8


def test_clip_that_is_not_there(tiny_weights: Path) -> None:
    with pytest.raises(WeightsError, match="text_encoder"):
        clip_generator(
            tiny_weights,
            Sampling(steps=1, guidance_scale=5.0),
            device=torch.device("cpu"),
            dtype=torch.float32,
        )


def test_the_command(
    art: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["evaluate", "--weights", str(weights), "--steps", "1", "--art", str(art)]
    output = ["--prompts", "3", "--batch", "2", "--output", str(tmp_path / "out")]
    assert main([*arguments, *output, "--after-align", str(weights)]) == 0
    printed = capsys.readouterr().out
    assert (tmp_path / "out" / "table.md").read_text() == printed
    assert "Left out: text-end-to-end (no weights given by --end-to-end)" in printed
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [row["key"] for row in found["rows"]] == [
        row.key for row in ROWS if row.model != END_TO_END
    ]
    assert found["settings"]["steps"] == 1


def test_without_an_output_the_table_is_printed_alone(
    art: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--weights", str(weights), "--steps", "1", "--prompts", "1", "--art", str(art)]
    assert main(["evaluate", *arguments]) == 0
    assert capsys.readouterr().out.startswith("| task | mirrors |")
    assert not [*tmp_path.iterdir()]


def test_a_probe_of_another_world(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_art(tmp_path / "art", [*NOUNS, "yak"])
    assert main(["evaluate", "--weights", str(weights), "--art", str(other)]) == 1
    assert "reads another world. Give the art that it was trained on" in capsys.readouterr().err


def test_the_sheet_of_skills(weights: Path, tmp_path: Path) -> None:
    public = tomllib.loads(LIST.read_text())["nouns"]
    art = write_art(tmp_path / "art", sorted(public))
    sheet = tmp_path / "new" / "skills.png"
    arguments = ["--weights", str(weights), "--steps", "1", "--art", str(art)]
    assert main(["evaluate", *arguments, "--sheet", str(sheet)]) == 0
    with Image.open(sheet) as image:
        assert image.height > 900


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output", "x", "--prompts", "0"], "--prompts is 0"),
        (["--output", "x", "--guidance-scale", "0.5"], "--guidance-scale is 0.5"),
        (["--sheet", "x.gif"], "the suffix must be one of"),
        (["--output", "x", "--end-to-end", "nowhere"], "There are no weights in nowhere"),
        (["--output", "x", "--probe", "nowhere"], "probe: nowhere/config.json is missing"),
    ],
)
def test_what_the_command_refuses(
    art: Path,
    weights: Path,
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", "--weights", str(weights), "--art", str(art), *arguments]) == 1
    assert message in capsys.readouterr().err
    assert not [*tmp_path.iterdir()]
