"""The samplers on offer, each derived from Stable Diffusion's own scheduler settings."""

from dataclasses import dataclass, field
from typing import Any

from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    PNDMScheduler,
    SchedulerMixin,
    TCDScheduler,
    UniPCMultistepScheduler,
)

from kosmosg.errors import SettingError

MAX_STEPS = 999  # the training schedule has 1000, and DPM-Solver fails at all of them
LCM_MAX_STEPS = 50  # an LCM is distilled from a sampler of this many
FEW_STEPS = 8  # what LoRAs that need no guidance are distilled to, at most


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """A scheduler class of diffusers and what must be set besides the model's own settings.

    Attributes:
        scheduler: The class.
        settings: What is set in any case.
        distilled: What is set besides for a LoRA that draws in a few steps without guidance.
        max_steps: How many steps it can take.
    """

    scheduler: Any
    settings: dict[str, Any] = field(default_factory=dict)
    distilled: dict[str, Any] = field(default_factory=dict)
    max_steps: int = MAX_STEPS


# The spacing is named for each sampler: settings that went through a file hold that of PNDM, which
# would carry over to the others.
SAMPLERS = {
    # NOTE(reference): the published numbers end at the smallest training sigma; diffusers' newer
    # default ends at zero, which moves latents by 1e-3 of their maximum.
    "DPMSolverMultistep": Sampler(
        scheduler=DPMSolverMultistepScheduler,
        settings={"final_sigmas_type": "sigma_min", "timestep_spacing": "linspace"},
    ),
    # Steps that lead do not begin at pure noise; if they are few, that shows (arXiv 2305.08891).
    "DDIM": Sampler(
        scheduler=DDIMScheduler,
        settings={"timestep_spacing": "leading"},
        distilled={"timestep_spacing": "trailing"},
    ),
    "PNDM": Sampler(scheduler=PNDMScheduler, settings={"timestep_spacing": "leading"}),
    "UniPC": Sampler(scheduler=UniPCMultistepScheduler, settings={"timestep_spacing": "linspace"}),
    "Euler": Sampler(scheduler=EulerDiscreteScheduler, settings={"timestep_spacing": "linspace"}),
    "EulerAncestral": Sampler(
        scheduler=EulerAncestralDiscreteScheduler, settings={"timestep_spacing": "linspace"}
    ),
    "KarrasDPM": Sampler(
        scheduler=DPMSolverMultistepScheduler,
        settings={"use_karras_sigmas": True, "timestep_spacing": "linspace"},
    ),
    # For 4 to 8 steps with a LoRA that was distilled for it, and guidance of 1 to 2.
    "LCM": Sampler(
        scheduler=LCMScheduler,
        settings={"timestep_spacing": "leading", "original_inference_steps": LCM_MAX_STEPS},
        max_steps=LCM_MAX_STEPS,
    ),
    # Draws no noise of its own: diffusers' pipelines set its eta (gamma in arXiv 2402.19159) to 0.
    "TCD": Sampler(
        scheduler=TCDScheduler,
        settings={"timestep_spacing": "trailing", "original_inference_steps": LCM_MAX_STEPS},
        max_steps=LCM_MAX_STEPS,
    ),
}


def make_scheduler(
    scheduler: str | SchedulerMixin,
    config: Any,
    steps: int | None = None,
    *,
    distilled: bool = False,
) -> SchedulerMixin:
    """Build a scheduler.

    Args:
        scheduler: A key of ``SAMPLERS``, or any scheduler of diffusers, of which a fresh one with
            the same settings is made.
        config: Settings of the model's own scheduler.
        steps: How many steps it is to take, if that is known.
        distilled: Whether a LoRA takes part that draws in a few steps without guidance.

    Raises:
        SettingError: If the name is unknown, or it cannot take so many steps.
    """
    if isinstance(scheduler, SchedulerMixin):
        given: Any = scheduler
        return type(given).from_config(given.config)
    sampler = SAMPLERS.get(scheduler)
    if sampler is None:
        known = ", ".join(SAMPLERS)
        raise SettingError(f"scheduler {scheduler!r} is unknown. Choose one of {known}.")
    if steps is not None and steps > sampler.max_steps:
        raise SettingError(
            f"num_inference_steps is {steps}; {scheduler} takes at most {sampler.max_steps}."
        )
    settings = sampler.settings | (sampler.distilled if distilled else {})
    return sampler.scheduler.from_config(config, **settings)


def name_of(scheduler: str | SchedulerMixin) -> str:
    """Name a scheduler as it stands in the metadata of an image."""
    return scheduler if isinstance(scheduler, str) else type(scheduler).__name__
