"""Draw ``samples/techniques.png`` and the images that its requests begin with."""

import argparse
from pathlib import Path

from kosmosg import KosmosGPipeline
from miniature.evaluation.adapters import draw_layout, draw_mask, draw_street, draw_techniques
from miniature.evaluation.prompts import to_image
from miniature.world import World
from miniature.world.art import open_art


def main() -> None:
    """Write four images into a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True, help="the miniature")
    parser.add_argument("--lora", type=Path, required=True, help="LoRA for it")
    parser.add_argument("--output", type=Path, required=True, help="folder")
    parser.add_argument("--art", type=Path, help="folder of art; default: the public art")
    arguments = parser.parse_args()
    pipeline = KosmosGPipeline.from_pretrained(arguments.weights, device="cpu")
    world = World.open(open_art(arguments.art))
    street = draw_street(world)
    to_image(street.image).save(arguments.output / "dog.png")
    to_image(draw_layout(world, "left").image).save(arguments.output / "dog-left.png")
    draw_mask(street).save(arguments.output / "dog-mask.png")
    draw_techniques(world, pipeline, arguments.lora).save(arguments.output / "techniques.png")


if __name__ == "__main__":
    main()
