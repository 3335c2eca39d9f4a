"""Monotone rational-quadratic splines (Durkan et al. 2019, Neural Spline Flows, arXiv:1906.04032).

A map of the line onto itself: K bins over [-bound, bound], within each a quotient of two quadratics (Gregory and
Delbourgo 1982), outside the identity. It has a closed inverse. All parameters zero is the identity.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

SMALLEST_BIN = 1e-3  # of a bin's width and height, in shares of the whole
SMALLEST_SLOPE = 1e-3
_UNIT_SLOPE = math.log(math.expm1(1 - SMALLEST_SLOPE))  # softplus of it + SMALLEST_SLOPE = 1


class Bin(NamedTuple):
    """The bin that each number falls into; every field has the shape of the numbers."""

    x: Tensor  # left end
    width: Tensor
    y: Tensor  # lower end
    height: Tensor
    slope_left: Tensor
    slope_right: Tensor

    @property
    def mean_slope(self) -> Tensor:
        return self.height / self.width


def num_parameters(num_bins: int) -> int:
    """Of each number: K widths, K heights, K - 1 slopes between bins."""
    return 3 * num_bins - 1


def spline(x: Tensor, parameters: Tensor, *, bound: float) -> tuple[Tensor, Tensor]:
    """y = g(x) and log g'(x), each (...), from (...) and parameters (..., 3 K - 1) (Eqs. 4 and 5)."""
    inside = x.abs() < bound
    bins = find_bin(x.clamp(-bound, bound), parameters, bound=bound, along_y=False)
    s = bins.mean_slope
    theta = ((x - bins.x) / bins.width).clamp(0, 1)
    mixed = theta * (1 - theta)
    denominator = s + (bins.slope_right + bins.slope_left - 2 * s) * mixed
    y = bins.y + bins.height * (s * theta.square() + bins.slope_left * mixed) / denominator
    numerator = bins.slope_right * theta.square() + 2 * s * mixed + bins.slope_left * (1 - theta).square()
    log_slope = 2 * s.log() + numerator.log() - 2 * denominator.log()
    return torch.where(inside, y, x), torch.where(inside, log_slope, 0.0)


def inverse_spline(y: Tensor, parameters: Tensor, *, bound: float) -> Tensor:
    """x with g(x) = y: the root of a quadratic (Eqs. 6 to 8)."""
    inside = y.abs() < bound
    bins = find_bin(y.clamp(-bound, bound), parameters, bound=bound, along_y=True)
    s = bins.mean_slope
    rise = (y - bins.y).clamp(min=0)
    bend = rise * (bins.slope_right + bins.slope_left - 2 * s)
    a = bins.height * (s - bins.slope_left) + bend
    b = bins.height * bins.slope_left - bend
    c = -s * rise
    root = (b.square() - 4 * a * c).clamp(min=0).sqrt()
    theta = (2 * c / (-b - root)).clamp(0, 1)
    return torch.where(inside, bins.x + theta * bins.width, y)


def find_bin(value: Tensor, parameters: Tensor, *, bound: float, along_y: bool) -> Bin:
    """The bin of each `value`, an x or (`along_y`) a y within the bounds."""
    num_bins = (parameters.shape[-1] + 1) // 3
    widths, heights, slopes = parameters.split([num_bins, num_bins, num_bins - 1], -1)
    x, y = knots(widths, bound), knots(heights, bound)  # (..., K + 1)
    slopes = F.pad(SMALLEST_SLOPE + F.softplus(slopes + _UNIT_SLOPE), (1, 1), value=1.0)  # (..., K + 1)
    inner = (y if along_y else x)[..., 1:-1]
    k = (value.unsqueeze(-1) >= inner).sum(-1, keepdim=True)  # (..., 1), from 0 to K - 1

    def at(of: Tensor, index: Tensor) -> Tensor:
        return of.gather(-1, index).squeeze(-1)

    left, lower = at(x, k), at(y, k)
    return Bin(left, at(x, k + 1) - left, lower, at(y, k + 1) - lower, at(slopes, k), at(slopes, k + 1))


def knots(shares: Tensor, bound: float) -> Tensor:
    """(..., K) to the K + 1 ends of bins from -bound to bound, whose widths are in the proportion of exp(shares)."""
    share = SMALLEST_BIN + (1 - SMALLEST_BIN * shares.shape[-1]) * shares.softmax(-1)
    ends = F.pad(share.cumsum(-1)[..., :-1], (1, 0))
    return bound * (2 * F.pad(ends, (0, 1), value=1.0) - 1)
