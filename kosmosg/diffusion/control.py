"""ControlNet: a second network that fixes the layout (arXiv 2302.05543).

It reads the same condition as the U-Net, so AlignerNet's output goes into both. The networks are
those that the community trained for Stable Diffusion v1.5; one at a time is kept in memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from PIL import Image

from kosmosg.checkpoints.loading import load_component
from kosmosg.diffusion.control_maps import MapMaker, make_map, open_map_maker, read_map
from kosmosg.diffusion.settings import CONTROL_SCALE, CONTROL_TYPES
from kosmosg.errors import ControlError, SettingError, WeightsError
from kosmosg.prompts.colours import normalise, to_rgb
from kosmosg.utils.checks import check_number

FOLDER = "controlnet"
MAPS = "annotators"  # beside it: the networks that make maps
# What a ControlNet shares with the U-Net whose features it adds to.
SHARED = ("in_channels", "block_out_channels", "layers_per_block", "cross_attention_dim")


@dataclass(frozen=True, kw_only=True)
class Control:
    """An image that fixes the layout.

    Attributes:
        kind: One of ``settings.CONTROL_TYPES``.
        image: Any image, on white where it is transparent; or with ``preprocess=False`` a control
            map, as the network was trained on, on black where it is transparent.
        preprocess: Derive the map from the image.
        scale: Strength, 0 to 2.
        start: Share of the steps after which it begins to act.
        end: Share of the steps after which it no longer acts.
    """

    kind: str
    image: Image.Image
    preprocess: bool = True
    scale: float = CONTROL_SCALE
    start: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in CONTROL_TYPES:
            raise SettingError(
                f"control_type {self.kind!r} is unknown. Choose one of {', '.join(CONTROL_TYPES)}."
            )
        object.__setattr__(self, "image", normalise(self.image))
        for name, called, high in (
            ("scale", "control_scale", 2),
            ("start", "the control's start", 1),
            ("end", "the control's end", 1),
        ):  # plain numbers, for the metadata
            object.__setattr__(self, name, check_number(called, getattr(self, name), 0, high))
        if self.start >= self.end:
            raise SettingError(
                f"The control starts at {self.start:g} and ends at {self.end:g} of the steps. Let "
                "it end after it starts."
            )


@dataclass(frozen=True, kw_only=True)
class ControlMap:
    """A control, prepared for one size.

    Attributes:
        network: The ControlNet.
        image: The map, of the size of the result.
        control: Where it came from.
    """

    network: ControlNetModel
    image: Image.Image
    control: Control

    @property
    def arguments(self) -> dict[str, Any]:
        """How strongly and when it acts, in the words of diffusers' pipelines."""
        return {
            "controlnet_conditioning_scale": self.control.scale,
            "control_guidance_start": self.control.start,
            "control_guidance_end": self.control.end,
        }


def prepare(
    control: Control,
    size: tuple[int, int],
    controlnets: "ControlNets",
    unet: UNet2DConditionModel,
    device: torch.device,
) -> ControlMap:
    """Bring a control image to the size of the result, derive its map, and find its network.

    Args:
        control: What fixes the layout.
        size: Width and height in pixels.
        controlnets: The networks to choose from.
        unet: The U-Net that the network must fit.
        device: Where to run; the weights of the U-Net may be elsewhere until then.

    Raises:
        ControlError: If the map cannot be made, or there is no network that fits.
    """
    network = controlnets.get(control.kind, unet, device)
    image = read_or_make_map(control, size, controlnets, device)
    return ControlMap(network=network, image=image, control=control)


def read_or_make_map(
    control: Control, size: tuple[int, int], controlnets: "ControlNets", device: torch.device
) -> Image.Image:
    """Derive a control's map, unless it already is one; see ``prepare``.

    Raises:
        ControlError: If it cannot be made.
    """
    if not control.preprocess:
        return read_map(control.kind, control.image, size)
    maker = controlnets.map_maker(control.kind, device)
    return make_map(control.kind, maker, to_rgb(control.image), size)


class ControlNets:
    """The ControlNets of some folders, and what makes their maps; the last of each is kept."""

    def __init__(self, folders: Sequence[Path]):
        self.folders = [Path(folder) for folder in folders]
        self._kind: str | None = None
        self._network: ControlNetModel | None = None
        self._maker: tuple[tuple[str, torch.device], MapMaker] | None = None

    def map_maker(self, kind: str, device: torch.device) -> MapMaker:
        """Take what makes a kind of map from memory, or open it in place of the one before.

        Raises:
            ControlError: If its networks are not there, or damaged.
        """
        if self._maker is None or self._maker[0] != (kind, device):
            self._maker = None  # before loading: two may not fit into memory
            places = [folder.parent / MAPS / kind for folder in self.folders]
            place = next((place for place in places if place.is_dir()), places[-1])
            self._maker = (kind, device), open_map_maker(kind, place, device)
        return self._maker[1]

    def get(
        self, kind: str, unet: UNet2DConditionModel, device: torch.device | None = None
    ) -> ControlNetModel:
        """Take the network of a kind from memory, or load it in place of the one before.

        Args:
            kind: One of ``settings.CONTROL_TYPES``.
            unet: The U-Net that it must fit, whose precision it gets.
            device: Where it goes; that of the U-Net by default.

        Raises:
            ControlError: If it is not there, is damaged, or belongs to another U-Net.
        """
        if self._kind != kind or self._network is None or self._network.dtype != unet.dtype:
            self._kind = self._network = None  # before loading: two may not fit into memory
            self._network = self._load(kind, unet)
            self._kind = kind
        _check_fit(kind, self._network, unet)
        network: Any = self._network
        return network.to(device or unet.device)

    def _load(self, kind: str, unet: UNet2DConditionModel) -> ControlNetModel:
        places = [folder / kind for folder in self.folders]
        found = next((place for place in places if place.is_dir()), None)
        if found is None:
            raise ControlError(
                f"There is no ControlNet for '{kind}' in {' or '.join(map(str, places))}. Fetch "
                f"it: python -m kosmosg download {FOLDER} {kind}"
            )
        try:
            return load_component(ControlNetModel, found, dtype=unet.dtype)
        except WeightsError as error:
            raise ControlError(str(error)) from error


def _check_fit(kind: str, network: ControlNetModel, unet: UNet2DConditionModel) -> None:
    for name in SHARED:
        ours, theirs = _plain(network.config[name]), _plain(unet.config[name])
        if ours != theirs:
            raise ControlError(
                f"The ControlNet for '{kind}' does not fit this U-Net: {name} is {ours}, not "
                f"{theirs}. Use one for the same base model (Stable Diffusion v1.5)."
            )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple | list) else value
