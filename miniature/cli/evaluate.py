"""``evaluate``: the paper's tables in a drawn world."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kosmosg.diffusion.settings import MAX_SEED
from kosmosg.errors import SettingError

if TYPE_CHECKING:
    from kosmosg.evaluation.models import Generate, Sampling
    from miniature.evaluation.tables import RowResult

PROMPTS, STEPS, GUIDANCE, BATCH = 200, 30, 5.0, 25


def add_parser(evaluations: argparse._SubParsersAction) -> None:
    """Add the command's parser."""
    parser = evaluations.add_parser("evaluate", help="fill the paper's tables")
    parser.set_defaults(run=run)
    parser.add_argument("--weights", metavar="DIR", help="final weights; default: as for generate")
    parser.add_argument(
        "--after-align", type=Path, metavar="DIR", help="weights after stage 2, for their rows"
    )
    parser.add_argument(
        "--end-to-end", type=Path, metavar="DIR", help="weights trained without stage 2"
    )
    parser.add_argument(
        "--probe", type=Path, metavar="DIR", help="what reads pictures; default: probe in weights"
    )
    for name, kind, value, what in (
        ("--prompts", int, PROMPTS, "prompts per row"),
        ("--steps", int, STEPS, "denoising steps"),
        ("--guidance-scale", float, GUIDANCE, "strength of the guidance"),
        ("--seed", int, 0, f"of prompts and pictures, 0 to {MAX_SEED}"),
        ("--batch", int, BATCH, "pictures drawn at once"),
    ):
        letter = "X" if kind is float else "N"
        parser.add_argument(
            name, type=kind, default=value, metavar=letter, help=f"{what}; default: {value:g}"
        )
    parser.add_argument("--device", help="default: cuda if there is one, else cpu")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="where results, table and sheets go"
    )
    parser.add_argument(
        "--sheet", type=Path, metavar="FILE", help="draw examples of each skill as one picture"
    )


def run(options: argparse.Namespace) -> None:
    """Fill the table, draw the examples, or both."""
    from kosmosg.checkpoints.folder import find_weights
    from kosmosg.evaluation.models import Sampling

    _check(options)
    options.weights = find_weights(options.weights)
    for directory in (options.after_align, options.end_to_end):
        if directory:
            find_weights(directory)
    sampling = Sampling(steps=options.steps, guidance_scale=options.guidance_scale)
    if options.output:
        _measure(options, sampling)
    if options.sheet:
        _draw_skills(options, sampling)


def _check(options: argparse.Namespace) -> None:
    from kosmosg.serving.metadata import check_format
    from kosmosg.utils.checks import check_integer, check_number

    if not options.output and not options.sheet:
        raise SettingError("Nothing to do: name --output for the table, --sheet, or both.")
    check_integer("--prompts", options.prompts, 1, 100_000)
    check_integer("--batch", options.batch, 1, 10_000)
    check_integer("--steps", options.steps, 1, 999)
    check_integer("--seed", options.seed, 0, MAX_SEED - options.prompts)
    check_number("--guidance-scale", options.guidance_scale, 1, 1000)
    if options.sheet:
        check_format(options.sheet)


def _measure(options: argparse.Namespace, sampling: "Sampling") -> None:
    from tqdm import tqdm

    from kosmosg.pipeline import choose_device
    from miniature.evaluation.probe import Probe
    from miniature.evaluation.report import write_report
    from miniature.evaluation.tables import FIRST_ROW, RATIO, ROWS, RowEvaluator

    device = choose_device(options.device)
    probe = Probe.from_pretrained(options.probe or options.weights / "probe").to(device)
    results: dict[str, RowResult] = {}
    left_out: dict[str, str] = {}
    models: dict[str, Generate | str] = {}
    for row in ROWS:
        if row.model not in models:
            models[row.model] = _open(row.model, options, sampling)
        generate = models[row.model]
        if isinstance(generate, str):
            left_out[row.key] = generate
            continue
        compared = results.get(FIRST_ROW) if RATIO in row.shown else None
        with tqdm(desc=row.key, unit="picture", total=options.prompts) as bar:

            def progress(done: int, total: int, bar: tqdm = bar) -> None:
                bar.update(done - bar.n)

            evaluator = RowEvaluator(
                row=row,
                read=probe.read,
                prompts=options.prompts,
                seed=options.seed,
                batch=options.batch,
                compared=compared,
                progress=progress,
            )
            results[row.key] = evaluator.measure(generate)
    settings = _settings(options, sampling, str(device))
    print(write_report([*results.values()], left_out, settings, options.output), end="")


def _draw_skills(options: argparse.Namespace, sampling: "Sampling") -> None:
    from miniature.evaluation.skills import draw_skills
    from miniature.evaluation.tables import FINAL

    generate: Any = _open(FINAL, options, sampling)
    options.sheet.parent.mkdir(parents=True, exist_ok=True)
    draw_skills(generate, seed=options.seed).save(options.sheet)
    print(options.sheet)


def _open(model: str, options: argparse.Namespace, sampling: "Sampling") -> "Generate | str":
    """Open a model, or say why it is not there."""
    import torch

    from kosmosg.evaluation.models import clip_generator, kosmosg_generator
    from kosmosg.pipeline import KosmosGPipeline, choose_device
    from miniature.evaluation.tables import AFTER_ALIGN, CLIP, END_TO_END

    device = choose_device(options.device)
    if model == CLIP:
        parts = [options.weights / name for name in ("text_encoder", "clip_tokenizer")]
        if missing := [part.name for part in parts if not part.is_dir()]:
            return f"{options.weights} has no {' and no '.join(missing)}"
        dtype = torch.float16 if device.type == "cuda" else torch.float32
        return clip_generator(options.weights, sampling, device=device, dtype=dtype)
    directory = options.weights
    if model == AFTER_ALIGN:
        directory = options.after_align
    elif model == END_TO_END:
        directory = options.end_to_end
    if directory is None:
        return f"no weights given by --{'after-align' if model == AFTER_ALIGN else 'end-to-end'}"
    return kosmosg_generator(KosmosGPipeline.from_pretrained(directory, device=device), sampling)


def _settings(options: argparse.Namespace, sampling: "Sampling", device: str) -> dict[str, Any]:
    """List what decides the numbers, to be written beside them."""
    weights = {
        name: str(value)
        for name in ("weights", "after_align", "end_to_end", "probe")
        if (value := getattr(options, name))
    }
    return {
        "prompts": options.prompts,
        "steps": sampling.steps,
        "guidance_scale": sampling.guidance_scale,
        "scheduler": sampling.scheduler,
        "seed": options.seed,
        "batch": options.batch,
        "device": device,
        **weights,
    }
