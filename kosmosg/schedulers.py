"""The samplers on offer, each derived from Stable Diffusion's own scheduler settings."""

from dataclasses import dataclass
from typing import Any

from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, PNDMScheduler, SchedulerMixin

from kosmosg.errors import SettingError


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """A scheduler class of diffusers and what must be set besides the model's own settings."""

    scheduler: Any
    settings: dict[str, Any]


# The spacing is named for each sampler: settings that went through a file hold that of PNDM, which
# would carry over to the others.
SAMPLERS = {
    # NOTE(reference): the published numbers end at the smallest training sigma; diffusers' newer
    # default ends at zero, which moves latents by 1e-3 of their maximum.
    "DPMSolverMultistep": Sampler(
        scheduler=DPMSolverMultistepScheduler,
        settings={"final_sigmas_type": "sigma_min", "timestep_spacing": "linspace"},
    ),
    "DDIM": Sampler(scheduler=DDIMScheduler, settings={"timestep_spacing": "leading"}),
    "PNDM": Sampler(scheduler=PNDMScheduler, settings={"timestep_spacing": "leading"}),
}


def make_scheduler(name: str, config: Any) -> SchedulerMixin:
    """Build a scheduler by its public name.

    Args:
        name: A key of ``SAMPLERS``.
        config: Settings of the model's own scheduler.

    Raises:
        SettingError: If the name is unknown.
    """
    sampler = SAMPLERS.get(name)
    if sampler is None:
        raise SettingError(f"scheduler {name!r} is unknown. Choose one of {', '.join(SAMPLERS)}.")
    return sampler.scheduler.from_config(config, **sampler.settings)
