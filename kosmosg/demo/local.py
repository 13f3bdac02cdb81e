"""Requests of the page, carried out on this machine by what the server uses."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from kosmosg.demo import form
from kosmosg.demo.turns import Turn
from kosmosg.diffusion import control as controls
from kosmosg.diffusion.control import Control
from kosmosg.diffusion.preview import LatentPreview
from kosmosg.diffusion.request import GenerationRequest
from kosmosg.errors import ImageError, UnsafeImageError
from kosmosg.serving.inputs import read_image
from kosmosg.serving.metadata import save_image
from kosmosg.serving.mixing import mix
from kosmosg.serving.service import Service

MOST_PREVIEWS = 8  # images


class LocalGenerator:
    """Draws with the weights that a service has loaded."""

    # What it can do that not every generator can.
    shows_steps = True

    def __init__(self, service: Service):
        self.pipeline = service.pipeline
        self._service = service
        self._preview = LatentPreview.fit(service.pipeline.vae)

    @property
    def title(self) -> str:
        """Who draws, for the page."""
        source = Path(self.pipeline.config["_name_or_path"])
        return f"{source.name} on {self.pipeline.device.type}"

    def generate(self, inputs: Mapping[str, Any], folder: Path, turn: Turn) -> list[Path]:
        """Generate the images of a request.

        Args:
            inputs: By the names of the server.
            folder: Where to put the files.
            turn: Is told of every step.

        Raises:
            KosmosGError: If it cannot be carried out.
            CancelledError: If nobody waits for the result any more.
        """
        files = self._service.run(
            form.list_images(inputs),
            metric=lambda name, value: None,
            progress=turn.step,
            watch=lambda latents: self._show(latents, turn),
            **form.settings(inputs),
        )
        # The service removes its files at the next request.
        return [file.replace(folder / file.name) for file in files]

    def mix(
        self, ends: list[Path], inputs: Mapping[str, Any], frames: int, folder: Path, turn: Turn
    ) -> list[Path]:
        """Generate a strip from one image to another; see ``generate``."""
        opened = [read_image(f"image{n}", end) for n, end in enumerate(ends, 1)]
        if len(opened) != 2:
            raise ImageError("Mixing takes two images, image1 and image2. Give both.")
        values = form.settings(inputs)
        output = mix(
            self.pipeline,
            [image for image in opened if image is not None],
            prompt=values["prompt"],
            frames=frames,
            seed=values["seed"],
            num_inference_steps=values["num_inference_steps"],
            guidance_scale=values["text_guidance_scale"],
            guidance_end=values["guidance_end"],
            width=values["width"],
            height=values["height"],
            scheduler=values["scheduler"],
            progress=turn.step,
            watch=lambda latents: self._show(latents, turn),
        )
        if all(output.flagged):
            raise UnsafeImageError
        size = output.images[0].size
        files = []
        for frame, image in enumerate(output.images):
            shown = Image.new("RGB", size) if output.flagged[frame] else image
            path = folder / f"{frame:02}-seed-{output.seeds[frame]}.png"
            files.append(save_image(shown, path, quality=90, recipe=output.recipes[frame]))
        return files

    def control_map(self, inputs: Mapping[str, Any], turn: Turn) -> Image.Image:
        """Make the map that the ControlNet of a request would read.

        Raises:
            KosmosGError: If it cannot be made.
        """
        values, pipeline = form.settings(inputs), self.pipeline
        image = read_image("control_image", values["control_image"], keep_alpha=True)
        if image is None:
            raise ImageError("control_image is missing. Give the image to make a map of.")
        control = Control(
            kind=values["control_type"], image=image, preprocess=values["control_preprocess"]
        )
        turn.check()
        sides = {name: values[name] for name in ("width", "height")}
        sized = pipeline.sized(GenerationRequest(control=control, **sides))
        assert sized.width is not None and sized.height is not None
        device = pipeline.unet.device
        return controls.read_or_make_map(
            control, (sized.width, sized.height), pipeline.controlnets, device
        )

    def _show(self, latents: Any, turn: Turn) -> None:
        turn.previews = self._preview.images(latents[:MOST_PREVIEWS])
