"""The order of images or series in a sheet that shows two sets of them side by side."""

import math

import torch
from torch import Tensor

SERIES_COLUMNS = 3  # of a sheet (media/signals.py)


def alternate_rows(upper: Tensor, lower: Tensor) -> Tensor:
    """(B, ...) twice to (2 B', ...), such that a sheet of about as many rows as columns has each row of `upper` above
    its row of `lower`. B' is the largest number of pairs up to B that fills a square of 2 n by 2 n, or 1.
    Series (B, T, C), which a sheet shows in rows of three: B' is 6, or 3, or all there are.
    """
    if upper.dim() == 3:
        columns = min(SERIES_COLUMNS, len(upper))
        num_pairs = min(2, len(upper) // columns) * columns
    else:
        columns = max(2 * math.isqrt(len(upper) // 2), 1)
        num_pairs = max(columns * columns // 2, 1)
    rows = [images[:num_pairs].unflatten(0, (-1, columns)) for images in (upper, lower)]  # each (R, columns, ...)
    return torch.stack(rows, dim=1).flatten(0, 2)


def side_by_side(*images: Tensor, channels: int | None = None) -> Tensor:
    """K times (B, C, H, W) to (K B', channels, H, W), such that a sheet shows image i of each next to each other.

    B' is the largest number up to B that fills a square of K n by K n, or B itself below K. Grey becomes colour or
    the reverse, to `channels` or the most that any has.
    """
    k = len(images)
    num_rows = k * math.isqrt(len(images[0]) // k) ** 2 or len(images[0])
    channels = channels or max(image.shape[1] for image in images)
    return torch.stack([with_channels(image[:num_rows], channels) for image in images], dim=1).flatten(0, 1)


def with_channels(images: Tensor, channels: int) -> Tensor:
    """(B, C, H, W), C = 1 or 3, as (B, channels, H, W): grey three times, or the mean of the colours."""
    if images.shape[1] == channels:
        return images
    return images.expand(-1, channels, -1, -1) if images.shape[1] == 1 else images.mean(1, keepdim=True)
