"""The request that every prediction of the benchmark is; no import here takes time."""

from pathlib import Path

from kosmosg.diffusion.settings import DEFAULT_GUIDANCE, DEFAULT_SAMPLER, DEFAULT_STEPS

PROMPT = "<i> on the beach"
REAL_NEGATIVE = "a red hat in the snow at night"
PICTURE = Path(__file__).resolve().parent.parent / "samples" / "cat.jpg"
SEED = 7
GUIDANCE = DEFAULT_GUIDANCE
SAMPLER = DEFAULT_SAMPLER
WHOLE = DEFAULT_STEPS  # denoising steps of a whole prediction
