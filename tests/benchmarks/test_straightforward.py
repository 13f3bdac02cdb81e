"""The baseline of conditioning computes the same, only at greater length."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.arithmetic import count
from benchmarks.straightforward import condition_in_one_batch, condition_straightforwardly
from kosmosg.pipeline import KosmosGPipeline

PROMPT, IMAGES = "<i> on the beach", [Image.new("RGB", (60, 80), (200, 90, 10))]


@pytest.fixture(scope="module")
def pipeline(tiny_weights: Path) -> KosmosGPipeline:
    return KosmosGPipeline.from_pretrained(tiny_weights, device="cpu")


@pytest.mark.parametrize("negative", ["", "a red hat"])
def test_it_gives_the_same_conditions(pipeline: KosmosGPipeline, negative: str) -> None:
    wanted = pipeline.encode_prompt(PROMPT, IMAGES, negative)
    for way in (condition_straightforwardly, condition_in_one_batch):
        found = way(pipeline, PROMPT, IMAGES, negative)
        for ours, theirs in zip(found, wanted, strict=True):
            torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-4)


def test_it_computes_logits_and_the_null_condition_every_time(pipeline: KosmosGPipeline) -> None:
    """Counted in operations: the sizes say what the two matrices of logits cost."""

    def operations(way) -> int:
        return count(lambda: way(PROMPT, IMAGES, ""))

    pipeline.encode_prompt(PROMPT, IMAGES)  # the null condition is kept from here on
    ours = operations(pipeline.encode_prompt)
    theirs = operations(lambda *arguments: condition_straightforwardly(pipeline, *arguments))
    model = pipeline.kosmosg
    with FlopCounterMode(display=False) as null:
        model.null_condition()
    positions = (
        1
        + (2 + model.image_slots)
        + len(pipeline.conditioner.tokenizer._pieces.encode(" on the beach"))
    )
    text = model.config.kosmos2.text_config
    logits = 2 * text.embed_dim * text.vocab_size * (positions + 1)
    assert theirs - ours == null.get_total_flops() + logits
