"""Images of three classes that a small classifier learns in a second: a blob in one of three corners."""

import torch
from torch import Tensor

SIDE, NUM_CLASSES = 16, 3
_CORNERS = torch.tensor([[4.0, 4.0], [4.0, 11.0], [11.0, 4.0]])


def blobs(count: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """(N, 1, 16, 16) in [-1, 1] and labels (N,): class i mod 3, its place, size and brightness varied."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % NUM_CLASSES
    centre = _CORNERS[labels] + torch.randn(count, 2, generator=generator)
    size = 1.5 + torch.rand(count, 1, 1, generator=generator)
    grid = torch.arange(SIDE, dtype=torch.float32)
    squared = (grid.view(1, -1, 1) - centre[:, 0, None, None]) ** 2 + (grid - centre[:, 1, None, None]) ** 2
    bright = 0.7 + 0.3 * torch.rand(count, 1, 1, generator=generator)
    return (2 * bright * torch.exp(-squared / (2 * size**2)) - 1).unsqueeze(1), labels
