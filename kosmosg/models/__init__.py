"""Part 2: tokens and pixels, as the condition that takes the place of CLIP's."""
