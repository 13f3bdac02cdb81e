"""DreamBench: thirty subjects in 25 prompts each (paper, section 4.2 and appendix A).

Of every subject one photograph is kept: the model gets it, and image scores compare with it. Text
scores compare with the original prompt in words, whatever the model was given.
"""

import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from jaxtyping import Float64
from PIL import Image

from kosmosg.diffusion.settings import MAX_SEED
from kosmosg.errors import EvaluationError
from kosmosg.evaluation.features import ClipExtractor, FeatureExtractor, extract
from kosmosg.evaluation.image_folder import ImageFolder, generate_missing
from kosmosg.evaluation.metrics import Finding, cosines, summarise
from kosmosg.evaluation.models import Generate
from kosmosg.evaluation.options import DREAMBENCH_IMAGES, DREAMBENCH_PROMPTS_PER_BATCH
from kosmosg.evaluation.protocol import EvaluationProtocol, ImageJob
from kosmosg.prompts.images import image_suffixes, open_image
from kosmosg.prompts.prompt import MARKER
from kosmosg.utils.contact_sheet import Card


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Whom images are to show.

    Attributes:
        name: Its folder in DreamBooth's set.
        set: ``objects`` or ``pets``, which have templates of their own.
        noun: What the original templates call it.
        photograph: The number of the photograph that is kept.
    """

    name: str
    set: str
    noun: str
    photograph: str


@dataclass(frozen=True, kw_only=True)
class Template:
    """What images are to show a subject doing.

    Attributes:
        text: DreamBooth's original, with ``{}`` for the subject.
        prompt: What the paper makes of it for KOSMOS-G (table 3).
        kind: What it asks for.
    """

    text: str
    prompt: str
    kind: str


@dataclass(frozen=True, kw_only=True)
class Wording:
    """How a model is asked.

    Attributes:
        images: By image and prompt; else in the words of the original template, for models
            that take nothing but words.
        noun: Name the subject before its image, "dog <i>", which the authors leave out.
    """

    images: bool = True
    noun: bool = False

    def prompt(self, template: Template, subject: Subject) -> str:
        """Write the prompt for a subject."""
        if not self.images:
            return template.text.format(subject.noun)
        return template.prompt.format(f"{subject.noun} {MARKER}" if self.noun else MARKER)


@dataclass(kw_only=True)
class DreamBench:
    """The evaluator.

    Attributes:
        jobs: The images to generate.
        photographs: The one of each subject, by name.
        folder: Where the images are.
        dino: DINO's features of images.
        clip: CLIP's, of images and texts.
        processes: Those of the run; all of them call the evaluator, and the main one gets results.
        batch: Images generated at once.
        per_image: The scores of every job's image, by name, once they are there.
    """

    jobs: Sequence[ImageJob]
    photographs: dict[str, Path]
    folder: ImageFolder
    dino: FeatureExtractor
    clip: ClipExtractor
    processes: PartialState
    batch: int = DREAMBENCH_PROMPTS_PER_BATCH * DREAMBENCH_IMAGES
    per_image: dict[str, Float64[np.ndarray, " images"]] = field(default_factory=dict, init=False)

    def __call__(self, generate: Generate) -> Iterator[Finding]:
        """Generate what is missing, and score all."""
        generate_missing(
            *(self.jobs, generate, self.folder), batch=self.batch, processes=self.processes
        )
        self.per_image = self._score()
        if self.processes.is_main_process:
            yield from summarise(self.per_image, self.jobs)

    def images(self) -> Iterator[dict[str, Any]]:
        """List every image with its scores, once they are there."""
        for number, job in enumerate(self.jobs):
            scores = {name: round(float(each[number]), 6) for name, each in self.per_image.items()}
            yield {**self.folder.describe(job), "text": job.text, **scores}

    def cards(self) -> Iterator[Card]:
        """Show the first image of every prompt, and the photograph at the first of a subject."""
        shown: set[str] = set()
        prompts: set[tuple[str, str]] = set()
        for job, described in zip(self.jobs, self.images(), strict=True):
            if (job.subject, job.text) in prompts:
                continue
            prompts.add((job.subject, job.text))
            photograph = self.photographs[job.subject]
            yield Card(
                group=job.subject,
                inputs=[open_image(photograph)] if job.subject not in shown else [],
                prompt=job.prompt,
                output=self.folder.read(job),
                scores={name: described[name] for name in self.per_image},
            )
            shown.add(job.subject)

    def _score(self) -> dict[str, Float64[np.ndarray, " images"]]:
        subjects = list(self.photographs)
        rows = torch.tensor([subjects.index(job.subject) for job in self.jobs])
        texts = list(dict.fromkeys(job.text for job in self.jobs))
        found: dict[str, Float64[np.ndarray, " images"]] = {}
        for name, extractor in (("DINO", self.dino), ("CLIP-I", self.clip)):
            generated = extract(len(self.jobs), self._generated, extractor, self.processes, name)
            kept = extract(len(subjects), self._kept, extractor, self.processes, "photographs")
            found[name] = cosines(generated, kept[rows])
            if extractor is self.clip:
                said = self.clip.texts(texts).cpu()[[texts.index(job.text) for job in self.jobs]]
                found["CLIP-T"] = cosines(generated, said)
        return found

    def _generated(self, number: int) -> Image.Image:
        return self.folder.read(self.jobs[number])

    def _kept(self, number: int) -> Image.Image:
        path = list(self.photographs.values())[number]
        return open_image(path, str(path))


def make_jobs(
    subjects: Sequence[Subject],
    photographs: dict[str, Path],
    protocol: EvaluationProtocol,
    *,
    wording: Wording | None = None,
    per_prompt: int = DREAMBENCH_IMAGES,
    seed: int = 0,
) -> list[ImageJob]:
    """List the images to generate, subject by subject.

    The seed of an image is that of the whole benchmark, also where some subjects are left out.

    Args:
        subjects: Of ``load_subjects``.
        photographs: The file of each, by name.
        protocol: Decides the seeds.
        wording: How the model is asked; as the paper does by default.
        per_prompt: Images of each prompt.
        seed: The first.

    Raises:
        EvaluationError: If the last seed would be too large.
    """
    wording, jobs = wording or Wording(), []
    places = {subject.name: place for place, subject in enumerate(load_subjects())}
    for subject in subjects:
        templates = load_templates(subject.set)
        for number, template in enumerate(templates):
            prompts_before = places[subject.name] * len(templates) + number
            for copy in range(per_prompt):
                # The authors' rows of a batch: the first image of every prompt, then the second.
                place = prompts_before % DREAMBENCH_PROMPTS_PER_BATCH
                place += copy * DREAMBENCH_PROMPTS_PER_BATCH
                job = ImageJob(
                    name=f"{subject.name}/{number:02d}-{copy}",
                    prompt=wording.prompt(template, subject),
                    images=(photographs[subject.name],) if wording.images else (),
                    seed=protocol.seed(
                        seed, number=prompts_before * per_prompt + copy, place=place
                    ),
                    text=template.text.format(subject.noun),
                    subject=subject.name,
                    kind=template.kind,
                )
                jobs.append(job)
    if (last := max(job.seed for job in jobs)) > MAX_SEED:
        raise EvaluationError(
            f"The last image's seed would be {last}, more than {MAX_SEED}. Lower --seed."
        )
    return jobs


def load_subjects(names: Sequence[str] = ()) -> list[Subject]:
    """Read the subjects.

    Args:
        names: Only these; all by default.

    Raises:
        EvaluationError: If there is no subject of a name.
    """
    subjects = [Subject(name=name, **entry) for name, entry in _data()["subjects"].items()]
    known = [subject.name for subject in subjects]
    if strangers := sorted(set(names) - set(known)):
        raise EvaluationError(
            f"DreamBench has no subject {', '.join(strangers)}. It has {', '.join(known)}."
        )
    return [subject for subject in subjects if not names or subject.name in names]


def load_templates(set_: str) -> list[Template]:
    """Read the 25 templates of ``objects`` or ``pets``, in their order."""
    return [
        Template(kind=group["kind"], **line)
        for group in _data()["templates"]
        for line in group["lines"]
        if set_ in group["sets"]
    ]


def find_photographs(folder: Path, subjects: Sequence[Subject]) -> dict[str, Path]:
    """Find the photograph that is kept of each subject.

    Args:
        folder: DreamBooth's ``dataset``, with a folder for each subject, or what that is in.
        subjects: Of ``load_subjects``.

    Raises:
        EvaluationError: Naming all that are missing.
        ImageError: If one cannot be read: that is better known before images are generated.
    """
    place = folder / "dataset" if (folder / "dataset").is_dir() else folder
    found, missing = {}, []
    for subject in subjects:
        stem = place / subject.name / subject.photograph
        files = [stem.with_suffix(suffix) for suffix in (".jpg", *sorted(image_suffixes()))]
        if kept := [file for file in files if file.is_file()]:
            found[subject.name] = kept[0]
        else:
            missing.append(f"{subject.name}/{subject.photograph}.jpg")
    if missing:
        raise EvaluationError(
            f"{folder} lacks {len(missing)} of {len(subjects)} photographs: "
            f"{', '.join(missing)}. It must be the folder 'dataset' of DreamBooth's repository "
            "(https://github.com/google/dreambooth)."
        )
    for path in found.values():
        open_image(path, str(path))
    return found


def _data() -> dict:
    return tomllib.loads(files("kosmosg.evaluation").joinpath("dreambench.toml").read_text("utf-8"))
