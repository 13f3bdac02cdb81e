"""Part 1: a prompt and its images, as tokens and pixels."""
