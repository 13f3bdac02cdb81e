"""``train clip``, ``vae``, ``decoder``, ``probe``: what a model from nothing needs beforehand."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from kosmosg.cli.train_options import add_data, add_loop, data_options, loop_options

if TYPE_CHECKING:
    from miniature.pretraining.sizes import NetworkSizes


def add_parsers(stages: argparse._SubParsersAction) -> None:
    """Add the stages' parsers."""
    for add in (_add_clip, _add_vae, _add_decoder, _add_probe):
        add(stages)


def _add_clip(stages: argparse._SubParsersAction) -> None:
    parser = stages.add_parser("clip", help="CLIP, on captioned pictures")
    parser.set_defaults(train=_train_clip)
    _add_config(parser)
    parser.add_argument(
        "--tokenizer", type=Path, required=True, metavar="DIR", help="CLIP's tokenizer"
    )
    add_data(parser)
    add_loop(parser)


def _train_clip(options: argparse.Namespace) -> Path:
    from miniature.pretraining.parts import train_clip

    sizes = _read_sizes(options, "clip")
    return train_clip(sizes, options.tokenizer, data_options(options), loop_options(options))


def _add_vae(stages: argparse._SubParsersAction) -> None:
    parser = stages.add_parser("vae", help="the decoder's VAE, on pictures")
    parser.set_defaults(train=_train_vae)
    _add_config(parser)
    parser.add_argument(
        "--vae",
        type=Path,
        metavar="DIR",
        help="result of train vae, of these sizes, whose decoding half alone to train further",
    )
    parser.add_argument(
        "--clip", type=Path, metavar="DIR", help="result of train clip, to compare with"
    )
    add_data(parser)
    add_loop(parser)


def _train_vae(options: argparse.Namespace) -> Path:
    from miniature.pretraining.parts import train_vae

    return train_vae(
        _read_sizes(options, "vae"),
        data_options(options),
        loop_options(options),
        vae=options.vae,
        clip=options.clip,
    )


def _add_decoder(stages: argparse._SubParsersAction) -> None:
    parser = stages.add_parser("decoder", help="the decoder's U-Net, on captioned pictures")
    parser.set_defaults(train=_train_decoder)
    _add_config(parser)
    parser.add_argument(
        "--clip", type=Path, required=True, metavar="DIR", help="result of train clip"
    )
    parser.add_argument(
        "--vae", type=Path, required=True, metavar="DIR", help="result of train vae"
    )
    parser.add_argument(
        "--snr-gamma",
        type=float,
        metavar="X",
        help="let timesteps with a higher signal-to-noise ratio count less; 5 is usual",
    )
    add_data(parser, threads=False)  # pictures are encoded once, one after the other
    add_loop(parser)


def _train_decoder(options: argparse.Namespace) -> Path:
    from miniature.pretraining.parts import train_decoder

    return train_decoder(
        _read_sizes(options, "unet"),
        options.clip,
        options.vae,
        data_options(options),
        loop_options(options),
        snr_gamma=options.snr_gamma,
    )


def _add_probe(stages: argparse._SubParsersAction) -> None:
    parser = stages.add_parser("probe", help="the classifier that scores the miniature's pictures")
    parser.set_defaults(train=_train_probe)
    add_loop(parser)


def _train_probe(options: argparse.Namespace) -> Path:
    from miniature.pretraining.parts import train_probe

    return train_probe(loop_options(options))


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", type=Path, required=True, metavar="FILE", help="JSON with the sizes"
    )


def _read_sizes(options: argparse.Namespace, part: str) -> "NetworkSizes":
    from miniature.pretraining.sizes import NetworkSizes

    return NetworkSizes.read(options.config, part)
