"""Draw ``samples/techniques.png`` and the images that its requests begin with."""

import argparse
from pathlib import Path

from kosmosg import KosmosGPipeline
from miniature.evaluation.adapters import draw_layout, draw_mask, draw_street, draw_techniques
from miniature.evaluation.prompts import to_image


def main() -> None:
    """Write four images into a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True, help="the miniature")
    parser.add_argument("--lora", type=Path, required=True, help="LoRA for it")
    parser.add_argument("--output", type=Path, required=True, help="folder")
    arguments = parser.parse_args()
    pipeline = KosmosGPipeline.from_pretrained(arguments.weights, device="cpu")
    street = draw_street()
    to_image(street.image).save(arguments.output / "red-cat.png")
    to_image(draw_layout("left").image).save(arguments.output / "red-cat-left.png")
    draw_mask(street).save(arguments.output / "red-cat-mask.png")
    draw_techniques(pipeline, arguments.lora).save(arguments.output / "techniques.png")


if __name__ == "__main__":
    main()
