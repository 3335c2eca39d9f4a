"""The networks of StyleGAN2 (Karras et al. 2020, arXiv:1912.04958), in plain operations.

Every weight is drawn from N(0, 1) and scaled where it is used, so that Adam moves all layers at the same relative speed
(Karras et al. 2018, arXiv:1710.10196, Section 4.1).
"""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai_cli.nn.random import RowRandom

GROUP = 4  # images over which the deviation of features is taken


class ScaledLinear(nn.Module):
    """A linear layer with weights from N(0, 1), scaled to unit gain; `rate` slows its learning."""

    def __init__(self, inputs: int, outputs: int, *, bias: float = 0.0, rate: float = 1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.full((outputs,), bias / rate))
        self.scale, self.rate = rate / math.sqrt(inputs), rate

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.scale, self.bias * self.rate)


class ScaledConv(nn.Module):
    """A convolution of odd size with weights from N(0, 1), scaled to unit gain, that keeps the side."""

    def __init__(self, inputs: int, outputs: int, size: int, *, has_bias: bool = True):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, size, size))
        self.bias = nn.Parameter(torch.zeros(outputs)) if has_bias else None
        self.scale, self.padding = 1 / math.sqrt(inputs * size * size), size // 2

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.scale, self.bias, padding=self.padding)


def activate(x: Tensor) -> Tensor:
    """A leaky ReLU that keeps the second moment."""
    return F.leaky_relu(x, 0.2) * math.sqrt(2)


class Mapping(nn.Module):
    """z, brought to unit length, to the intermediate latent w, by layers that learn at a hundredth of the rate."""

    def __init__(self, latent_dim: int, depth: int):
        super().__init__()
        self.layers = nn.ModuleList(ScaledLinear(latent_dim, latent_dim, rate=0.01) for _ in range(depth))

    def forward(self, latent: Tensor) -> Tensor:
        """(B, latent_dim) twice."""
        w = latent * (latent.square().mean(1, keepdim=True) + 1e-8).rsqrt()
        for layer in self.layers:
            w = activate(layer(w))
        return w


class ModulatedConv(nn.Module):
    """A convolution whose input channels are scaled by a style, and whose outputs have their deviation divided out.

    Section 2.2: w'_ijk = s_i w_ijk (Eq. 1), divided by sqrt(sum_ik w'_ijk^2 + eps) (Eq. 3). Both factors belong to a
    channel, so the input and the output are scaled in place of a weight for every image.
    """

    def __init__(self, inputs: int, outputs: int, size: int, latent_dim: int, *, demodulates: bool = True):
        super().__init__()
        self.style = ScaledLinear(latent_dim, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, size, size))
        self.scale, self.padding, self.demodulates = 1 / math.sqrt(inputs * size * size), size // 2, demodulates

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """(B, inputs, H, W) and (B, latent_dim) to (B, outputs, H, W)."""
        style = self.style(w)  # (B, inputs)
        weight = self.weight * self.scale
        x = F.conv2d(x * style[:, :, None, None], weight, padding=self.padding)
        if not self.demodulates:
            return x
        power = style.square() @ weight.square().sum((2, 3)).t()  # (B, outputs)
        return x * (power + 1e-8).rsqrt()[:, :, None, None]


class StyleLayer(nn.Module):
    """A modulated convolution, noise of a learned size for every pixel, and a bias (Figure 2d)."""

    def __init__(self, inputs: int, outputs: int, latent_dim: int):
        super().__init__()
        self.conv = ModulatedConv(inputs, outputs, 3, latent_dim)
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor, w: Tensor, random: RowRandom | None) -> Tensor:
        x = self.conv(x, w)
        if random is not None:
            x = x + self.noise_strength * random.normal(1, *x.shape[2:])
        return activate(x + self.bias[:, None, None])


class Synthesis(nn.Module):
    """A learned constant of base x base, two styled layers at every further side, and an image summed over all sides.

    Layer l takes the l-th of `num_layers` latents w; the colours of a side take that of its last layer. Bilinear
    enlargement is the paper's, with its filter of 1, 3, 3, 1.
    """

    def __init__(self, image_channels: int, latent_dim: int, base: int, channels: list[int]):
        super().__init__()
        self.constant = nn.Parameter(torch.randn(channels[0], base, base))
        self.first = StyleLayer(channels[0], channels[0], latent_dim)
        self.layers = nn.ModuleList()
        self.colours = nn.ModuleList([Colours(channels[0], image_channels, latent_dim)])
        for inputs, outputs in pairwise(channels):
            self.layers.append(StyleLayer(inputs, outputs, latent_dim))
            self.layers.append(StyleLayer(outputs, outputs, latent_dim))
            self.colours.append(Colours(outputs, image_channels, latent_dim))
        self.num_layers = 1 + len(self.layers)

    def forward(self, w: Tensor, random: RowRandom | None) -> Tensor:
        """(B, num_layers, latent_dim) to (B, C, H, W), unbounded. Without `random`, without noise."""
        x = self.first(self.constant.expand(len(w), -1, -1, -1), w[:, 0], random)
        image = self.colours[0](x, w[:, 0])
        for side, colours in enumerate(self.colours[1:]):
            number = 2 * side
            x = self.layers[number](_enlarge(x), w[:, number + 1], random)
            x = self.layers[number + 1](x, w[:, number + 2], random)
            image = _enlarge(image) + colours(x, w[:, number + 2])
        return image


class Colours(nn.Module):
    """Features to what they add to the image: a 1x1 convolution with a style, its deviation left as it is."""

    def __init__(self, inputs: int, image_channels: int, latent_dim: int):
        super().__init__()
        self.conv = ModulatedConv(inputs, image_channels, 1, latent_dim, demodulates=False)
        self.bias = nn.Parameter(torch.zeros(image_channels))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        return self.conv(x, w) + self.bias[:, None, None]


def _enlarge(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear")


class Discriminator(nn.Module):
    """Residual blocks that halve the side (Section 4.1), one map of how much images differ, and two linear layers."""

    def __init__(self, image_channels: int, base: int, channels: list[int]):
        super().__init__()
        self.from_image = ScaledConv(image_channels, channels[0], 1)
        self.blocks = nn.Sequential(*(DownBlock(inputs, outputs) for inputs, outputs in pairwise(channels)))
        last = channels[-1]
        self.mix = ScaledConv(last + 1, last, 3)
        self.hidden = ScaledLinear(base * base * last, last)
        self.head = ScaledLinear(last, 1)

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, H, W) to logits (B, 1)."""
        x = self.blocks(activate(self.from_image(image)))
        x = activate(self.mix(torch.cat([x, deviation_map(x)], dim=1)))
        return self.head(activate(self.hidden(x.flatten(1))))


class DownBlock(nn.Module):
    """Two 3x3 convolutions and half the side, beside a 1x1 convolution; the sum keeps the second moment."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv1 = ScaledConv(inputs, inputs, 3)
        self.conv2 = ScaledConv(inputs, outputs, 3)
        self.skip = ScaledConv(inputs, outputs, 1, has_bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = activate(self.conv2(F.avg_pool2d(activate(self.conv1(x)), 2)))
        return (h + self.skip(F.avg_pool2d(x, 2))) / math.sqrt(2)


def deviation_map(x: Tensor) -> Tensor:
    """(B, C, H, W) to (B, 1, H, W): the mean deviation of features within each group of up to four images.

    Karras et al. 2018, Section 3. A group is of neighbouring rows, so that ranks and micro-batches do not cut it.
    """
    size = math.gcd(GROUP, len(x))
    groups = x.unflatten(0, (-1, size))  # (B / 4, 4, C, H, W)
    deviation = (groups.var(1, correction=0) + 1e-8).sqrt().mean((1, 2, 3))  # (B / 4,)
    return deviation.repeat_interleave(size)[:, None, None, None].expand(-1, 1, *x.shape[2:])
