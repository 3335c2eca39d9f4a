"""U-Net for denoising images (Ho et al. 2020, arXiv:2006.11239, appendix B), arranged to be cheap on a CPU too.

A U-Net is nested levels: residual blocks at one resolution, the same again at half of it, and blocks after that.
What differs from the paper, for speed at equal parameters:

- what comes up from the level below is added to what went down, not concatenated: every convolution of a level is of
  C to C channels, and the level below is one more residual branch;
- channels double at every level, so that each level costs as much as the one above it, and the memory-bound work
  (norms, activations) halves;
- the way down is one 2x2 convolution of stride 2; the way up is a 1x1 convolution *before* the nearest-neighbour
  enlargement (the two commute), in place of a 3x3 convolution after it, on four times the pixels;
- attention stands once, at the lowest resolution, and the levels above have none;
- tensors lie channels-last in memory, which halves the backward pass of a convolution at 28x28.

On a CPU with AVX-512, choose `width` a multiple of 32: 24 channels cost as much as 32.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genai_cli.nn.embeddings import TimeEmbedding


class UNet(nn.Module):
    """(B, C, H, W) and times (B,) to (B, C, H, W). Zero before training.

    `width` channels at full resolution, twice as many at each of the `levels - 1` below it; `depth` residual blocks a
    level on the way down and as many on the way up; `heads` of attention at the bottom, 0 for none.
    Raises ValueError if a side of `shape` (C, H, W) cannot be halved `levels - 1` times.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        *,
        width: int = 32,
        levels: int = 3,
        depth: int = 1,
        heads: int = 4,
        dropout: float = 0.0,
    ):
        super().__init__()
        _check(shape, width=width, levels=levels, heads=heads)
        channels = [width * 2**level for level in range(levels)]  # from full resolution down
        time_dim = channels[-1]
        inner = Attention(channels[-1], heads) if heads else None
        for level in reversed(range(levels)):
            inner = Level(channels[level], time_dim, inner, depth=depth, dropout=dropout)
            if level > 0:
                inner = HalfResolution(channels[level - 1], channels[level], inner)

        self.time = TimeEmbedding(width, time_dim)
        self.stem = nn.Conv2d(shape[0], width, 3, padding=1)
        self.levels = inner
        self.norm = group_norm(width)
        self.head = zero(nn.Conv2d(width, shape[0], 3, padding=1))
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        h = self.stem(x).contiguous(memory_format=torch.channels_last)  # (B, width, H, W)
        h = self.levels(h, self.time(t))
        return self.head(F.silu(self.norm(h)))


class Level(nn.Module):
    """Blocks at one resolution, then `inner` (the level below, or attention) as a residual branch, then more blocks."""

    def __init__(self, channels: int, time_dim: int, inner: nn.Module | None, *, depth: int, dropout: float):
        super().__init__()
        self.before = nn.ModuleList(ResidualBlock(channels, time_dim, dropout) for _ in range(depth))
        self.inner = inner
        self.after = nn.ModuleList(ResidualBlock(channels, time_dim, dropout) for _ in range(depth))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        for block in self.before:
            x = block(x, time)  # (B, C, H, W)
        if self.inner is not None:
            x = x + self.inner(x, time)
        for block in self.after:
            x = block(x, time)
        return x


class HalfResolution(nn.Module):
    """`inner` at half the side and `coarse` channels, for a level of `fine` channels."""

    def __init__(self, fine: int, coarse: int, inner: nn.Module):
        super().__init__()
        self.down = nn.Conv2d(fine, coarse, 2, stride=2)
        self.inner = inner
        self.up = nn.Conv2d(coarse, fine, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = self.inner(self.down(x), time)  # (B, coarse, H / 2, W / 2)
        return F.interpolate(self.up(h), scale_factor=2, mode="nearest")


class ResidualBlock(nn.Module):
    """Two convolutions with the time added between them; the identity before training."""

    def __init__(self, channels: int, time_dim: int, dropout: float):
        super().__init__()
        self.norm1 = group_norm(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.time = nn.Linear(time_dim, channels)
        self.norm2 = group_norm(channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = zero(nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x))) + self.time(time)[:, :, None, None]
        return x + self.conv2(self.dropout(F.silu(self.norm2(h))))


class Attention(nn.Module):
    """Every pixel attends to every other; zero before training. Called like a level, so given the time, unread."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm = group_norm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = zero(nn.Linear(channels, channels))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        height = x.shape[2]
        tokens = self.norm(x).flatten(2).transpose(1, 2)  # (B, T, C) with T = H W; a view, channels being last
        q, k, v = self.qkv(tokens).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # each (B, N, T, D)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)  # (B, T, C)
        return self.out(mixed).transpose(1, 2).unflatten(2, (height, -1))


def group_norm(channels: int) -> nn.GroupNorm:
    """At most 32 groups, of at least four channels each. `channels` is a multiple of four."""
    return nn.GroupNorm(math.gcd(32, channels // 4), channels)


def zero(layer: nn.Conv2d | nn.Linear) -> nn.Conv2d | nn.Linear:
    """The layer with its parameters set to zero, so that the branch that it ends starts as nothing."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _check(shape: tuple[int, int, int], *, width: int, levels: int, heads: int) -> None:
    _, height, width_of_image = shape
    factor = 2 ** (levels - 1)
    if height % factor or width_of_image % factor:
        raise ValueError(
            f"levels={levels} halves an image {levels - 1} times, so its sides must be divisible by {factor}, "
            f"but it is {height}x{width_of_image}: use fewer levels or resize the images"
        )
    if width % 4:
        raise ValueError(f"width={width} must be divisible by 4, the channels of a normalisation group")
    if heads and width * factor % heads:
        raise ValueError(f"heads={heads} must divide the {width * factor} channels of the lowest resolution")
