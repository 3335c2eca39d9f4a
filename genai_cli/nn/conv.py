"""Convolutions that double or halve the side of an image, as in DCGAN (Radford et al. 2015, arXiv:1511.06434).

A 4x4 kernel at stride 2 covers every pixel evenly. Transposed it is also the cheap form of "enlarge by nearest
neighbour, then 3x3": it can hold the same map at 4/9 of the multiplications.
"""

from torch import nn


def doubling(in_channels: int, out_channels: int, *, bias: bool = True) -> nn.ConvTranspose2d:
    """(B, in_channels, H, W) to (B, out_channels, 2 H, 2 W)."""
    return nn.ConvTranspose2d(in_channels, out_channels, kernel_size=4, stride=2, padding=1, bias=bias)


def halving(in_channels: int, out_channels: int, *, bias: bool = True) -> nn.Conv2d:
    """(B, in_channels, H, W), with H and W even, to (B, out_channels, H / 2, W / 2)."""
    return nn.Conv2d(in_channels, out_channels, kernel_size=4, stride=2, padding=1, bias=bias)
