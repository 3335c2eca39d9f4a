"""A hierarchy of latent maps, from one position to a grid: the way up from data and the way down from the prior.

Child 2021 (arXiv:2011.10650): the posterior of each latent map is a network of what is known so far and of the data's
features at its resolution. Sonderby et al. 2016 (arXiv:1602.02282, the ladder): the data give a Gaussian that knows
nothing of the way down, and the posterior is its product with the prior.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai_cli.nn.gaussians import reparameterise

Noise = Callable[[int, int, int], Tensor]  # (channels, h, w) -> (N, channels, h, w)
SMALLEST, LARGEST = -8.0, 4.0  # log variance


class LatentMap(NamedTuple):
    """A draw z (N, C, h, w) from the posterior, or from the prior, with the parameters of both."""

    z: Tensor
    mu: Tensor
    logvar: Tensor
    prior_mu: Tensor
    prior_logvar: Tensor


def bottleneck(inputs: int, width: int, outputs: int, side: int) -> nn.Sequential:
    """GELU and convolutions 1x1, 3x3, 1x1, with `width` channels between; no neighbours where there is one position."""
    kernel = 3 if side > 1 else 1
    last = nn.Conv2d(width, outputs, 1)
    nn.init.zeros_(last.weight)  # a branch begins as nothing, a Gaussian as N(0, 1)
    nn.init.zeros_(last.bias)
    return nn.Sequential(
        nn.GELU(), nn.Conv2d(inputs, width, 1), nn.GELU(), nn.Conv2d(width, width, kernel, padding=kernel // 2),
        nn.GELU(), last,
    )  # fmt: skip


def gaussian(parameters: Tensor) -> tuple[Tensor, Tensor]:
    """(N, 2 C, h, w) to a mean and a log variance."""
    mu, logvar = parameters.float().chunk(2, dim=1)
    return mu, logvar.clamp(SMALLEST, LARGEST)


def product_of_gaussians(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and log variance of the normalised product of two densities: precisions add (Eq. 17 of the ladder)."""
    precision, other = torch.exp(-first[1]), torch.exp(-second[1])
    total = precision + other
    return (first[0] * precision + second[0] * other) / total, -total.log()


class BottomUp(nn.Module):
    """Features of an image at each of `sides`, the coarsest first; the finest is at half of the image's side.

    To one position every place comes with weights of its own: an average would not say where a stroke is.
    """

    def __init__(self, channels: int, width: int, sides: list[int], depth: int):
        super().__init__()
        self.sides = sides
        self.stem = nn.Conv2d(channels, width, 4, stride=2, padding=1)
        self.gather = nn.Conv2d(width, width, sides[1])  # to one position
        self.blocks = nn.ModuleList(  # the finest first
            nn.ModuleList(bottleneck(width, max(1, width // 2), width, side) for _ in range(depth))
            for side in sides[::-1]
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        h = self.stem(x.contiguous(memory_format=torch.channels_last))
        features = []
        for side, blocks in zip(self.sides[::-1], self.blocks, strict=True):
            if h.shape[-1] != side:
                h = self.gather(h) if side == 1 else F.adaptive_avg_pool2d(h, side)
            for block in blocks:
                h = h + block(h)
            features.append(h)
        return features[::-1]


class TopDownBlock(nn.Module):
    """One latent map: its prior given what is known, its posterior given also the data's features, and what it adds."""

    def __init__(self, width: int, latent_channels: int, side: int, *, is_ladder: bool):
        super().__init__()
        middle = max(1, width // 2)
        self.latent_channels, self.side, self.is_ladder = latent_channels, side, is_ladder
        self.prior = bottleneck(width, middle, 2 * latent_channels + width, side)
        self.posterior = bottleneck(width if is_ladder else 2 * width, middle, 2 * latent_channels, side)
        self.project = nn.Conv2d(latent_channels, width, 1)
        self.mix = bottleneck(width, middle, width, side)

    def forward(
        self, h: Tensor, features: Tensor | None, noise: Noise, *, temperature: float = 1.0
    ) -> tuple[Tensor, LatentMap]:
        """`h` (N, width, side, side) with the latent map drawn and taken in. Without `features`, from the prior."""
        parameters, residual = self.prior(h).split([2 * self.latent_channels, h.shape[1]], dim=1)
        prior = posterior = gaussian(parameters)
        if features is not None and self.is_ladder:
            posterior = product_of_gaussians(gaussian(self.posterior(features)), prior)
        elif features is not None:
            posterior = gaussian(self.posterior(torch.cat([h, features], dim=1)))
        z = reparameterise(*posterior, temperature * noise(self.latent_channels, self.side, self.side))
        h = h + residual + self.project(z)
        return h + self.mix(h), LatentMap(z, *posterior, *prior)


class TopDown(nn.Module):
    """From one learned vector to features at the finest of `sides`, by `depth` latent maps at each.

    What one position knows reaches every place with weights of its own: repeated, all places would know the same.
    """

    def __init__(self, width: int, latent_channels: int, sides: list[int], depth: int, *, is_ladder: bool):
        super().__init__()
        self.start = nn.Parameter(torch.zeros(1, width, 1, 1))
        self.spread = nn.ConvTranspose2d(width, width, sides[1])  # from one position
        self.depth = depth
        self.blocks = nn.ModuleList(
            TopDownBlock(width, latent_channels, side, is_ladder=is_ladder) for side in sides for _ in range(depth)
        )

    def forward(
        self, count: int, features: list[Tensor] | None, noise: Noise, *, temperature: float = 1.0
    ) -> tuple[Tensor, list[LatentMap]]:
        """(count, width, side, side) and every latent map, the coarsest first."""
        h, latents = self.start.expand(count, -1, -1, -1), []
        for number, block in enumerate(self.blocks):
            if h.shape[-1] == 1 != block.side:
                h = self.spread(h)
            elif h.shape[-1] != block.side:
                h = F.interpolate(h, size=(block.side, block.side), mode="nearest")
            known = None if features is None else features[number // self.depth]
            h, latent = block(h, known, noise, temperature=temperature)
            latents.append(latent)
        return h, latents
