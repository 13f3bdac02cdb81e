"""``train lora``, ``controlnet``: what Stable Diffusion's decoder is used with."""

import argparse
from pathlib import Path

from kosmosg.cli.train_options import add_data, add_loop, data_options, loop_options


def add_parsers(stages: argparse._SubParsersAction) -> None:
    """Add the stages' parsers."""
    lora = stages.add_parser("lora", help="a LoRA of a decoder, on captioned pictures")
    lora.set_defaults(train=_train_lora)
    lora.add_argument("--rank", type=int, default=4, metavar="N", help="default: 4")
    controlnet = stages.add_parser("controlnet", help="a ControlNet of a decoder, likewise")
    controlnet.set_defaults(train=_train_controlnet)
    controlnet.add_argument(
        "--kind", default="canny", metavar="KIND", help="of its maps; default: canny"
    )
    for parser in (lora, controlnet):
        parser.add_argument(
            "--decoder",
            type=Path,
            required=True,
            metavar="DIR",
            help="folder of a Stable Diffusion v1.5, or weights with its text encoder",
        )
        add_data(parser, threads=False)  # pictures are encoded once, one after the other
        add_loop(parser)


def _train_lora(options: argparse.Namespace) -> Path:
    from miniature.pretraining.adapter_parts import train_lora

    data, loop = data_options(options), loop_options(options)
    return train_lora(options.decoder, data, loop, rank=options.rank)


def _train_controlnet(options: argparse.Namespace) -> Path:
    from miniature.pretraining.adapter_parts import train_controlnet

    data, loop = data_options(options), loop_options(options)
    return train_controlnet(options.decoder, data, loop, kind=options.kind)
