"""A LoRA and a ControlNet for a decoder, trained as the community trains them: with CLIP.

KOSMOS-G has no part in it. That they work with its conditions all the same is the point of an
aligned decoder (paper, section 4.4), and the miniature shows it.
"""

from pathlib import Path
from typing import Any

from diffusers import ControlNetModel, StableDiffusionPipeline, UNet2DConditionModel
from jaxtyping import Float, Int64
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from torch import Tensor, nn
from transformers import CLIPTextModel

from kosmosg.training.noise import Diffusion
from miniature.pretraining.unet import DecoderStage, LatentBatch

ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]


class LoraStage(DecoderStage):
    """Trains corrections of the U-Net's attention.

    Args:
        unet: Frozen.
        text_encoder: Frozen; gives the conditions.
        null_ids: Tokens of the empty caption.
        diffusion: The VAE's scale and the noise schedule.
        rank: Of the corrections.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        text_encoder: CLIPTextModel,
        null_ids: Int64[Tensor, "1 length"],
        diffusion: Diffusion,
        rank: int,
    ):
        super().__init__(unet, text_encoder, null_ids, diffusion)
        self.unet.requires_grad_(False)
        self.unet.add_adapter(
            LoraConfig(
                r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=ATTENTION
            )
        )

    def save(self, directory: Path) -> None:
        """Write ``pytorch_lora_weights.safetensors``, as diffusers names it."""
        unet: Any = self.unet
        corrections: Any = get_peft_model_state_dict(unet)
        StableDiffusionPipeline.save_lora_weights(directory, unet_lora_layers=corrections)


class ControlNetStage(DecoderStage):
    """Trains a network that fixes the layout, beginning with the U-Net's own encoding half.

    Args:
        unet: Frozen.
        text_encoder: Frozen; gives the conditions.
        null_ids: Tokens of the empty caption.
        diffusion: The VAE's scale and the noise schedule.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        text_encoder: CLIPTextModel,
        null_ids: Int64[Tensor, "1 length"],
        diffusion: Diffusion,
    ):
        super().__init__(unet, text_encoder, null_ids, diffusion)
        self.unet.requires_grad_(False)
        self.controlnet = ControlNetModel.from_unet(unet)
        make_maps_visible(self.controlnet)
        self.controlnet.requires_grad_(True)

    def predict(
        self,
        noisy: Float[Tensor, "batch channels height width"],
        timesteps: Int64[Tensor, "batch"],
        condition: Float[Tensor, "batch queries dim"],
        batch: LatentBatch,
    ) -> Float[Tensor, "batch channels height width"]:
        """Predict the noise, with what the map adds to the U-Net's features."""
        assert batch.control_maps is not None
        controlnet: Any = self.controlnet
        down, middle = controlnet(
            noisy,
            timesteps,
            encoder_hidden_states=condition,
            controlnet_cond=batch.control_maps / 255.0,
            return_dict=False,
        )
        return self.unet(
            noisy,
            timesteps,
            condition,
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
        ).sample

    def save(self, directory: Path) -> None:
        """Write the network as it lies in ``controlnet/KIND``."""
        self.controlnet.save_pretrained(directory)


def make_maps_visible(controlnet: ControlNetModel) -> None:
    """Let the network that reads the map begin with weights that keep its size.

    With torch's initial values next to nothing of the map comes out of its seven layers, and the
    last one, which begins at zero, has nothing to learn from.
    """
    hint: Any = controlnet.controlnet_cond_embedding
    for layer in (hint.conv_in, *hint.blocks):
        nn.init.kaiming_normal_(layer.weight)
        nn.init.zeros_(layer.bias)
