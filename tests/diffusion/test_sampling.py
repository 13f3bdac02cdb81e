"""Drawing in chunks."""

from itertools import pairwise

import pytest
import torch

from kosmosg import KosmosGPipeline


@pytest.mark.parametrize("images", [2, 3, 4])
def test_progress_never_goes_back(pipe: KosmosGPipeline, images: int) -> None:
    """Although memory runs out before the last step of a chunk, which is begun again, halved."""
    shares: list[float] = []

    def progress(done: int, total: int) -> None:
        shares.append(done / total)
        if len(shares) == 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    pipe("a cat", num_inference_steps=4, num_images_per_prompt=images, progress=progress)
    assert all(one < next_one for one, next_one in pairwise(shares))
    assert shares[-1] == 1
