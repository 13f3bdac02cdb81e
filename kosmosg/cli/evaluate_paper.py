"""``evaluate dreambench`` and ``evaluate coco``: the numbers of the paper (section 4.2)."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kosmosg.diffusion.settings import MAX_SEED, SAMPLER_NAMES
from kosmosg.errors import SettingError
from kosmosg.evaluation import options as published_options
from kosmosg.models.config import DTYPES

if TYPE_CHECKING:
    from accelerate import PartialState

    from kosmosg.evaluation.run import ImageSettings


def add_parsers(evaluations: argparse._SubParsersAction) -> None:
    """Add the parsers of both."""
    _add_dreambench(evaluations)
    _add_coco(evaluations)


def _add_dreambench(evaluations: argparse._SubParsersAction) -> None:
    parser = evaluations.add_parser("dreambench", help="30 subjects in 25 prompts each")
    parser.set_defaults(run=run_dreambench)
    parser.add_argument(
        "--subjects", type=Path, required=True, metavar="DIR", help="DreamBooth's folder 'dataset'"
    )
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME", help="this subject; repeatable"
    )
    parser.add_argument(
        "--name-nouns", action="store_true", help='write "dog <i>" where the paper writes "<i>"'
    )
    parser.add_argument(
        "--per-prompt",
        type=int,
        default=published_options.DREAMBENCH_PICTURES,
        metavar="N",
        help=f"pictures of each prompt; default: {published_options.DREAMBENCH_PICTURES}",
    )
    for name, what, source in (
        ("--dino", "DINO's ViT-S/16", published_options.DINO_REPOSITORY),
        ("--clip", "CLIP's ViT-B/32", published_options.CLIP_REPOSITORY),
    ):
        parser.add_argument(
            name, default=source, metavar="DIR_OR_ID", help=f"{what}; default: {source}"
        )
    _add_drawing(
        parser,
        steps=published_options.DREAMBENCH_STEPS,
        guidance_scale=published_options.DREAMBENCH_GUIDANCE,
        scheduler=published_options.DREAMBENCH_SAMPLER,
        seed=0,
        dino=published_options.DINO_REPOSITORY,
        clip=published_options.CLIP_REPOSITORY,
        batch=published_options.DREAMBENCH_PROMPTS_PER_BATCH
        * published_options.DREAMBENCH_PICTURES,
        per_prompt=published_options.DREAMBENCH_PICTURES,
    )


def _add_coco(evaluations: argparse._SubParsersAction) -> None:
    parser = evaluations.add_parser("coco", help="FID of 30 000 captions")
    parser.set_defaults(run=run_coco)
    parser.add_argument(
        "--captions", type=Path, required=True, metavar="FILE", help="captions_val2014.json"
    )
    parser.add_argument(
        "--photographs", type=Path, required=True, metavar="DIR", help="val2014, all of it"
    )
    parser.add_argument(
        "--features",
        required=True,
        metavar="FILE_OR_DIR",
        help="weights of FID's Inception, .pth or .safetensors; or the folder or Hub id of a ViT, "
        "for a distance in its space",
    )
    parser.add_argument(
        "--count",
        type=int,
        default=published_options.COCO_CAPTIONS,
        metavar="N",
        help=f"captions; default: {published_options.COCO_CAPTIONS}",
    )
    _add_drawing(
        parser,
        steps=published_options.COCO_STEPS,
        guidance_scale=published_options.COCO_GUIDANCE,
        scheduler=published_options.COCO_SAMPLER,
        seed=0,
        photographs=published_options.COCO_PHOTOGRAPHS,
        batch=published_options.COCO_BATCH,
        count=published_options.COCO_CAPTIONS,
    )


def _add_drawing(parser: argparse.ArgumentParser, *, batch: int, **published: Any) -> None:
    """Add what both have: the model, how it draws, where pictures and results go."""
    parser.set_defaults(published=published)
    _add_model(parser)
    for name, default, what in (
        ("--steps", published["steps"], "denoising steps"),
        ("--batch", batch, "pictures drawn at once"),
        ("--seed", 0, "the first"),
    ):
        parser.add_argument(
            name, type=int, default=default, metavar="N", help=f"{what}; default: {default}"
        )
    parser.add_argument(
        "--guidance-scale",
        type=float,
        default=published["guidance_scale"],
        metavar="X",
        help=f"strength of the guidance; default: {published['guidance_scale']:g}",
    )
    parser.add_argument(
        "--scheduler",
        default=published["scheduler"],
        choices=SAMPLER_NAMES,
        metavar="NAME",
        help=f"{', '.join(SAMPLER_NAMES)}; default: {published['scheduler']}",
    )
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="DIR",
        help="where pictures and results go; one that was stopped is completed",
    )


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--weights", metavar="DIR", help="of KOSMOS-G; default: KOSMOSG_WEIGHTS or weights/kosmos-g"
    )
    parser.add_argument(
        "--pipeline",
        metavar="DIR_OR_ID",
        help="a text-to-image pipeline of diffusers in KOSMOS-G's place, such as Stable Diffusion",
    )
    parser.add_argument(
        "--protocol",
        choices=published_options.PROTOCOL_NAMES,
        default=published_options.PROTOCOL_NAMES[0],
        help=f"conventions; default: {published_options.PROTOCOL_NAMES[0]}",
    )
    parser.add_argument("--device", help="default: cuda if there is one, else cpu")
    parser.add_argument("--dtype", choices=DTYPES, help="default: float16 on cuda, else float32")


def run_dreambench(options: argparse.Namespace) -> None:
    """Draw and score DreamBench."""
    from kosmosg.evaluation import dreambench
    from kosmosg.evaluation.features import ClipExtractor, DinoExtractor
    from kosmosg.evaluation.image_folder import lock_run
    from kosmosg.evaluation.metrics import check_libraries
    from kosmosg.evaluation.protocol import PROTOCOLS
    from kosmosg.evaluation.report import departures, dreambench_conventions, stand_in
    from kosmosg.evaluation.run import identify, measure
    from kosmosg.utils.checks import check_integer
    from kosmosg.utils.fingerprint import fingerprint, fingerprint_of

    check_integer("--per-prompt", options.per_prompt, 1, 1000)
    check_libraries()
    processes, settings = _prepare(options)
    subjects = dreambench.load_subjects(options.only)
    photographs = dreambench.find_photographs(options.subjects, subjects)
    wording = dreambench.Wording(images=not options.pipeline, noun=options.name_nouns)
    protocol = PROTOCOLS[options.protocol]
    jobs = dreambench.make_jobs(
        *(subjects, photographs, protocol),
        wording=wording,
        per_prompt=options.per_prompt,
        seed=options.seed,
    )
    settings.model.check_prompts(jobs)
    contents = fingerprint_of([fingerprint(path) for path in photographs.values()])
    found = {"subjects": len(subjects), "per_prompt": options.per_prompt}
    published = {"subjects": len(dreambench.load_subjects()), **options.published}
    with lock_run(options.output, processes):
        evaluator = dreambench.DreamBench(
            jobs=jobs,
            photographs=photographs,
            folder=settings.open_folder(options.output, jobs, processes, photographs=contents),
            dino=DinoExtractor(options.dino, settings.device),
            clip=ClipExtractor(options.clip, settings.device),
            processes=processes,
            batch=options.batch,
        )
        table = measure(
            *(evaluator, settings, processes),
            evaluation="dreambench",
            scoring={**found, "dino": identify(options.dino), "clip": identify(options.clip)},
            conventions=[
                *dreambench_conventions(protocol, wording, options.seed, options.per_prompt),
                *stand_in(bool(options.pipeline)),
                *departures({**vars(options), **found}, published),
            ],
        )
    print(table or "", end="")


def run_coco(options: argparse.Namespace) -> None:
    """Draw COCO's captions and measure their distance."""
    from kosmosg.evaluation import coco
    from kosmosg.evaluation.features import InceptionExtractor, distance_extractor
    from kosmosg.evaluation.image_folder import lock_run
    from kosmosg.evaluation.metrics import check_libraries
    from kosmosg.evaluation.protocol import PROTOCOLS
    from kosmosg.evaluation.report import coco_conventions, departures, stand_in
    from kosmosg.evaluation.run import identify, measure
    from kosmosg.utils.checks import check_integer

    check_integer("--count", options.count, 2, 10_000_000)
    check_libraries()
    processes, settings = _prepare(options)
    protocol = PROTOCOLS[options.protocol]
    captions, names = coco.read_captions(options.captions)
    jobs = coco.make_jobs(captions, protocol, count=options.count, seed=options.seed)
    settings.model.check_prompts(jobs)
    photographs = coco.find_photographs(options.photographs, names)
    extractor = distance_extractor(
        options.features, settings.device, old_resizing=protocol.old_resizing
    )
    inception = isinstance(extractor, InceptionExtractor)
    found = {"count": len(jobs), "photographs": len(photographs)}
    with lock_run(options.output, processes):
        evaluator = coco.Coco(
            jobs=jobs,
            photographs=photographs,
            folder=settings.open_folder(options.output, jobs, processes),
            extractor=extractor,
            protocol=protocol,
            processes=processes,
            name="FID" if inception else "Fréchet distance",
            batch=options.batch,
        )
        table = measure(
            *(evaluator, settings, processes),
            evaluation="coco",
            scoring={**found, "features": identify(options.features)},
            conventions=[
                *coco_conventions(protocol, options.seed, inception=inception),
                *stand_in(bool(options.pipeline)),
                *departures({**vars(options), **found}, options.published),
            ],
        )
    print(table or "", end="")


def _prepare(options: argparse.Namespace) -> tuple["PartialState", "ImageSettings"]:
    """Check the common options, find processes and device, and say what draws and how."""
    import torch

    from kosmosg.checkpoints.folder import find_weights
    from kosmosg.evaluation.models import Sampling
    from kosmosg.evaluation.run import ImageSettings, ModelSource
    from kosmosg.pipeline import choose_device
    from kosmosg.utils.checks import check_integer, check_number
    from kosmosg.utils.processes import find_processes

    if options.weights and options.pipeline:
        raise SettingError("Give --weights or --pipeline, not both: one model draws.")
    check_integer("--steps", options.steps, 1, 999)
    check_integer("--batch", options.batch, 1, 10_000)
    check_integer("--seed", options.seed, 0, MAX_SEED)
    check_number("--guidance-scale", options.guidance_scale, 1, 1000)
    named = choose_device(options.device) if options.device else None
    processes = find_processes(cpu=named is not None and named.type == "cpu")
    device: Any = processes.device  # of several processes each has one of its own
    if named is not None and processes.num_processes == 1:
        device = named
    dtype = options.dtype or ("float16" if device.type == "cuda" else "float32")
    model = ModelSource(
        source=options.pipeline or find_weights(options.weights), diffusers=bool(options.pipeline)
    )
    if options.output.resolve().is_relative_to(Path(model.source).resolve()):
        raise SettingError(
            f"--output {options.output} lies in the model's own folder, which would be another one "
            "with every picture. Name a folder elsewhere."
        )
    settings = ImageSettings(
        model=model,
        sampling=Sampling(
            steps=options.steps,
            guidance_scale=options.guidance_scale,
            scheduler=options.scheduler,
        ),
        protocol=options.protocol,
        seed=options.seed,
        batch=options.batch,
        device=device,
        dtype=getattr(torch, dtype),
    )
    return processes, settings
