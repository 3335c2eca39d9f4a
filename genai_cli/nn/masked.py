"""Masked layers, in which unit j is connected to unit i only where their degrees allow it (Germain et al. 2015).

A unit of degree m knows the first m of D numbers. Input number p (from 0) has degree p + 1, and its prediction may see
the degrees up to p.
"""

import math

import torch
from torch import Tensor, nn

from genai_cli.nn.linear import fast_linear


class MaskedLinear(nn.Linear):
    """A linear layer whose weight from i to j counts only where degree_in[i] <= limit_out[j]."""

    def forward(self, x: Tensor, degree_in: Tensor, limit_out: Tensor) -> Tensor:
        """(B, in) to (B, out); `degree_in` (in,) and `limit_out` (out,) are integers."""
        is_allowed = degree_in <= limit_out.unsqueeze(1)  # (out, in)
        return fast_linear(x, torch.where(is_allowed, self.weight, 0.0), self.bias)

    def rows(self, x: Tensor, index: Tensor) -> Tensor:
        """The outputs at `index` (n,) alone, (B, n), unmasked: for an `x` whose forbidden entries are zero."""
        return nn.functional.linear(x, self.weight[index], None if self.bias is None else self.bias[index])


def even_degrees(count: int, num_inputs: int) -> Tensor:
    """(count,) int32: hidden degrees from 1 to D - 1, evenly spread and rising."""
    highest = max(num_inputs - 1, 1)
    return (torch.arange(count) * highest // count + 1).to(torch.int32)


def random_degrees(count: int, num_inputs: int, generator: torch.Generator) -> Tensor:
    """(count,) int32: hidden degrees drawn from 1 to D - 1, rising."""
    degrees = torch.randint(1, max(num_inputs - 1, 1) + 1, (count,), generator=generator)
    return degrees.sort().values.to(torch.int32)


def raster_scans(shape: tuple[int, ...]) -> Tensor:
    """(8, D) int32: the place of each number of an image (C, H, W) in each of its raster scans, colour after colour.

    Rows from the top, which is the natural order, and that one backwards; columns from the left, and backwards; then
    rows and columns that begin at the other two corners.
    """
    channels, height, width = shape
    rows = torch.arange(math.prod(shape), dtype=torch.int32).view(shape)
    columns = rows.view(channels, width, height).transpose(1, 2)
    backwards = (rows.flip(1, 2), columns.flip(1, 2))
    others = (rows.flip(1), rows.flip(2), columns.flip(1), columns.flip(2))
    return torch.stack([rows, backwards[0], columns, backwards[1], *others]).flatten(1)
