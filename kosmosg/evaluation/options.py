"""The numbers of the paper's evaluations."""

from kosmosg.diffusion.settings import SAMPLER_NAMES

# The paper's evaluation (section 4.2). Batches are those of the authors' scripts, within which
# noises differ.
DREAMBENCH_STEPS, DREAMBENCH_GUIDANCE, DREAMBENCH_SAMPLER = 100, 7.5, SAMPLER_NAMES[0]
DREAMBENCH_PICTURES, DREAMBENCH_PROMPTS_PER_BATCH = 4, 5  # pictures of each prompt
COCO_STEPS, COCO_GUIDANCE, COCO_SAMPLER = 250, 3.0, SAMPLER_NAMES[1]
COCO_CAPTIONS, COCO_BATCH = 30_000, 16
COCO_PHOTOGRAPHS = 40_504  # of val2014
DINO_REPOSITORY, CLIP_REPOSITORY = "facebook/dino-vits16", "openai/clip-vit-base-patch32"
PROTOCOL_NAMES = ("paper", "clean")
