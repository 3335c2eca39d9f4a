"""U-Net for denoising images (Ho et al. 2020, arXiv:2006.11239, appendix B), arranged to be cheap on a CPU too.

A U-Net is nested levels: residual blocks at one resolution, the same again at half of it, and blocks after that.
What differs from the paper, for speed at equal parameters:

- `patch` x `patch` pixels are one position from the start, as in a vision transformer: full resolution, where an image
  has most of its positions and the least to say at each, is left to one linear map on either end;
- what comes up from the level below is added to what went down, not concatenated: every convolution of a level is of
  C to C channels, and the level below is one more residual branch;
- channels double at every level, so that each level costs as much as the one above it, and the memory-bound work
  (norms, activations) halves;
- the way down is one 2x2 convolution of stride 2; the way up is a 1x1 convolution *before* the nearest-neighbour
  enlargement (the two commute), in place of a 3x3 convolution after it, on four times the positions;
- attention stands once, at the lowest resolution, and the levels above have none;
- tensors lie channels-last in memory, which halves the backward pass of a convolution at 28x28.

The condition (what time it is, which class) scales and shifts every block's second norm, the adaptive group
normalisation of Dhariwal & Nichol 2021 (arXiv:2105.05233).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class UNet(nn.Module):
    """Images (B, C, H, W) and conditions (B, E) to (B, C, H, W). Zero before training.

    `width` channels at the upper resolution, twice as many at each of the `levels - 1` below it; `depth` residual
    blocks a level on the way down and as many on the way up; `heads` of attention at the bottom, 0 for none.
    Raises ValueError if a side of `shape` (C, H, W) cannot be cut into patches and halved `levels - 1` times.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        *,
        condition_dim: int,
        width: int = 64,
        levels: int = 2,
        depth: int = 1,
        heads: int = 4,
        patch: int = 2,
        dropout: float = 0.0,
    ):
        super().__init__()
        _check(shape, width=width, levels=levels, heads=heads, patch=patch)
        channels = [width * 2**level for level in range(levels)]  # from the upper resolution down
        inner = Attention(channels[-1], heads) if heads else None
        for level in reversed(range(levels)):
            inner = Level(channels[level], condition_dim, inner, depth=depth, dropout=dropout)
            if level > 0:
                inner = HalfResolution(channels[level - 1], channels[level], inner)

        self.patch = patch
        self.stem = nn.Conv2d(shape[0] * patch**2, width, 3, padding=1)
        self.levels = inner
        self.norm = group_norm(width)
        self.head = zero(nn.Conv2d(width, shape[0] * patch**2, 3, padding=1))
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        x = F.pixel_unshuffle(x, self.patch)  # (B, C P^2, H / P, W / P)
        h = self.stem(x).contiguous(memory_format=torch.channels_last)  # (B, width, H / P, W / P)
        h = self.levels(h, condition)
        return F.pixel_shuffle(self.head(F.silu(self.norm(h))), self.patch)


class Level(nn.Module):
    """Blocks at one resolution, then `inner` (the level below, or attention) as a residual branch, then more blocks."""

    def __init__(self, channels: int, condition_dim: int, inner: nn.Module | None, *, depth: int, dropout: float):
        super().__init__()
        self.before = nn.ModuleList(ResidualBlock(channels, condition_dim, dropout) for _ in range(depth))
        self.inner = inner
        self.after = nn.ModuleList(ResidualBlock(channels, condition_dim, dropout) for _ in range(depth))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        for block in self.before:
            x = block(x, condition)  # (B, C, H, W)
        if self.inner is not None:
            x = x + self.inner(x, condition)
        for block in self.after:
            x = block(x, condition)
        return x


class HalfResolution(nn.Module):
    """`inner` at half the side and `coarse` channels, for a level of `fine` channels."""

    def __init__(self, fine: int, coarse: int, inner: nn.Module):
        super().__init__()
        self.down = nn.Conv2d(fine, coarse, 2, stride=2)
        self.inner = inner
        self.up = nn.Conv2d(coarse, fine, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        h = self.inner(self.down(x), condition)  # (B, coarse, H / 2, W / 2)
        return F.interpolate(self.up(h), scale_factor=2, mode="nearest")


class ResidualBlock(nn.Module):
    """Two convolutions, the second after a norm that the condition scales and shifts; the identity before training."""

    def __init__(self, channels: int, condition_dim: int, dropout: float):
        super().__init__()
        self.norm1 = group_norm(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2 = group_norm(channels, affine=False)
        self.modulation = nn.Linear(condition_dim, 2 * channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = zero(nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        scale, shift = self.modulation(condition)[:, :, None, None].chunk(2, dim=1)  # each (B, C, 1, 1)
        h = self.norm2(self.conv1(F.silu(self.norm1(x))))
        return x + self.conv2(self.dropout(F.silu(torch.addcmul(shift, h, 1 + scale))))


class Attention(nn.Module):
    """Every position attends to every other; zero before training. Called like a level: the condition goes unread."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm = group_norm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = zero(nn.Linear(channels, channels))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        height = x.shape[2]
        tokens = self.norm(x).flatten(2).transpose(1, 2)  # (B, T, C) with T = H W; a view, channels being last
        q, k, v = self.qkv(tokens).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # each (B, N, T, D)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)  # (B, T, C)
        return self.out(mixed).transpose(1, 2).unflatten(2, (height, -1))


def group_norm(channels: int, *, affine: bool = True) -> nn.GroupNorm:
    """At most 32 groups, of at least four channels each. `channels` is a multiple of four."""
    return nn.GroupNorm(math.gcd(32, channels // 4), channels, affine=affine)


def zero(layer: nn.Conv2d | nn.Linear) -> nn.Conv2d | nn.Linear:
    """The layer with its parameters set to zero, so that the branch that it ends starts as nothing."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _check(shape: tuple[int, int, int], *, width: int, levels: int, heads: int, patch: int) -> None:
    _, height, width_of_image = shape
    factor = 2 ** (levels - 1)
    if height % (patch * factor) or width_of_image % (patch * factor):
        raise ValueError(
            f"patch={patch} and levels={levels} need images with sides divisible by {patch * factor}, patch times a "
            f"halving for each level but one, but they are {height}x{width_of_image}: use patch=1, fewer levels or "
            "resize the images"
        )
    if width % 4:
        raise ValueError(f"width={width} must be divisible by 4, the channels of a normalisation group")
    if heads and width * factor % heads:
        raise ValueError(f"heads={heads} must divide the {width * factor} channels of the lowest resolution")
