"""Samples along paths between two noises: `genai sample interpolate=8`, for every model that begins with a normal."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from genai_cli.nn.random import RowRandom, SampleRandom, truncate


class PathRandom(RowRandom):
    """Samples `num_stops` by `num_stops`: those of a path have noise from that of one end to that of the other.

    At the angle a, from 0 to 90 degrees, it is cos(a) z + sin(a) z' of independent z and z': standard normal wherever
    one stops, so that each stop is a sample as any other. What is drawn uniformly is the same all along a path, and so
    is the class of its samples: `index` is the number of the path.
    """

    def __init__(self, seed: int, indices: Sequence[int], num_stops: int, *, device: torch.device | str = "cpu"):
        self.index = [i // num_stops for i in indices]
        self.device = torch.device(device)
        self.has_moved = False  # whether there was a normal to interpolate
        self._ends = [SampleRandom(seed, [2 * path + end for path in self.index], device=device) for end in (0, 1)]
        self._angles = torch.tensor([i % num_stops / max(1, num_stops - 1) * math.pi / 2 for i in indices])

    def normal(self, *shape: int) -> Tensor:
        self.has_moved = True
        first, last = (end.normal(*shape) for end in self._ends)  # each (B, *shape)
        angle = self._angles.to(first.device).view(-1, *(1 for _ in shape))
        return angle.cos() * first + angle.sin() * last

    def truncated_normal(self, limit: float, *shape: int) -> Tensor:
        """Of the normal z along the path, by its distribution: 2 Phi(z) - 1 = erf(z / sqrt 2) is uniform."""
        return truncate(torch.erf(self.normal(*shape).double() / math.sqrt(2)), limit)

    def uniform(self, *shape: int) -> Tensor:
        return self._ends[0].uniform(*shape)
