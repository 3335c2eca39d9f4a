"""Sound in 256 levels, finer where it is quiet (ITU-T G.711; van den Oord et al. 2016, arXiv:1609.03499, Sec. 2.2)."""

import math

import torch
from torch import Tensor

NUM_LEVELS = 256
MU = NUM_LEVELS - 1


def encode(x: Tensor) -> Tensor:
    """(...) in [-1, 1] to levels, int64 in [0, 255]: sign(x) ln(1 + mu |x|) / ln(1 + mu), in even steps."""
    compressed = x.sign() * torch.log1p(MU * x.abs().clamp(max=1)) / math.log1p(MU)
    return ((compressed + 1) / 2 * MU).round().long()


def evenly(levels: Tensor) -> Tensor:
    """Levels as evenly spaced numbers from -1 to 1."""
    return 2 * levels.float() / MU - 1


def decode(levels: Tensor) -> Tensor:
    """The value in [-1, 1] that each level stands for; `encode` takes it back to that level."""
    compressed = evenly(levels)
    return compressed.sign() * torch.expm1(compressed.abs() * math.log1p(MU)) / MU
