"""MS-SSIM: torchmetrics' numbers; pairs are of one class and of two images."""

import pytest
import torch
from torchmetrics.functional.image import structural_similarity_index_measure as ssim

from genai_cli.metrics.diversity import SCALE_WEIGHTS, ms_ssim, num_scales, similarity_of_pairs


def images(count: int, side: int, channels: int = 1, *, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, channels, 5, 5, generator=generator, dtype=torch.float64)
    smooth = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear")
    return 0.8 * smooth + 0.2 * torch.rand(count, channels, side, side, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(("side", "channels", "scales"), [(176, 1, 5), (64, 3, 3), (28, 1, 2)])
def test_equals_torchmetrics_at_every_scale(side, channels, scales):
    """Windows that reach over the edge are left out, as in the authors' code; torchmetrics mirrors the edge there."""
    x = images(3, side, channels)
    y = (x + images(3, side, channels, seed=1)) / 2
    assert num_scales(side) == scales
    weights = torch.tensor(SCALE_WEIGHTS[:scales], dtype=torch.float64)
    expected, (a, b) = torch.ones(3, dtype=torch.float64), (x, y)
    for scale, weight in enumerate(weights / weights.sum()):
        options = {"data_range": 1.0, "reduction": "none"}
        if scale == scales - 1:
            _, full = ssim(a, b, **options, return_full_image=True)
            term = full[..., 5:-5, 5:-5].flatten(1).mean(1)
        else:
            _, term = ssim(a, b, **options, return_contrast_sensitivity=True)
        expected *= term**weight
        a, b = (torch.nn.functional.avg_pool2d(images, 2) for images in (a, b))
    torch.testing.assert_close(ms_ssim(x, y), expected, rtol=1e-5, atol=1e-6)


def test_of_equal_images_is_one_and_of_others_less():
    x = images(4, 28)
    torch.testing.assert_close(ms_ssim(x, x), torch.ones(4, dtype=torch.float64))
    assert (ms_ssim(x, images(4, 28, seed=1)) < 0.9).all()


def test_small_images_are_refused():
    with pytest.raises(ValueError, match="10 pixels"):
        num_scales(10)


def test_pairs_are_of_two_images_of_one_class():
    labels = torch.tensor([0, 1, 0, 1, 2, 1])  # one image alone is of class 2
    shades = torch.tensor([0.1, 0.9, 0.1, 0.9, 0.5, 0.9])  # one shade a class: within it, all pairs are equal
    flat = shades.view(-1, 1, 1, 1).expand(6, 1, 28, 28)
    found = similarity_of_pairs(flat, labels, num_pairs=200, seed=0)
    assert 100 < len(found) < 200 and torch.allclose(found, torch.ones_like(found))
    assert similarity_of_pairs(flat, None, num_pairs=200, seed=0).min() < 0.9
    assert similarity_of_pairs(images(2, 28), None, num_pairs=50, seed=0).max() < 0.9
