"""Part 3: a condition, as images: Stable Diffusion v1.5 and what it is used with."""
