"""Pairs of noise and what a trained flow makes of it, on which a straighter flow is trained (Liu et al. 2022, rectified
flow, arXiv:2209.03003, Algorithm 1), and how straight it is."""

from collections.abc import Callable

import torch
from torch import Tensor

from genai_cli.nn.random import RowRandom, SampleRandom

SEED = 0x9A125  # of the noise of pairs: none that samples are likely to be asked for with
AT_ONCE = 250


class Pairs:
    """`size` pairs, of which the data (N, ...) are stored; noise number i is a function of i alone."""

    def __init__(self, sample: Callable[[RowRandom], Tensor], size: int, device: torch.device):
        """`sample` is deterministic but for the noise that it begins with: the first that it asks for."""
        starts = range(0, size, AT_ONCE)
        rows = (range(start, min(start + AT_ONCE, size)) for start in starts)
        self.x0 = torch.cat([sample(SampleRandom(SEED, row, device=device)) for row in rows])

    def draw(self, random: RowRandom) -> tuple[Tensor, Tensor, Tensor]:
        """x_0 (B, ...), eps (B, ...) and the numbers (B,) of pairs taken at random."""
        index = random.integers(len(self.x0))
        eps = SampleRandom(SEED, index.tolist(), device=random.device).normal(*self.x0.shape[1:])
        return self.x0[index], eps, index


def straightness(velocity: Callable[[Tensor, float], Tensor], eps: Tensor, steps: int) -> Tensor:
    """(B,) the mean square of dx_t / dt - (x_1 - x_0), a coordinate, along the path from `eps` (B, ...).

    It is 0 for a straight path at constant speed, which one Euler step follows (arXiv:2209.03003, Sec. 2.2, S(Z)).
    `velocity(x_t, t)` is followed in `steps` Euler steps from t = 1 to 0.
    """
    x, velocities = eps, []
    for step in range(steps):
        velocities.append(velocity(x, 1 - step / steps))
        x = x - velocities[-1] / steps
    along = torch.stack(velocities)  # (steps, B, ...)
    return (along - along.mean(0)).square().mean(0).flatten(1).mean(1)
