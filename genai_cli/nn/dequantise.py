"""Densities of images whose pixels have levels: uniform noise fills the gaps (Theis et al. 2016, arXiv:1511.01844).

With u = (level + noise) / levels in [0, 1), E[log p(u)] - D log(levels) is a lower bound of the log probability of the
levels. The logit of u, kept away from 0 and 1 by `ALPHA`, has no bounds (Dinh et al. 2017, Section 4.1).
"""

import math

import torch
from torch import Tensor

from genai_cli.nn.ranges import Range, from_unit, to_unit

ALPHA = 0.05


def dequantise(x: Tensor, noise: Tensor, *, value_range: Range, levels: int) -> Tensor:
    """Pixels in their range, and uniform noise in [0, 1), to u in [0, 1)."""
    level = (to_unit(x, value_range) * (levels - 1)).round()
    return (level + noise) / levels


def quantise(u: Tensor, *, value_range: Range, levels: int) -> Tensor:
    """u in [0, 1] to the pixel whose share of it that is."""
    level = (u * levels).floor().clamp(0, levels - 1)
    return from_unit(level / (levels - 1), value_range).clamp(*value_range)


def logit(u: Tensor) -> tuple[Tensor, Tensor]:
    """(B, ...) in [0, 1) to y without bounds and log |det dy/du|, (B,)."""
    inner = ALPHA + (1 - 2 * ALPHA) * u
    y = inner.log() - (1 - inner).log()
    log_slope = math.log(1 - 2 * ALPHA) - inner.log() - (1 - inner).log()
    return y, log_slope.flatten(1).sum(1)


def inverse_logit(y: Tensor) -> Tensor:
    """Back to u, kept in [0, 1]."""
    return ((torch.sigmoid(y) - ALPHA) / (1 - 2 * ALPHA)).clamp(0, 1)
