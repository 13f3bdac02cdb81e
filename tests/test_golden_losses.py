"""Parity of the training losses and their gradients with the authors' modules."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler
from safetensors.torch import load_file
from torch import Tensor

from kosmosg.checkpoints.loading import load_module
from kosmosg.models.aligner import Reconstruction
from kosmosg.pipeline import KosmosGPipeline
from kosmosg.training.losses import alignment_loss, diffusion_loss, replace_by_null
from tests.reference import GOLDEN, case_batch, convert_golden, read_json

LOSSES = read_json("losses.json")
RTOL = 1e-5


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of stage 2: the tiny one with its reconstruction half."""
    folder = tmp_path_factory.mktemp("golden")
    return convert_golden(folder, "checkpoint_stage2_extra.safetensors")


@pytest.fixture(scope="module")
def pipeline(weights: Path) -> KosmosGPipeline:
    pipeline = KosmosGPipeline.from_pretrained(weights, torch_dtype=torch.float32)
    pipeline.kosmosg.requires_grad_(True)
    return pipeline


@pytest.fixture(scope="module")
def reconstruction(weights: Path, pipeline: KosmosGPipeline) -> Reconstruction:
    module = Reconstruction(pipeline.kosmosg.config.aligner_config)
    return load_module(module, weights / "reconstruction", dtype=torch.float32)


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    return load_file(GOLDEN / "losses.safetensors")


@pytest.fixture(scope="module")
def inputs() -> dict[str, Tensor]:
    return load_file(GOLDEN / "tiny" / "inputs.safetensors")


@pytest.fixture(scope="module")
def add_noise() -> Callable[..., Tensor]:
    config = read_json("sampler/scheduler/scheduler_config.json")
    scheduler = DDPMScheduler(
        **{key: config[key] for key in ("beta_start", "beta_end", "beta_schedule")}
    )
    return scheduler.add_noise


# ------------------------------------------------------------------ stage 2


@pytest.mark.parametrize("case", list(LOSSES["stage2"]["cases"]))
def test_alignment_loss(
    case: str,
    pipeline: KosmosGPipeline,
    reconstruction: Reconstruction,
    tensors: dict[str, Tensor],
    inputs: dict[str, Tensor],
) -> None:
    wanted = LOSSES["stage2"]["cases"][case]
    features = load_file(GOLDEN / "tiny" / "outputs.safetensors")[f"{case}.features"]
    padding = case_batch(inputs, case).padding_mask
    assert (len(features), features.shape[1]) == (wanted["batch"], wanted["length"])
    assert int(padding.sum()) == wanted["pads"]

    aligner = pipeline.kosmosg.aligner
    aligner.zero_grad()
    reconstruction.requires_grad_(True).zero_grad()
    condition = aligner(features, padding)
    rebuilt = reconstruction(condition, features.shape[1])
    loss = alignment_loss(
        condition=condition,
        target=tensors["clip_embeds"][: len(features)],
        reconstruction=rebuilt,
        features=features,
    )
    loss.total.backward()

    assert loss.mse.item() == pytest.approx(wanted["mse_loss"], rel=RTOL)
    assert loss.reconstruction.item() == pytest.approx(wanted["rec_loss"], rel=RTOL)
    assert loss.total.item() == pytest.approx(wanted["total"], rel=RTOL)
    encoder_gradient, decoder_gradient = aligner.queries.grad, reconstruction.queries.grad
    assert encoder_gradient is not None
    assert decoder_gradient is not None
    norms = (wanted["grad_norm_encoder_query"], wanted["grad_norm_decoder_query"])
    assert encoder_gradient.norm().item() == pytest.approx(norms[0], rel=RTOL * 10)
    assert decoder_gradient.norm().item() == pytest.approx(norms[1], rel=RTOL * 10)
    rows = int((decoder_gradient.abs().sum(1) > 0).sum())
    assert rows == wanted["decoder_query_rows_with_grad"]
    if f"stage2.{case}.reconstruction" in tensors:
        torch.testing.assert_close(
            rebuilt.detach(), tensors[f"stage2.{case}.reconstruction"], atol=2e-5, rtol=0
        )
    if f"stage2.{case}.grad_encoder_query" in tensors:
        torch.testing.assert_close(
            encoder_gradient, tensors[f"stage2.{case}.grad_encoder_query"], atol=2e-6, rtol=1e-4
        )


# ------------------------------------------------------------------ stage 3


@pytest.mark.parametrize("case", list(LOSSES["stage3_diffusion"]["cases"]))
def test_diffusion_loss(
    case: str,
    pipeline: KosmosGPipeline,
    tensors: dict[str, Tensor],
    add_noise: Callable[..., Tensor],
) -> None:
    wanted = LOSSES["stage3_diffusion"]["cases"][case]
    draws = tensors[f"stage3.random_p.{case}"]
    assert draws.tolist() == pytest.approx(wanted["random_p"])
    assert (draws < 0.1).tolist() == wanted["dropped"]
    noise, steps = tensors["stage3.noise"], tensors["stage3.timesteps"]
    noisy = add_noise(tensors["stage3.latents"], noise, steps)
    torch.testing.assert_close(noisy, tensors["stage3.noisy_latents"], atol=1e-5, rtol=0)

    condition = tensors["stage3.condition"].clone().requires_grad_(True)
    given = replace_by_null(condition, tensors["stage3.null_condition"], draws)
    predicted = pipeline.unet(noisy, steps, given).sample
    loss = diffusion_loss(predicted, noise)
    batch = wanted["sample_size"]
    assert loss.item() == pytest.approx(wanted["per_sample_mean"], rel=RTOL)
    assert loss.item() * batch == pytest.approx(wanted["diff_loss_sum_over_batch"], rel=RTOL)
    (loss * batch).backward()
    torch.testing.assert_close(
        condition.grad, tensors[f"stage3.grad_condition.{case}"], atol=1e-6, rtol=1e-3
    )


def test_full_diffusion_loss(
    pipeline: KosmosGPipeline,
    tensors: dict[str, Tensor],
    inputs: dict[str, Tensor],
    add_noise: Callable[..., Tensor],
) -> None:
    """From pixels and tokens to the loss, in evaluation mode as the reference was."""
    wanted = LOSSES["stage3_full"]
    vae = pipeline.vae
    posterior = vae.encode(tensors["stage3_full.img_tgt"]).latent_dist
    latents = posterior.mean + posterior.std * tensors["stage3_full.vae_noise"]
    latents = vae.config.scaling_factor * latents
    torch.testing.assert_close(latents, tensors["stage3_full.vae_latents"], atol=2e-5, rtol=1e-4)

    noise, steps = tensors["stage3_full.noise"], tensors["stage3_full.timesteps"]
    condition = pipeline.kosmosg(case_batch(inputs, wanted["case"]))
    given = replace_by_null(
        condition, pipeline.kosmosg.null_condition(), tensors["stage3_full.random_p"]
    )
    predicted = pipeline.unet(add_noise(latents, noise, steps), steps, given).sample
    loss = diffusion_loss(predicted, noise) * wanted["sample_size"]
    assert loss.item() == pytest.approx(wanted["diff_loss_sum_over_batch"], rel=RTOL)
