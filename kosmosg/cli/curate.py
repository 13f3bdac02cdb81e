"""``curate``: make training data, on any number of machines."""

import argparse
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kosmosg.errors import CurationError

if TYPE_CHECKING:
    from collections.abc import Generator

    from kosmosg.curation.engine import Job, Wishes
    from kosmosg.curation.output import Ledger
    from kosmosg.curation.pipelines import Recipe

FORMATS = ("PNG", "JPEG", "WEBP")
PER_SHARD = 256
# What the extra brings, by the modules that are imported.
NEEDED = {"ray": "ray[data]", "pyarrow": "ray[data]", "scipy": "scipy", "webdataset": "webdataset"}
RAY = NEEDED["ray"]


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the command's parser."""
    parser = commands.add_parser("curate", help="make training data")
    sets = parser.add_subparsers(title="data sets", required=True, metavar="SET")
    _add_openimages(sets)
    _add_instructpix2pix(sets)
    _add_captions(sets)


def _add_openimages(sets: argparse._SubParsersAction) -> None:
    parser = sets.add_parser("openimages", help="compositional samples of any pictures")
    parser.set_defaults(run=run, recipe=_openimages)
    _add_folders(parser, "folder of pictures or of shards of them")
    for name, value, what in (
        ("--captioner", "Salesforce/blip2-opt-6.7b", "BLIP-2"),
        ("--language-model", "Qwen/Qwen2.5-7B-Instruct", "any that follows instructions"),
        ("--segmenter", "CIDAS/clipseg-rd64-refined", "CLIPSeg"),
    ):
        parser.add_argument(
            name, default=value, metavar="DIR_OR_ID", help=f"{what}; default: %(default)s"
        )
    for name, value, what in (
        ("--caption-tokens", 20, "longest caption"),
        ("--entity-tokens", 32, "longest list of entities"),
        ("--min-side", 100, "smallest square in pixels"),
        ("--max-side", 1024, "larger squares are scaled down to it"),
        ("--side", 512, "of the pictures that are written"),
        ("--caption-batch", 32, "pictures captioned at once"),
        ("--entities-batch", 32, "captions read at once"),
        ("--masks-batch", 16, "pictures segmented at once"),
    ):
        parser.add_argument(
            name, type=int, default=value, metavar="N", help=f"{what}; default: {value}"
        )
    parser.add_argument(
        "--threshold", type=float, default=0.3, metavar="X", help="of a mask; default: 0.3"
    )
    _add_format(parser)
    _add_engine(parser, "read, caption, entities, masks, cut")


def _add_instructpix2pix(sets: argparse._SubParsersAction) -> None:
    parser = sets.add_parser("instructpix2pix", help="edits of the CLIP-filtered set")
    parser.set_defaults(run=run, recipe=_instructpix2pix)
    _add_folders(parser, "folder with seeds.json")
    parser.add_argument(
        "--side", type=int, default=512, metavar="N", help="shorter side; default: 512"
    )
    _add_format(parser)
    _add_engine(parser, "read")


def _add_captions(sets: argparse._SubParsersAction) -> None:
    parser = sets.add_parser("captions", help="captioned pictures that img2dataset wrote")
    parser.set_defaults(run=run, recipe=_captions)
    _add_folders(parser, "its output folder")
    parser.add_argument(
        "--tokenizer",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder with sentencepiece.bpe.model and dict.txt",
    )
    for name, value, what in (
        ("--min-side", 384, "shortest side in pixels"),
        ("--max-tokens", 128, "longest caption"),
    ):
        parser.add_argument(
            name, type=int, default=value, metavar="N", help=f"{what}; default: {value}"
        )
    _add_engine(parser, "read")


def _add_folders(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("source", type=Path, help=what)
    parser.add_argument("output", type=Path, help="folder of shards to write")
    parser.add_argument(
        "--per-shard",
        type=int,
        default=PER_SHARD,
        metavar="N",
        help=f"samples that are tried for a shard; default: {PER_SHARD}",
    )


def _add_format(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--image-format", choices=FORMATS, default="PNG", help="of the files; default: PNG"
    )


def _add_engine(parser: argparse.ArgumentParser, stages: str) -> None:
    group = parser.add_argument_group("engine")
    group.add_argument(
        "--address", metavar="HOST:PORT", help="a Ray cluster, or auto; default: this machine"
    )
    group.add_argument(
        "--cpus", type=int, metavar="N", help="of this machine, without --address; default: all"
    )
    group.add_argument(
        "--workers",
        action="append",
        default=[],
        metavar="STAGE=N[xGPUS]",
        help=f"workers of a stage, and GPUs of each, such as caption=5x1; stages: {stages}",
    )
    group.add_argument(
        "--in-process", action="store_true", help="one shard after the other, without Ray"
    )


def run(options: argparse.Namespace) -> None:
    """Make what is not there yet."""
    _require(options)
    from kosmosg.curation.output import Ledger
    from kosmosg.utils.checks import check_integer

    check_integer("--per-shard", options.per_shard, 1, 100_000)
    if options.cpus is not None:
        check_integer("--cpus", options.cpus, 1, 100_000)
    recipe: Recipe = options.recipe(options)
    wishes = _parse_workers(options.workers, [stage.name for stage in recipe.stages])
    ledger = Ledger(directory=options.output.resolve(), per_shard=options.per_shard)
    planned = len(recipe.source.listings)
    with ledger.held(recipe.settings):
        _make_missing(recipe, ledger, wishes, options)
        ledger.end()
        if missing := sorted(set(range(planned)) - ledger.finished()):
            raise CurationError(
                f"{len(missing)} of {planned} shards could not be made, such as number "
                f"{missing[0]}; the messages above say why. Run the command again to try them "
                "again."
            )


def _require(options: argparse.Namespace) -> None:
    """Say what is missing before anything is read."""
    missing = {
        package
        for module, package in NEEDED.items()
        if find_spec(module) is None and not (options.in_process and package == RAY)
    }
    if missing:
        raise CurationError(
            f"Curation needs {' and '.join(sorted(missing))}: pip install -e '.[curation]'."
        )


def _make_missing(
    recipe: "Recipe", ledger: "Ledger", wishes: "Wishes", options: argparse.Namespace
) -> None:
    """Make the shards that are not finished, and say of all of them what is in them."""
    from tqdm import tqdm

    from kosmosg.curation.engine import Job
    from kosmosg.curation.preview import write_report

    listings, finished = recipe.source.listings, ledger.finished()
    jobs = [
        Job(number=number, listing=listing)
        for number, listing in enumerate(listings)
        if number not in finished
    ]
    try:
        with (
            closing(_make(jobs, recipe, ledger, wishes, options)) as numbers,
            tqdm(desc="curate", unit="shard", total=len(listings), initial=len(finished)) as bar,
        ):
            for _ in numbers:
                bar.update()
    finally:
        print(write_report(ledger, recipe.settings, len(listings)), end="")


def _make(
    jobs: "list[Job]",
    recipe: "Recipe",
    ledger: "Ledger",
    wishes: "Wishes",
    options: argparse.Namespace,
) -> "Generator[int]":
    from kosmosg.curation.engine import connected, run_here, run_on_ray, share_out

    if not jobs:
        return
    if options.in_process:
        yield from run_here(jobs, recipe.stages, ledger)
        return
    with connected(options.address, options.cpus) as has:
        workers = share_out(recipe.stages, has.get("CPU", 1.0), has.get("GPU", 0.0), wishes)
        yield from run_on_ray(jobs, recipe.stages, ledger, workers)


def _parse_workers(texts: list[str], stages: list[str]) -> "Wishes":
    """Read ``caption=5x1``: five workers with a GPU each."""
    wishes: dict[str, tuple[int | None, float | None]] = {}
    for text in texts:
        stage, _, rest = text.partition("=")
        count, times, gpus = rest.partition("x")
        try:
            wishes[stage] = (int(count), float(gpus) if times else None)
        except ValueError:
            wishes[stage] = (0, None)
        if stage not in stages or not _possible(*wishes[stage]):
            raise CurationError(
                f"--workers {text}: wanted STAGE=N or STAGE=NxGPUS, such as {stages[0]}=2, with "
                f"one of {', '.join(stages)}, at least one worker, and GPUs up to 1 or whole."
            )
    return wishes


def _possible(count: int | None, gpus: float | None) -> bool:
    """Tell whether there can be so many workers: Ray divides one GPU, but not several."""
    return bool(count and count > 0) and (gpus is None or 0 <= gpus <= 1 or gpus in range(2, 65))


def _openimages(options: argparse.Namespace) -> "Recipe":
    from kosmosg.curation.pipelines import Batches, Compositional, make_openimages

    return make_openimages(
        options.source,
        _fill(Compositional, options),
        per_shard=options.per_shard,
        batches=Batches(
            caption=options.caption_batch,
            entities=options.entities_batch,
            masks=options.masks_batch,
        ),
    )


def _instructpix2pix(options: argparse.Namespace) -> "Recipe":
    from kosmosg.curation.pipelines import make_instructpix2pix

    return make_instructpix2pix(
        options.source,
        per_shard=options.per_shard,
        side=options.side,
        image_format=options.image_format,
    )


def _captions(options: argparse.Namespace) -> "Recipe":
    from kosmosg.curation.pipelines import make_captions

    return make_captions(
        options.source,
        options.tokenizer,
        per_shard=options.per_shard,
        min_side=options.min_side,
        max_tokens=options.max_tokens,
    )


def _fill(kind: Any, options: argparse.Namespace) -> Any:
    from dataclasses import fields

    return kind(**{field.name: getattr(options, field.name) for field in fields(kind)})
