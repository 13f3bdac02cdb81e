"""What a pipeline hands back, in diffusers' form."""

from dataclasses import dataclass
from typing import Any

from diffusers.image_processor import VaeImageProcessor
from diffusers.utils import BaseOutput
from PIL import Image

from kosmosg.diffusion.sampling import Timings
from kosmosg.errors import SettingError

OUTPUT_TYPES = ("pil", "np", "pt")


@dataclass
class KosmosGOutput(BaseOutput):
    """Images, prompt by prompt, with all images of a prompt side by side.

    Attributes:
        images: RGB images.
        seeds: The seed that makes each image again, alone.
        recipes: All settings that do, for the metadata of a file.
        flagged: What the safety checker says of each; all false if it was not asked.
        timings: Seconds for encode, denoise and decode.
    """

    images: list[Image.Image]
    seeds: list[int]
    recipes: list[dict[str, Any]]
    flagged: list[bool]
    timings: Timings

    def convert(self, output_type: str) -> None:
        """Put values from 0 to 1 in place of images: "np" with channels last, "pt" first."""
        if output_type != "pil":
            values = VaeImageProcessor.pil_to_numpy(self.images)
            self["images"] = (
                values if output_type == "np" else VaeImageProcessor.numpy_to_pt(values)
            )


def check_output_type(output_type: str) -> None:
    """Check the name of a type of images.

    Raises:
        SettingError: If there is none of this name.
    """
    if output_type not in OUTPUT_TYPES:
        raise SettingError(
            f"output_type is {output_type!r}. Choose one of {', '.join(OUTPUT_TYPES)}."
        )
