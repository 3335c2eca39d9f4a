"""Residual convolutions, and the way from an image to coarse maps of features and back."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai_cli.nn.conv import doubling, halving


class ResidualBlock(nn.Module):
    """x + conv(silu(conv(silu(x)))): 3x3 to half as many channels, and 1x1 back (He et al. 2016; VQ-VAE's blocks)."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, max(1, channels // 2), 3, padding=1)
        self.conv2 = nn.Conv2d(max(1, channels // 2), channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.silu(self.conv1(F.silu(x))))


class MapEncoder(nn.Module):
    """(B, C, H, W) to (B, out_channels, H / 2^halvings, W / 2^halvings), with `depth` residual blocks at the end."""

    def __init__(self, in_channels: int, out_channels: int, *, width: int, halvings: int, depth: int):
        super().__init__()
        layers: list[nn.Module] = []
        for number in range(halvings):
            layers += [halving(in_channels if number == 0 else width, width), nn.SiLU()]
        layers.append(nn.Conv2d(width, width, 3, padding=1))
        self.layers = nn.Sequential(
            *layers, *(ResidualBlock(width) for _ in range(depth)), nn.SiLU(), nn.Conv2d(width, out_channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.contiguous(memory_format=torch.channels_last))


class MapDecoder(nn.Module):
    """The encoder backwards: (B, in_channels, h, w) to (B, out_channels, 2^halvings h, 2^halvings w)."""

    def __init__(self, in_channels: int, out_channels: int, *, width: int, halvings: int, depth: int):
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(in_channels, width, 3, padding=1)]
        layers += [ResidualBlock(width) for _ in range(depth)]
        for number in range(halvings):
            layers += [nn.SiLU(), doubling(width, out_channels if number == halvings - 1 else width)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.contiguous(memory_format=torch.channels_last))
