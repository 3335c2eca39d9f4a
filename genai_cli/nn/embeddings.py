"""Embeddings of numbers: where in time a denoiser stands, and where in space a point lies.

Vaswani et al. 2017 (arXiv:1706.03762) give positions sinusoids of many periods; Ho et al. 2020 (arXiv:2006.11239) give
them to the timestep of a diffusion, Tancik et al. 2020 (arXiv:2006.10739) to coordinates.
"""

import math

import torch
from torch import Tensor, nn


def sinusoidal_embedding(t: Tensor, dim: int, *, max_period: float = 10_000.0) -> Tensor:
    """(B,) numbers, integer or not, to (B, dim): cosines, then sines, of periods from 2 pi up to 2 pi `max_period`.

    Computed in float32 whatever the autocast, for half precision cannot tell one timestep of a thousand from the next.
    Raises ValueError if dim is odd.
    """
    if dim % 2:
        raise ValueError(f"dim={dim} must be even: half of it are cosines, half sines")
    exponents = torch.arange(dim // 2, dtype=torch.float32, device=t.device) / (dim // 2)  # (dim / 2,)
    angles = t.float()[:, None] * torch.exp(-math.log(max_period) * exponents)  # (B, dim / 2)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def fourier_features(x: Tensor, num_frequencies: int) -> Tensor:
    """(B, D) to (B, D (1 + 2 F)): each coordinate, and its sine and cosine at periods of 8, 4, 2, ...

    A multilayer perceptron sees of a coordinate alone no detail much finer than the whole; of these it does.
    """
    frequencies = math.pi / 4 * 2.0 ** torch.arange(num_frequencies, dtype=torch.float32, device=x.device)  # (F,)
    angles = (x.float()[:, :, None] * frequencies).flatten(1)  # (B, D F)
    return torch.cat([x.float(), angles.sin(), angles.cos()], dim=1)


class TimeEmbedding(nn.Module):
    """A timestep as a vector for every block of a denoiser: sinusoids, then two layers that learn what they mean."""

    def __init__(self, width: int, dim: int):
        super().__init__()
        self.width = width
        self.layers = nn.Sequential(nn.Linear(width, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, t: Tensor) -> Tensor:
        """(B,) -> (B, dim), to be summed with what else a block is told, before a nonlinearity."""
        return self.layers(sinusoidal_embedding(t, self.width))
