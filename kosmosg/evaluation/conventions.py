"""What an evaluation did, in sentences for its results: conventions, and where it left them."""

from collections.abc import Iterator, Mapping
from typing import Any

from kosmosg.evaluation.coco import REAL_SIDE
from kosmosg.evaluation.dreambench import Wording
from kosmosg.evaluation.evaluator import Protocol
from kosmosg.evaluation.inception import SIDE
from kosmosg.evaluation.options import COCO_BATCH, DREAMBENCH_PROMPTS_PER_BATCH


def dreambench_conventions(
    protocol: Protocol, wording: Wording, seed: int, per_prompt: int
) -> Iterator[str]:
    """Say how DreamBench was drawn and scored."""
    yield _noise(protocol, per_prompt * DREAMBENCH_PROMPTS_PER_BATCH, seed)
    if not wording.pictures:
        yield "Prompts are DreamBooth's original ones in words; the model saw no photograph."
    elif wording.noun:
        yield "Prompts are the paper's (appendix A), with the subject's noun before its picture."
    else:
        yield (
            "Prompts are the paper's (appendix A), the subject's picture in the place of its noun."
        )
    yield (
        "DINO and CLIP-I compare with the one photograph that is kept of a subject, which is also "
        "the input; CLIP-T with DreamBooth's original prompt. They are means of cosines over all "
        "pictures, of which the mean alone is kept from falling below zero."
    )
    yield "For intervals subjects are resampled, and for those of one subject its prompts."


def coco_conventions(protocol: Protocol, seed: int, *, inception: bool) -> Iterator[str]:
    """Say how COCO's captions were drawn and measured."""
    yield _noise(protocol, COCO_BATCH, seed)
    yield f"Captions are drawn by Python's generator with seed {seed} from all of the file."
    if protocol.old_resizing:
        photographs = f"scaled to {REAL_SIDE} pixels (bilinear), their central square kept"
    else:
        photographs = "cut to their central square"
    yield f"Photographs are all of the set, {photographs}; pictures are taken as they were drawn."
    if inception and protocol.old_resizing:
        yield f"Both come to {SIDE} pixels as in TensorFlow 1: bilinear, without smoothing."
    elif inception:
        yield f"Both come to {SIDE} pixels by Pillow's bicubic filter, not rounded."
    yield (
        "The interval shows how the distance scatters when the pictures are resampled; the "
        "photographs are not."
    )


def stand_in(diffusers: bool) -> Iterator[str]:
    """Say if it was not KOSMOS-G that drew."""
    if diffusers:
        yield (
            "A pipeline of diffusers drew in KOSMOS-G's place; one without a U-Net keeps its own "
            "sampler and noise."
        )


def departures(found: Mapping[str, Any], published: Mapping[str, Any]) -> Iterator[str]:
    """Say which settings are not the published ones."""
    others = [
        f"{name.replace('_', ' ')} {found[name]} instead of {value}"
        for name, value in published.items()
        if found[name] != value
    ]
    if others:
        yield f"**Not as published:** {', '.join(others)}."


def _noise(protocol: Protocol, noises: int, seed: int) -> str:
    if protocol.shared_noise:
        return (
            f"Protocol {protocol.name}: every {noises} pictures begin with the same {noises} "
            f"noises, of seeds {seed} to {seed + noises - 1}, as in the authors' script. Theirs "
            "came from a generator on the GPU, these are drawn on the CPU."
        )
    return f"Protocol {protocol.name}: picture n, from 0, is drawn from seed {seed} + n."
