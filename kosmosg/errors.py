"""What can be wrong with what the user gave us.

Every error here is a ``ValueError`` whose message names the input, the value found, the value
wanted, and what to do about it; it can be shown to the user as it is.
"""


class KosmosGError(ValueError):
    """A mistake in the input, the weights or the surroundings that the user can mend."""


class PromptError(KosmosGError):
    """The prompt cannot be used, alone or together with the images that came with it."""


class ImageError(KosmosGError):
    """An input image cannot be opened or is not usable as one."""


class SettingError(KosmosGError):
    """A number or choice (size, steps, scale, sampler, …) lies outside what the model takes."""


class WeightsError(KosmosGError):
    """A weights directory is missing, incomplete or damaged."""


class LoRAError(KosmosGError):
    """A LoRA file is damaged, of another kind, or for another base model."""


class ControlError(KosmosGError):
    """A ControlNet is missing or does not fit, or its map cannot be made."""


class CheckpointError(KosmosGError):
    """A checkpoint cannot be converted."""


class DownloadError(KosmosGError):
    """A file could not be fetched, or what came is not the file that was asked for."""


class OutOfMemoryError(KosmosGError):
    """The request does not fit into the memory of the device."""


class UnsafeImageError(KosmosGError):
    """The safety checker flagged every image of a request."""

    def __init__(self) -> None:
        super().__init__("The safety checker flagged every image. Try another seed or prompt.")


class DataError(KosmosGError):
    """The training data is missing, laid out wrongly, or too much of it is damaged."""


class TrainingError(KosmosGError):
    """A training run cannot start, go on or be resumed."""


class EvaluationError(KosmosGError):
    """An evaluation cannot start, go on or be summed up."""


class CurationError(KosmosGError):
    """Training data cannot be made from what was given, or where it was to be made."""
