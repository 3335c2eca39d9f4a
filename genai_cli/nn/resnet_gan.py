"""Residual blocks of class-conditional GANs, and self-attention (Brock et al. 2019, arXiv:1809.11096, Appendix B).

No layer is spectrally normalised here; `regularizers.spectrally_normalise` does that to a whole network.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai_cli.nn.conditional import Projection
from genai_cli.nn.norm import BatchNorm
from genai_cli.nn.stylegan import deviation_map


class ModulatedBatchNorm(nn.Module):
    """Batch normalisation whose scale and shift are linear functions of a vector: the class and z."""

    def __init__(self, num_channels: int, condition_dim: int):
        super().__init__()
        self.norm = BatchNorm(num_channels)
        self.own = nn.Linear(condition_dim, 2 * num_channels, bias=False)  # the norm has what all share

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(B, C, H, W) and (B, condition_dim)."""
        scale, shift = self.own(condition)[:, :, None, None].chunk(2, dim=1)  # (B, C, 1, 1) each
        h = self.norm(x)
        return h + (scale * h + shift)


class UpBlock(nn.Module):
    """Two 3x3 convolutions after their normalisations, at twice the side, beside a 1x1 convolution (Figure 15b)."""

    def __init__(self, inputs: int, outputs: int, condition_dim: int):
        super().__init__()
        self.norm1 = ModulatedBatchNorm(inputs, condition_dim)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.norm2 = ModulatedBatchNorm(outputs, condition_dim)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        h = self.conv1(F.interpolate(F.relu(self.norm1(x, condition)), scale_factor=2, mode="nearest"))
        h = self.conv2(F.relu(self.norm2(h, condition)))
        # A 1x1 convolution may as well come before the enlargement, where it is four times as cheap.
        return h + F.interpolate(self.skip(x), scale_factor=2, mode="nearest")


class DownBlock(nn.Module):
    """Two 3x3 convolutions, then half the side, beside a 1x1 convolution (Figure 15c)."""

    def __init__(self, inputs: int, outputs: int, *, is_first: bool):
        super().__init__()
        self.is_first = is_first  # an image is not rectified
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(x if self.is_first else F.relu(x))
        return F.avg_pool2d(self.conv2(F.relu(h)), 2) + self.skip(F.avg_pool2d(x, 2))


class SelfAttention(nn.Module):
    """Every place attends to others (Zhang et al. 2019, arXiv:1805.08318, Section 3); the identity before training.

    Queries and keys have an eighth of the channels, values half; keys and values are pooled by 2.
    """

    def __init__(self, channels: int):
        super().__init__()
        narrow = max(1, channels // 8)
        self.query = nn.Conv2d(channels, narrow, 1, bias=False)
        self.key = nn.Conv2d(channels, narrow, 1, bias=False)
        self.value = nn.Conv2d(channels, max(1, channels // 2), 1, bias=False)
        self.out = nn.Conv2d(max(1, channels // 2), channels, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        query = self.query(x).flatten(2).transpose(1, 2)  # (B, H W, C / 8)
        key = F.max_pool2d(self.key(x), 2).flatten(2)  # (B, C / 8, H W / 4)
        value = F.max_pool2d(self.value(x), 2).flatten(2).transpose(1, 2)  # (B, H W / 4, C / 2)
        mixed = (query @ key).softmax(2) @ value  # (B, H W, C / 2)
        return x + self.gamma * self.out(mixed.transpose(1, 2).unflatten(2, x.shape[2:]))


class Generator(nn.Module):
    """A vector to 4x4 or 7x7 maps, enlarged by blocks that see it, too, with attention at half of the full side."""

    def __init__(self, image_channels: int, condition_dim: int, base: int, channels: list[int]):
        super().__init__()
        self.project = nn.Sequential(
            nn.Linear(condition_dim, base * base * channels[0]), nn.Unflatten(1, (channels[0], base, base))
        )
        self.blocks = nn.ModuleList(UpBlock(a, b, condition_dim) for a, b in pairwise(channels))
        self.attention = SelfAttention(channels[-2])
        self.norm = BatchNorm(channels[-1])
        self.to_image = nn.Conv2d(channels[-1], image_channels, 3, padding=1)

    def forward(self, condition: Tensor) -> Tensor:
        """(B, condition_dim), z and the class, to (B, C, H, W), unbounded."""
        h = self.project(condition)
        for number, block in enumerate(self.blocks):
            if number == len(self.blocks) - 1:
                h = self.attention(h)
            h = block(h, condition)
        return self.to_image(F.relu(self.norm(h)))


class Discriminator(nn.Module):
    """Blocks that halve the side, with attention after the first; then how real the features are, and of the class.

    Before that one convolution sees how much neighbouring images differ (`deviation_map`), which the paper does not
    have: without it, in small batches, the generator draws one image for each class.
    """

    def __init__(self, image_channels: int, channels: list[int], num_classes: int):
        super().__init__()
        blocks = [DownBlock(image_channels, channels[0], is_first=True), SelfAttention(channels[0])]
        for inputs, outputs in pairwise(channels):
            blocks.append(DownBlock(inputs, outputs, is_first=False))
        self.blocks = nn.Sequential(*blocks)
        self.mix = nn.Conv2d(channels[-1] + 1, channels[-1], 3, padding=1)
        self.head = nn.Linear(channels[-1], 1)
        self.projection = Projection(channels[-1], num_classes)

    def forward(self, image: Tensor, label: Tensor) -> Tensor:
        """(B, C, H, W) and (B,) to logits (B, 1)."""
        maps = F.relu(self.blocks(image))
        maps = self.mix(torch.cat([maps, deviation_map(maps)], dim=1))
        features = F.relu(maps).sum((2, 3))  # (B, channels[-1])
        return self.head(features) + self.projection(features, label)
