"""The order of images in a sheet that shows two sets of them side by side."""

import math

import torch
from torch import Tensor


def alternate_rows(upper: Tensor, lower: Tensor) -> Tensor:
    """(B, ...) twice to (2 B', ...), such that a sheet of about as many rows as columns has each row of `upper` above
    its row of `lower`. B' is the largest number of pairs up to B that fills a square of 2 n by 2 n, or 1.
    """
    columns = max(2 * math.isqrt(len(upper) // 2), 1)
    num_pairs = max(columns * columns // 2, 1)
    rows = [images[:num_pairs].unflatten(0, (-1, columns)) for images in (upper, lower)]  # each (R, columns, ...)
    return torch.stack(rows, dim=1).flatten(0, 2)
