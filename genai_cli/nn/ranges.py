"""Between the range of the data, (low, high) or None where they have no bounds, and the unit interval."""

import torch
from torch import Tensor

Range = tuple[float, float]


def to_unit(x: Tensor, value_range: Range) -> Tensor:
    """`x` in [low, high] to [0, 1]."""
    low, high = value_range
    width = high - low
    return torch.add(torch.tensor(-low / width), x, alpha=1 / width)  # one pass over the memory


def from_unit(x: Tensor, value_range: Range) -> Tensor:
    """`x` in [0, 1] to [low, high]."""
    low, high = value_range
    return ((high - low) * x).add_(low)


def flatten_to_unit(x: Tensor, value_range: Range | None) -> Tensor:
    """(B, ...) in the range of the data to (B, D) in [0, 1]; unscaled where there is no range."""
    return (x if value_range is None else to_unit(x, value_range)).flatten(1)


def tanh_to_range(x: Tensor, value_range: Range | None) -> Tensor:
    """tanh stretched from [-1, 1] to the range of the data; `x` itself where that has no bounds.

    As (tanh(x) + 1) / 2 = sigmoid(2 x), which torch computes in half the time.
    """
    return x if value_range is None else from_unit(torch.sigmoid(2 * x), value_range)


def clamp_to_range(x: Tensor, value_range: Range | None) -> Tensor:
    """`x` with what lies outside of the range of the data moved to its border."""
    return x if value_range is None else x.clamp(*value_range)
