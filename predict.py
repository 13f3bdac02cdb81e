# ruff: noqa: E501, B008 - Cog parses this signature: one literal description per input
"""The Cog surface: literal inputs, ``setup()`` and ``predict()``; everything else is in kosmosg.

Cog reads the signature without running it, so every default, bound and description is a plain
literal (see CONTRIBUTING.md, "The Cog signature"). It also calls ``predict()`` with every input,
also those that the caller omitted.
"""

import os
import tempfile
import traceback

# Read by transformers when it is imported: no notes on missing torchvision, no progress bars.
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
# torch names this folder after the user, and fails for one that has a number and no name.
inductor = os.path.join(tempfile.gettempdir(), "torchinductor")  # noqa: PTH118 - Path is Cog's here
os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", inductor)

from cog import BasePredictor, Input, Path

from kosmosg.errors import KosmosGError
from kosmosg.serving.service import Service


class Predictor(BasePredictor):
    """KOSMOS-G behind Cog's HTTP server."""

    def setup(self, weights: Path | None = None) -> None:
        """Load the weights: COG_WEIGHTS, KOSMOSG_WEIGHTS or weights/kosmos-g."""
        self.service = Service.open(weights)

    def predict(
        self,
        image1: Path | None = Input(description="First input image, for the first <i> in the prompt.", accept="image/*", default=None),
        image2: Path | None = Input(description="Second input image, for the second <i> in the prompt.", accept="image/*", default=None),
        image3: Path | None = Input(description="Third input image, for the third <i> in the prompt.", accept="image/*", default=None),
        image4: Path | None = Input(description="Fourth input image, for the fourth <i> in the prompt.", accept="image/*", default=None),
        images: list[Path] | None = Input(description="Any further input images, in prompt order, after image1 to image4.", accept="image/*", default=None),
        prompt: str = Input(description="Target prompt. Write <i> where an input image belongs, in order, for example: <i> wearing <i>. Without <i> it is a plain text prompt.", default="<i>"),
        negative_prompt: str = Input(description="What should not appear in the output. Text only.", default=""),
        text_guidance_scale: float = Input(description="Classifier-free guidance scale. Lower it if images look over-saturated; 1 switches guidance off.", default=6.0, ge=1, le=20),
        guidance_end: float = Input(description="Share of the steps after which there is no guidance. At 0.5 drawing takes a quarter less time.", default=1.0, ge=0, le=1),
        num_inference_steps: int = Input(description="Number of denoising steps.", default=50, ge=1, le=250),
        num_images: int = Input(description="Number of images to generate.", default=4, ge=1, le=8),
        width: int | None = Input(description="Width in pixels, a multiple of 8. Leave blank for the size the model was trained at.", default=None, ge=64, le=1024),
        height: int | None = Input(description="Height in pixels, a multiple of 8. Leave blank for the size the model was trained at.", default=None, ge=64, le=1024),
        scheduler: str = Input(description="Sampler.", choices=["DPMSolverMultistep", "DDIM", "PNDM", "UniPC", "Euler", "EulerAncestral", "KarrasDPM", "LCM", "TCD"], default="DPMSolverMultistep"),
        lora_weights: Path | None = Input(description="LoRA for the Stable Diffusion v1.5 U-Net, a .safetensors file.", default=None),
        lora_scale: float = Input(description="Strength of the LoRA.", default=1.0, ge=0, le=2),
        control_image: Path | None = Input(description="Image that fixes the layout through a ControlNet.", accept="image/*", default=None),
        control_type: str = Input(description="Which ControlNet reads control_image.", choices=["canny", "depth", "openpose", "scribble", "softedge", "segmentation", "normal", "lineart", "lineart_anime", "mlsd", "shuffle", "ip2p"], default="canny"),
        control_preprocess: bool = Input(description="Derive the control map from control_image. Switch off if it already is one.", default=True),
        control_scale: float = Input(description="Strength of the ControlNet.", default=1.0, ge=0, le=2),
        init_image: Path | None = Input(description="Start from this image instead of noise.", accept="image/*", default=None),
        init_mask: Path | None = Input(description="Repaint only the white parts of this mask of init_image.", accept="image/*", default=None),
        prompt_strength: float = Input(description="How far to move away from init_image; 1 ignores it.", default=0.8, ge=0, le=1),
        seed: int | None = Input(description="Seed of the first image; image n uses seed + n. Leave blank for a random one.", default=None, ge=0, le=4294967295),
        output_format: str = Input(description="Format of the output images.", choices=["webp", "jpg", "png"], default="webp"),
        output_quality: int = Input(description="Quality of the output images, 0 to 100. Not used for png.", default=90, ge=0, le=100),
        disable_safety_checker: bool = Input(description="Return images without checking them for unsafe content.", default=False),
    ) -> list[Path]:  # fmt: skip
        """Draw images of the subjects in the input images."""
        named = [("image1", image1), ("image2", image2), ("image3", image3), ("image4", image4)]
        named += [(f"images[{n}]", image) for n, image in enumerate(images or [])]
        try:
            files = self.service.run(
                named,
                metric=self.record_metric,
                prompt=prompt,
                negative_prompt=negative_prompt,
                text_guidance_scale=text_guidance_scale,
                guidance_end=guidance_end,
                num_inference_steps=num_inference_steps,
                num_images=num_images,
                width=width,
                height=height,
                scheduler=scheduler,
                lora_weights=lora_weights,
                lora_scale=lora_scale,
                control_image=control_image,
                control_type=control_type,
                control_preprocess=control_preprocess,
                control_scale=control_scale,
                init_image=init_image,
                init_mask=init_mask,
                prompt_strength=prompt_strength,
                seed=seed,
                output_format=output_format,
                output_quality=output_quality,
                disable_safety_checker=disable_safety_checker,
            )
        except KosmosGError:
            raise
        except Exception:
            # Cog passes on the message alone; what went wrong in us belongs in the log.
            traceback.print_exc()
            raise
        return [Path(file) for file in files]
