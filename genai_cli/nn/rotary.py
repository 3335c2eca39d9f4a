"""Rotary positions (Su et al. 2021, RoFormer, arXiv:2104.09864): a query meets a key at their distance alone."""

import torch
from torch import Tensor, nn

Rotation = tuple[Tensor, Tensor]  # cosines and signed sines, each (T, 1, D)


class Rotary(nn.Module):
    """The angles of positions 0 to `length` - 1 for heads of `head_dim` features: t * base^(-2i / D) for pair i."""

    def __init__(self, head_dim: int, length: int, *, base: float = 10_000.0):
        super().__init__()
        frequencies = base ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)  # (D / 2,)
        angles = torch.arange(length, dtype=torch.float64)[:, None, None] * frequencies  # (T, 1, D / 2)
        cos, sin = angles.cos().to(torch.get_default_dtype()), angles.sin().to(torch.get_default_dtype())
        self.register_buffer("cos", torch.cat((cos, cos), -1), persistent=False)
        self.register_buffer("sin", torch.cat((-sin, sin), -1), persistent=False)

    def forward(self, start: int, stop: int) -> Rotation:
        """The rotation of the tokens at positions `start` to `stop` - 1."""
        return self.cos[start:stop], self.sin[start:stop]


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Turn each pair of features of `x` (B, T, N, D) by the angle of its position.

    Feature i is paired with feature i + D / 2, not with its neighbour as in the paper: the same map up to an order
    of the features, and a roll finds every partner at once.
    """
    cos, sin = rotation
    turned = x * cos + x.roll(x.shape[-1] // 2, -1) * sin
    return turned.type_as(x)  # under autocast x is bfloat16, the tables are not


def rotate_into(out: Tensor, x: Tensor, rotation: Rotation) -> None:
    """`rotate` of one token, (B, N, D), into `out` of that shape: nothing is recorded for a backward pass."""
    cos, sin = rotation
    torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin, out=out)
