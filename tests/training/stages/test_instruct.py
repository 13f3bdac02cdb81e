"""Stage 3: what is trained, the diffusion loss by hand, and what the options do."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from torch import Tensor
from torch.nn import functional as F

from kosmosg.prompts.images import CLIP_MEAN, CLIP_STD
from kosmosg.training.stage import trainable
from kosmosg.training.stages.common import SeededSample
from kosmosg.training.stages.instruct import InstructStage
from kosmosg.training.starting_weights import StartingWeights
from tests.training.stages.examples import instruct_stage, prompts
from tests.training.world import World

VISION = r"kosmosg\.kosmos2\.vision_model\.model\.(?!encoder\.layers\.1\.|post_layernorm\.)"


@pytest.fixture(scope="module")
def stage(start: StartingWeights) -> InstructStage:
    return instruct_stage(start)


@pytest.fixture(scope="module")
def samples(start: StartingWeights) -> list[SeededSample]:
    return prompts(start, "compositional", "edits", "captions", count=8)


def test_what_is_trained(stage: InstructStage) -> None:
    """All of KOSMOS-G but the lower part of its vision tower; never the decoder."""
    every = {name for name, _ in stage.named_parameters()}
    assert {name.split(".")[0] for name in every} == {"kosmosg", "unet", "vae"}
    wanted = {name for name in every if name.startswith("kosmosg.") and not re.match(VISION, name)}
    assert set(trainable(stage)) == wanted
    assert "kosmosg.kosmos2.text_model.model.embed_tokens.weight" in wanted
    assert "kosmosg.aligner.queries" in wanted


def test_what_is_trained_for_the_ablation(start: StartingWeights) -> None:
    found = trainable(instruct_stage(start, aligner_only=True))
    assert all(name.startswith("kosmosg.aligner.") for name in found)
    assert len(found) == sum(1 for _ in start.kosmosg().aligner.parameters())


def test_modes(stage: InstructStage, samples: list[SeededSample]) -> None:
    stage.eval()
    stage.set_modes()
    assert stage.kosmosg.training
    assert stage.kosmosg.kosmos2.vision_model.training
    assert not stage.unet.training
    assert not stage.vae.training
    batch = stage.collate(samples)
    assert stage.losses(batch)["loss"].item() != stage.losses(batch)["loss"].item(), "dropout"


def loss_by_hand(stage: InstructStage, sample: SeededSample) -> tuple[Tensor, float]:
    """One sample, with diffusers' own pieces. Also the draw that decides on the condition."""
    batch = stage.collate([sample])
    draw = torch.Generator().manual_seed(sample.seed)
    shape = (1, 4, 8, 8)
    posterior, noise = (torch.randn(*shape[1:], generator=draw)[None] for _ in range(2))
    step = torch.randint(1000, (1,), generator=draw)
    null = torch.rand(1, generator=draw).item()

    vae: Any = stage.vae
    assert batch.targets is not None
    encoded = vae.encode(batch.targets).latent_dist
    latents = vae.config.scaling_factor * (encoded.mean + encoded.std * posterior)
    scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    noisy = scheduler.add_noise(latents, noise, step)  # type: ignore[arg-type]
    condition = stage.kosmosg.null_condition() if null < 0.1 else stage.kosmosg(batch.prompts)
    predicted: Any = stage.unet(noisy, step, condition)
    return F.mse_loss(predicted.sample, noise), null


def test_loss_by_hand(stage: InstructStage, start: StartingWeights) -> None:
    """Each sample alone, and all of them as a batch; its chance comes from its seed alone."""
    stage.eval()
    samples = prompts(start, "compositional", "edits", "captions", count=24)
    with torch.no_grad():
        each = [loss_by_hand(stage, sample) for sample in samples]
        assert 1 <= sum(null < 0.1 for _, null in each) < 12
        for sample, (wanted, _) in zip(samples, each, strict=True):
            found = stage.losses(stage.collate([sample]))["loss"]
            torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-5)
        found = stage.losses(stage.collate(samples[::-1]))["loss"]
    wanted = torch.stack([loss for loss, _ in each]).mean()
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-5)


def test_gradients_flow_through_the_frozen_decoder(
    stage: InstructStage, samples: list[SeededSample]
) -> None:
    stage.eval()
    stage.zero_grad()
    stage.losses(stage.collate(samples))["loss"].backward()
    trained = trainable(stage)
    for name, parameter in stage.named_parameters():
        assert (parameter.grad is not None) == (name in trained), name
    assert trained["kosmosg.aligner.queries"].grad is not None
    assert trained["kosmosg.aligner.queries"].grad.abs().max() > 0


# ------------------------------------------------------------------ options


def white(pixels: np.ndarray) -> float:
    """Say how much of the border of an entity's image is white."""
    values = pixels.transpose(1, 2, 0) * CLIP_STD + CLIP_MEAN
    border = np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])
    return float((border > 0.98).all(axis=1).mean())


def test_backgrounds_are_kept_or_masked(start: StartingWeights) -> None:
    shares = []
    for keep in (0.0, 1.0):
        found = prompts(start, "compositional", count=12, keep_background=keep)
        pixels = [each for sample in found for each in sample.prepared.pixels]
        shares.append(np.mean([white(each) for each in pixels]))
    assert shares[0] > 0.8
    assert shares[1] < 0.3


def text_length(sample: SeededSample) -> int:
    images = len(sample.prepared.pixels)
    return len(sample.prepared.prompt.ids) - 1 - images * (4 + 2)


def test_words_of_entities_are_dropped(start: StartingWeights) -> None:
    kept = prompts(start, "compositional", count=12, drop_text=0.0)
    dropped = prompts(start, "compositional", count=12, drop_text=1.0)
    words = start.tokenizer()
    for before, after in zip(kept, dropped, strict=True):
        assert before.prepared.caption == after.prepared.caption
        assert text_length(after) < text_length(before)
        ids = before.prepared.prompt.ids
        text = "".join(words.symbols[each] for each in ids[1:])
        text = re.sub(r"(<image>)+</image>", "", text).replace("▁", " ")
        assert re.sub(r"\W", "", text) == re.sub(r"\W", "", before.prepared.caption)


def test_captions_of_edits_are_dropped(start: StartingWeights) -> None:
    image = start.tokenizer().symbols.index("<image>")
    for drop_caption in (0.0, 1.0):
        for sample in prompts(start, "edits", count=8, drop_caption=drop_caption):
            assert (sample.prepared.prompt.ids[1] == image) == bool(drop_caption)


@pytest.mark.parametrize("option", ["keep-background", "drop-text", "drop-caption"])
def test_options_reach_the_samples(
    world: World,
    start: StartingWeights,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    option: str,
) -> None:
    """From the command line to ``EntityOptions`` and the preparer."""
    from kosmosg.training import setup
    from tests.training.world import command

    seen: dict[str, Any] = {}

    def prepare(start: StartingWeights, entities: Any, drop_caption: float) -> Any:
        seen.update(vars(entities), drop_caption=drop_caption)

    def train(build: Any, open_stream: Any, options: Any, settings: Any) -> Path:
        seen["settings"] = settings
        return tmp_path

    monkeypatch.setattr(setup, "_prepare_prompts", prepare)
    monkeypatch.setattr(setup, "train", train)
    run = ["--weights", start.directory, "--output", tmp_path / "run", *world.data("compositional")]
    run += ["--updates", 1, "--batch-size", 1]
    name = option.replace("-", "_")
    wanted = dict.fromkeys(("keep_background", "drop_text", "drop_caption"), 0.5)
    for more, changes in (([], {}), ([f"--{option}", 0.25], {name: 0.25})):
        assert command("train", "instruct", *run, *more) == 0
        settings = seen.pop("settings")
        assert seen == wanted | changes
        assert settings.items() >= seen.items()
        seen.clear()


# ------------------------------------------------------------------ samples and result


def test_sheet(stage: InstructStage, samples: list[SeededSample]) -> None:
    fresh = stage
    fresh._shown = None
    assert fresh.sample_images() is None
    fresh.collate(samples)
    with torch.no_grad():
        sheet = fresh.sample_images()
        again = fresh.sample_images()
    assert sheet is not None
    assert sheet.size == (4 * 64, 8 * 64)
    assert again is not None
    assert sheet.tobytes() == again.tobytes()
    target = samples[0].prepared.target
    assert target is not None
    shown = np.asarray(sheet)[:64, 128:192].transpose(2, 0, 1) / 127.5 - 1
    np.testing.assert_allclose(shown, target, atol=0.01)


def test_the_result_is_of_stage_3(stage: InstructStage, tmp_path: Path) -> None:
    stage.save(tmp_path / "weights")
    assert StartingWeights(directory=tmp_path / "weights").kosmosg().config.stage == "instruct"
