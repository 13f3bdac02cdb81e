"""``data`` and ``vocabulary``: what a small KOSMOS-G is trained on, from a drawn world."""

import argparse
from pathlib import Path


def add_parsers(commands: argparse._SubParsersAction) -> None:
    """Add a parser for each thing to write."""
    data = commands.add_parser("data", help="write training data as WebDataset shards")
    data.set_defaults(run=write_data)
    data.add_argument("directory", type=Path, help="where to; a stopped run is continued")
    data.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")
    data.add_argument(
        "--scale", type=float, default=1.0, metavar="X", help="share of the samples; default: 1"
    )
    data.add_argument("--processes", type=int, default=2, metavar="N", help="default: 2")
    vocabulary = commands.add_parser(
        "vocabulary", help="write the tokenizers of the language model and CLIP"
    )
    vocabulary.set_defaults(run=write_vocabulary)
    vocabulary.add_argument(
        "directory", type=Path, help="where to write the folders tokenizer and clip_tokenizer"
    )


def write_data(options: argparse.Namespace) -> None:
    """Write the data set."""
    from tqdm import tqdm

    from miniature.world.dataset import write_dataset

    with tqdm(desc="draw", unit="sample") as bar:

        def progress(done: int, total: int) -> None:
            if bar.total is None:
                bar.initial = done  # written by an earlier run, so no part of the speed
            bar.total, bar.n = total, done
            bar.refresh()

        write_dataset(
            options.directory,
            seed=options.seed,
            scale=options.scale,
            processes=options.processes,
            progress=progress,
        )
    print(options.directory)


def write_vocabulary(options: argparse.Namespace) -> None:
    """Write both tokenizers."""
    from miniature.world.vocabulary import write_clip_tokenizer, write_tokenizer

    folders = (options.directory / "tokenizer", options.directory / "clip_tokenizer")
    for folder, write in zip(folders, (write_tokenizer, write_clip_tokenizer), strict=True):
        print(f"{folder}: {len(write(folder))} tokens")
