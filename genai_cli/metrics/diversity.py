"""How alike samples of one class are: multi-scale structural similarity of pairs (Odena et al. 2017, arXiv:1610.09585).

Wang et al. 2003, "Multi-scale structural similarity for image quality assessment". A set whose pairs are more alike
than pairs of the data has lost diversity within its classes, which a histogram of classes cannot see.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW, SIGMA = 11, 1.5  # of the Gaussian that weighs a neighbourhood
K1, K2 = 0.01, 0.03
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of Wang et al., from fine to coarse
_PAIRS_AT_ONCE = 256


def num_scales(side: int) -> int:
    """How many halvings leave room for the window, five at most: 2 for 28 and 32 pixels, 3 for 64.

    Raises ValueError below 11 pixels.
    """
    if side < WINDOW:
        raise ValueError(f"images of {side} pixels are smaller than the window of {WINDOW}")
    return min(len(SCALE_WEIGHTS), 1 + (side // WINDOW).bit_length() - 1)


def ms_ssim(x: Tensor, y: Tensor) -> Tensor:
    """(B, C, H, W) twice, in [0, 1], to (B,): 1 for equal images.

    The product over scales of contrast-and-structure, and of luminance at the coarsest, each to its weight. The weights
    of the scales there is room for are scaled to sum to 1; a negative similarity counts as 0.
    """
    scales = num_scales(min(x.shape[-2:]))
    weights = torch.tensor(SCALE_WEIGHTS[:scales], dtype=x.dtype)
    weights /= weights.sum()
    result = torch.ones(len(x), dtype=x.dtype)
    for scale, weight in enumerate(weights):
        luminance, contrast = _similarity(x, y)  # each (B, C, h, w)
        is_last = scale == scales - 1
        term = (luminance * contrast if is_last else contrast).flatten(1).mean(1)
        result *= term.clamp(min=0) ** weight
        x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
    return result


def _similarity(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Luminance and contrast-and-structure of every window that lies within the images."""
    batch = torch.cat([x, y, x * x, y * y, x * y])
    mean_x, mean_y, mean_xx, mean_yy, mean_xy = _blur(batch).chunk(5)
    c1, c2 = K1**2, K2**2
    covariance = mean_xy - mean_x * mean_y
    variances = (mean_xx - mean_x.square()).clamp(min=0) + (mean_yy - mean_y.square()).clamp(min=0)
    luminance = (2 * mean_x * mean_y + c1) / (mean_x.square() + mean_y.square() + c1)
    return luminance, (2 * covariance + c2) / (variances + c2)


def _blur(images: Tensor) -> Tensor:
    """The Gaussian window's mean around each pixel whose window lies within the image, (B, C, H - 10, W - 10)."""
    offset = torch.arange(WINDOW, dtype=images.dtype) - WINDOW // 2
    kernel = torch.exp(-offset.square() / (2 * SIGMA**2))
    kernel /= kernel.sum()
    count, channels = images.shape[:2]
    planes = images.flatten(0, 1).unsqueeze(1)  # (B * C, 1, H, W)
    planes = F.conv2d(F.conv2d(planes, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))
    return planes.squeeze(1).unflatten(0, (count, channels))


def similarity_of_pairs(images: Tensor, labels: Tensor | None, *, num_pairs: int, seed: int) -> Tensor:
    """(P,): MS-SSIM of random pairs of different images in [0, 1], of one class where there are `labels` (N,).

    Classes count by how many images they have; of a class with one image there is no pair.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = torch.zeros(len(images), dtype=torch.long) if labels is None else labels
    order = torch.argsort(labels, stable=True)
    sizes = torch.bincount(labels)  # (K,)
    starts = sizes.cumsum(0) - sizes
    first = torch.randint(len(images), (num_pairs,), generator=generator)  # a place in `order`
    group = labels[order[first]]
    shift = (torch.rand(num_pairs, generator=generator) * (sizes[group] - 1)).long() + 1
    second = starts[group] + (first - starts[group] + shift) % sizes[group]
    has_pair = sizes[group] > 1
    first, second = order[first[has_pair]], order[second[has_pair]]
    return torch.cat(
        [
            ms_ssim(images[i], images[j])
            for i, j in zip(first.split(_PAIRS_AT_ONCE), second.split(_PAIRS_AT_ONCE), strict=True)
        ]
        or [torch.empty(0)]
    )
