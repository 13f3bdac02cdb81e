"""The paper's evaluations (section 4.2), as a user asks for them; the defaults are published."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from kosmosg.diffusion.settings import MAX_SEED, SamplerName
from kosmosg.utils.checks import check_integer, check_number

ProtocolName = Literal["paper", "clean"]
PROTOCOL_NAMES: tuple[ProtocolName, ...] = get_args(ProtocolName)

DREAMBENCH_IMAGES, COCO_CAPTIONS = 4, 30_000  # images of each prompt; captions
# Of the authors' scripts: within a batch noises differ.
DREAMBENCH_PROMPTS_PER_BATCH, COCO_BATCH = 5, 16
COCO_PHOTOGRAPHS = 40_504  # of val2014

# What decides the numbers of an evaluation, besides the model and the data.
DECISIVE = ("steps", "guidance_scale", "scheduler", "seed", "dino", "clip", "per_prompt", "count")


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """What all evaluations take.

    Attributes:
        output: Folder of images and results; one that was stopped is completed.
        pipeline: Folder or Hub id of a text-to-image pipeline of diffusers in KOSMOS-G's place,
            such as Stable Diffusion.
        protocol: Conventions: the paper's, or clean ones.
        steps: Denoising steps, 1 to 999.
        guidance_scale: Strength of the guidance; 1 switches it off.
        scheduler: Sampler.
        seed: The first, 0 to 4294967295.
        batch: Images generated at once.

    Raises:
        SettingError: Naming the option, its value and its bounds.
    """

    output: Path
    pipeline: str | None = None
    protocol: ProtocolName = "paper"
    steps: int
    guidance_scale: float
    scheduler: SamplerName
    seed: int = 0
    batch: int

    def __post_init__(self) -> None:
        check_integer("--steps", self.steps, 1, 999)
        check_integer("--batch", self.batch, 1, 10_000)
        check_integer("--seed", self.seed, 0, MAX_SEED)
        check_number("--guidance-scale", self.guidance_scale, 1, 1000)

    @classmethod
    def published(cls) -> dict[str, Any]:
        """The published values of what decides the numbers."""
        defaults = {field.name: field.default for field in fields(cls)}
        return {name: defaults[name] for name in DECISIVE if name in defaults}


@dataclass(frozen=True, kw_only=True)
class DreamBenchOptions(EvaluationOptions):
    """DreamBench: 30 subjects in 25 prompts each.

    Attributes:
        subjects: DreamBooth's folder 'dataset'.
        only: Name of a subject; repeat it to measure some of them.
        name_nouns: Write "dog <i>" where the paper writes "<i>".
        per_prompt: Images of each prompt.
        dino: Folder or Hub id of DINO's ViT-S/16.
        clip: Folder or Hub id of CLIP's ViT-B/32.
    """

    subjects: Path
    only: tuple[str, ...] = ()
    name_nouns: bool = False
    per_prompt: int = DREAMBENCH_IMAGES
    dino: str = "facebook/dino-vits16"
    clip: str = "openai/clip-vit-base-patch32"
    steps: int = 100
    guidance_scale: float = 7.5
    scheduler: SamplerName = "DPMSolverMultistep"
    batch: int = DREAMBENCH_PROMPTS_PER_BATCH * DREAMBENCH_IMAGES

    def __post_init__(self) -> None:
        check_integer("--per-prompt", self.per_prompt, 1, 1000)
        super().__post_init__()


@dataclass(frozen=True, kw_only=True)
class CocoOptions(EvaluationOptions):
    """MS-COCO: FID of 30 000 captions.

    Attributes:
        captions: captions_val2014.json.
        photographs: Folder of val2014, all of it.
        features: Weights of FID's Inception, .pth or .safetensors; or the folder or Hub id of a
            ViT, for a distance in its space.
        count: Captions.
    """

    captions: Path
    photographs: Path
    features: str
    count: int = COCO_CAPTIONS
    steps: int = 250
    guidance_scale: float = 3.0
    scheduler: SamplerName = "DDIM"
    batch: int = COCO_BATCH

    def __post_init__(self) -> None:
        check_integer("--count", self.count, 2, 10_000_000)
        super().__post_init__()
