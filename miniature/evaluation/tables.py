"""The paper's tables in miniature, over what stages 2 and 3 never saw (sections 4.2 and 4.3)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from PIL import Image

from kosmosg.evaluation.metrics import Estimate, bootstrap_ratio
from kosmosg.evaluation.models import Generate
from miniature.evaluation.probe_labels import Reading
from miniature.evaluation.prompts import (
    Case,
    CaseMaker,
    caption_case,
    change_case,
    make_cases,
    other_image_case,
    scene_case,
    two_case,
    unseen_case,
)
from miniature.evaluation.scoring import (
    Score,
    Scores,
    is_right,
    score_caption,
    score_change,
    score_noun,
    score_scene,
    score_two,
    summarise,
)
from miniature.world import World

Read = Callable[[Sequence[Image.Image]], list[Reading]]
Progress = Callable[[int, int], None]  # images done, images in all

CLIP, AFTER_ALIGN, END_TO_END, FINAL = "CLIP", "after stage 2", "end-to-end", "final"
MODELS = (CLIP, AFTER_ALIGN, END_TO_END, FINAL)
FIRST_ROW = "text-clip"  # which the ratio compares with
RATIO = "attributes, compared with CLIP"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table.

    Attributes:
        key: Short name, also of its files.
        title: What is done.
        mirrors: Its counterpart in the paper.
        model: Of ``MODELS``, whose images are measured.
        make: Makes a case.
        score: Scores a case's image.
        verdict: The score that decides whether an image is right as a whole.
        shown: The scores in the table; all others are in the results only.
        asked: The least value of a score, where one is asked for; of those in the table.
    """

    key: str
    title: str
    mirrors: str
    model: str
    make: CaseMaker
    score: Score
    verdict: str
    shown: tuple[str, ...]
    asked: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert self.asked.keys() <= set(self.shown), f"{self.key}: asked for what is not shown"


@dataclass(frozen=True, kw_only=True)
class RowResult:
    """What came out.

    Attributes:
        row: The question.
        cases: What was asked for, prompt by prompt.
        images: What was drawn.
        scores: What was right in it.
        estimates: Shares over all prompts, by name.
        ceiling: The same for the world's own drawings of what was asked for: more than this the
            probe cannot find.
    """

    row: Row
    cases: list[Case]
    images: list[Image.Image]
    scores: list[Scores]
    estimates: dict[str, Estimate]
    ceiling: dict[str, Estimate]

    @property
    def verdicts(self) -> list[bool]:
        """Which images are right as a whole."""
        return [is_right(scores[self.row.verdict]) for scores in self.scores]


ROWS = (
    Row(
        key=FIRST_ROW,
        title="text → image, frozen decoder with its own CLIP",
        mirrors="SD v1.5",
        model=CLIP,
        make=caption_case,
        score=score_caption,
        verdict="all",
        shown=("attributes", "both entities", "all"),
        asked={"attributes": 0.95, "both entities": 0.8},
    ),
    Row(
        key="text-aligned",
        title="text → image, KOSMOS-G",
        mirrors="Table 2, AlignerNet",
        model=AFTER_ALIGN,
        make=caption_case,
        score=score_caption,
        verdict="all",
        shown=("attributes", "all", RATIO),
        asked={RATIO: 0.97},
    ),
    Row(
        key="text-end-to-end",
        title="text → image, KOSMOS-G without CLIP supervision",
        mirrors='Table 2, "failed"',
        model=END_TO_END,
        make=caption_case,
        score=score_caption,
        verdict="all",
        shown=("attributes", "all", RATIO),
    ),
    Row(
        key="scene-aligned",
        title="`<i>` in a new scene",
        mirrors="Figure 6",
        model=AFTER_ALIGN,
        make=scene_case,
        score=score_scene,
        verdict="entity and scene",
        shown=("scene", "entity"),
    ),
    Row(
        key="scene",
        title="`<i>` in a new scene",
        mirrors="Table 1",
        model=FINAL,
        make=scene_case,
        score=score_scene,
        verdict="entity and scene",
        shown=("scene", "entity"),
        asked={"scene": 0.95, "entity": 0.9},
    ),
    Row(
        key="other-image",
        title="the same entity in another image of it",
        mirrors="identity",
        model=FINAL,
        make=other_image_case,
        score=score_scene,
        verdict="entity and scene",
        shown=("scene", "entity"),
        asked={"entity": 0.9},
    ),
    Row(
        key="unseen",
        title="`<i>` from art that no training has seen",
        mirrors="any image",
        model=FINAL,
        make=unseen_case,
        score=score_noun,
        verdict="noun",
        shown=("scene", "noun"),
        asked={"noun": 0.7},
    ),
    Row(
        key="two",
        title="`<i>` and `<i>`, two entities",
        mirrors="multi-entity claim",
        model=FINAL,
        make=two_case,
        score=score_two,
        verdict="both entities",
        shown=("both entities", "relation"),
        asked={"both entities": 0.6},
    ),
    Row(
        key="change",
        title="`<i>` with a changed attribute or accessory; editing",
        mirrors="Figure 5",
        model=FINAL,
        make=change_case,
        score=score_change,
        verdict="right",
        shown=("right", "wearing", "accessory", "colour", "noun", "scene", "style"),
        asked={"right": 0.8},
    ),
)


def generate_all(
    cases: Sequence[Case],
    generate: Generate,
    *,
    seed: int = 0,
    batch: int = 25,
    progress: Progress | None = None,
) -> list[Image.Image]:
    """Generate the image of every case; that of case n from ``seed + n``."""
    images: list[Image.Image] = []
    for start in range(0, len(cases), batch):
        part = cases[start : start + batch]
        seeds = range(seed + start, seed + start + len(part))
        images += generate([case.prompt for case in part], [case.images for case in part], seeds)
        if progress:
            progress(len(images), len(cases))
    return images


def score_all(
    cases: Sequence[Case], images: Sequence[Image.Image], score: Score, read: Read
) -> list[Scores]:
    """Score images, each against its case."""
    return [score(case, reading) for case, reading in zip(cases, read(images), strict=True)]


def evaluate_row(
    row: Row,
    world: World,
    generate: Generate,
    read: Read,
    *,
    prompts: int = 200,
    seed: int = 0,
    batch: int = 25,
    compared: RowResult | None = None,
    progress: Progress | None = None,
) -> RowResult:
    """Fill one line of the table.

    Args:
        row: Which one.
        world: Has what is asked for; held out of training.
        generate: Its model.
        read: The probe.
        prompts: Number of prompts.
        seed: Decides prompts, input images and noise.
        batch: Images generated at once.
        compared: The result of a row with the same prompts, for the ratio to it.
        progress: Called after each batch.
    """
    cases = make_cases(world, row.make, prompts, seed)
    images = generate_all(cases, generate, seed=seed, batch=batch, progress=progress)
    scores = score_all(cases, images, row.score, read)
    estimates = dict(summarise(scores))
    if compared and RATIO in row.shown:
        prompts_of = [[case.prompt for case in each] for each in (cases, compared.cases)]
        assert prompts_of[0] == prompts_of[1], "rows over other prompts"
        ours, theirs = ([s["attributes"] for s in each] for each in (scores, compared.scores))
        estimates[RATIO] = bootstrap_ratio(ours, theirs, seed=seed)
    truth = [case.target for case in cases]
    return RowResult(
        row=row,
        cases=cases,
        images=images,
        scores=scores,
        estimates=estimates,
        ceiling=dict(summarise(score_all(cases, truth, row.score, read))),
    )
