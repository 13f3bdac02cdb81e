"""The perceptual distance by hand."""

import torch

from miniature.pretraining.perceptual import PerceptualDistance
from tests.training.stages.examples import images


def test_perceptual_distance_by_hand(distance: PerceptualDistance) -> None:
    """Of images of CLIP's size that are moved by nothing."""
    a, b = (images(1, seed)[..., :32, :32] for seed in (1, 2))
    still = next(
        seed
        for seed in range(10**4)
        if not torch.randint(16, (2,), generator=torch.Generator().manual_seed(seed)).any()
    )
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
    layers = [
        distance.tower(
            pixel_values=((pixels + 1) / 2 - mean) / std, output_hidden_states=True
        ).hidden_states[1:]
        for pixels in (a, b)
    ]
    wanted = 2 - 2 * torch.stack(
        [torch.cosine_similarity(x, y, dim=-1).mean() for x, y in zip(*layers, strict=True)]
    )
    torch.testing.assert_close(distance(a, b, [still]), wanted.mean())


def test_perceptual_distance_is_of_both_images_moved_alike(distance: PerceptualDistance) -> None:
    a, b = images(3, 1), images(3, 2)
    assert distance(a, a, [1, 2, 3]) < 1e-6
    assert distance(a, b, [1, 2, 3]) > 1e-3
    assert distance(a, b, [1, 2, 3]) == distance(a, b, [1, 2, 3])
    assert distance(a, b, [1, 2, 3]) != distance(a, b, [4, 5, 6])
