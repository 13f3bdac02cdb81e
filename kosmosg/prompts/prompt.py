"""The prompt: text in which ``<i>`` stands for an input image.

Paper, section 2.1: text and images are one sequence. The marker is the exact three characters
``<i>``, found anywhere, also inside a word; ``<I>`` and ``< i >`` are ordinary text.
"""

from dataclasses import dataclass

from kosmosg.errors import PromptError

MARKER = "<i>"


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A prompt cut at its markers: between segment k and k + 1 stands image k.

    ``"a <i> on <i>"`` becomes ``("a ", " on ", "")``, which takes two images.
    """

    segments: tuple[str, ...]

    @property
    def image_count(self) -> int:
        """Number of images that the prompt speaks of."""
        return len(self.segments) - 1

    @property
    def text(self) -> str:
        """The prompt as it was typed."""
        return MARKER.join(self.segments)


def parse_prompt(text: str, image_count: int) -> Prompt:
    """Cut a prompt at its markers and check that every image has one.

    Args:
        text: What the user typed.
        image_count: Number of images that came with it.

    Raises:
        PromptError: If the prompt is no text, or the numbers of markers and images differ.
    """
    if not isinstance(text, str):
        raise PromptError(f"prompt must be text, not {type(text).__name__}.")
    _check_characters("prompt", text)
    prompt = Prompt(segments=tuple(text.split(MARKER)))
    if prompt.image_count != image_count:
        message = (
            f"The prompt has {_count(prompt.image_count, f'{MARKER} marker')}, but "
            f"{_count(image_count, 'input image')} came with it. Write {MARKER} once for each "
            "image, in the order of the images."
        )
        if image_count == 0:
            # A server drops inputs whose names it does not know, without a word.
            message += (
                " Images are taken from image1 to image4 and images (on the command line "
                "--image), and from no other name."
            )
        raise PromptError(message)
    return prompt


def parse_text(text: str) -> Prompt:
    """Take a text as it is, markers included: a negative prompt holds no images.

    Raises:
        PromptError: If it is no text.
    """
    if not isinstance(text, str):
        raise PromptError(f"negative_prompt must be text, not {type(text).__name__}.")
    _check_characters("negative_prompt", text)
    return Prompt(segments=(text,))


def _check_characters(name: str, text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise PromptError(
            f"{name} holds half a character (U+{ord(text[error.start]):04X}) at position "
            f"{error.start}. Type it again."
        ) from error


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
