"""What happens when an example is chosen: everything is filled in."""

from pathlib import Path
from typing import Any

from kosmosg.demo import form, mask
from kosmosg.demo.layout import Page
from kosmosg.demo.prompt_events import AT_ONCE, edited, edits


def connect_examples(page: Page) -> None:
    """Connect the examples."""
    others = [part for name, part in page.inputs.items() if name != "prompt"]
    outputs = [*edits(page), *others, page.init]
    for button, inputs in zip(page.examples, page.filled, strict=True):
        button.click(_fill(page, inputs), None, outputs, **AT_ONCE)


def _fill(page: Page, inputs: dict[str, Any]) -> Any:
    """Make what fills in all inputs."""

    def fill() -> list[Any]:
        images = [image for _, image in form.list_images(inputs)]
        values = form.settings(inputs)
        parts = [
            str(value) if isinstance(value, Path) else value
            for value in (values[name] for name in page.inputs if name != "prompt")
        ]
        image, white = values["init_image"], values["init_mask"]
        painted = mask.join(image, white) if image else None
        return [*edited(values["prompt"], images, -1), *parts, painted]

    return fill
