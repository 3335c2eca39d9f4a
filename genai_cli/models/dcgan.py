"""Deep convolutional GAN (Radford et al. 2015, arXiv:1511.06434). `genai train model=dcgan dataset=mnist`

The guidelines of its Section 3: strides in place of pooling, batch normalisation but for the generator's output and the
discriminator's input, ReLU and a final tanh in the generator, LeakyReLU in the discriminator.
"""

import math
from collections.abc import Iterable
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from genai_cli.data.base import Batch, Spec
from genai_cli.models.base import GenerativeModel, Metrics, Step
from genai_cli.nn.adversarial import GENERATOR_LOSSES, discriminator_loss
from genai_cli.nn.conv import doubling, halving
from genai_cli.nn.norm import BatchNorm
from genai_cli.nn.random import RowRandom
from genai_cli.nn.ranges import tanh_to_range
from genai_cli.rules import PositiveInt


class DCGAN(GenerativeModel):
    """A GAN of convolutions, for square images whose side is 4 or 7 times a power of two.

    `width` is the number of channels at half of the side, doubled with every further halving: the paper's model of
    64x64 pixels is `width=128`.
    """

    modalities = ("image",)
    tiny = {"latent_dim": 4, "width": 4}

    def __init__(
        self,
        spec: Spec,
        *,
        latent_dim: PositiveInt = 100,
        width: PositiveInt = 64,
        loss: Literal["nonsaturating", "minimax"] = "nonsaturating",
    ):
        super().__init__(spec)
        self.latent_dim = latent_dim
        self.judge_fakes = GENERATOR_LOSSES[loss]
        base, num_stages = split_side(spec.shape)
        channels = [width * 2**stage for stage in range(num_stages)]  # from fine to coarse
        self.generator = Generator(spec, latent_dim, base, channels[::-1])
        self.discriminator = build_discriminator(spec.shape[0], base, channels)
        self.apply(initialise)

    def train_step(self, step: Step) -> None:
        step.minimize("discriminator", self.discriminator_loss)
        step.minimize("generator", self.generator_loss)

    def discriminator_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        with torch.no_grad():
            fake = self.sample(batch.random)
        # Two passes: data and fakes are each normalised by statistics of their own kind.
        real_logits = self.discriminator(batch["image"])  # (B, 1)
        fake_logits = self.discriminator(fake)  # (B, 1)
        metrics = {"real_probability": real_logits.sigmoid().mean(), "fake_probability": fake_logits.sigmoid().mean()}
        return discriminator_loss(real_logits, fake_logits), metrics

    def generator_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        fake = self.sample(batch.random)
        return self.judge_fakes(self.discriminator(fake)), {}

    def sample(self, random: RowRandom) -> Tensor:
        return self.decode(self.draw_latent(random))

    def draw_latent(self, random: RowRandom) -> Tensor:
        return random.normal(self.latent_dim)

    def decode(self, latent: Tensor) -> Tensor:
        return self.generator(latent)

    def parameter_groups(self) -> dict[str, Iterable[Parameter]]:
        return {"discriminator": self.discriminator.parameters(), "generator": self.generator.parameters()}

    def ema_parameters(self) -> Iterable[Parameter]:
        return self.generator.parameters()


class Generator(nn.Module):
    """z (latent_dim) to channels[0] maps of base x base, then doubled in side by each stage (Figure 1)."""

    def __init__(self, spec: Spec, latent_dim: int, base: int, channels: list[int]):
        super().__init__()
        self.value_range = spec.value_range
        self.project = nn.Sequential(
            nn.Linear(latent_dim, base * base * channels[0], bias=False),
            nn.Unflatten(1, (base, base, channels[0])),
        )
        stages: list[nn.Module] = [BatchNorm(channels[0]), nn.ReLU()]
        for inputs, outputs in pairwise(channels):
            stages += [doubling(inputs, outputs, bias=False), BatchNorm(outputs), nn.ReLU()]
        self.stages = nn.Sequential(*stages, doubling(channels[-1], spec.shape[0]))

    def forward(self, latent: Tensor) -> Tensor:
        """(B, latent_dim) to (B, C, H, W)."""
        maps = self.project(latent).permute(0, 3, 1, 2)  # channels-last: 1.15x as fast
        return tanh_to_range(self.stages(maps), self.value_range)


def build_discriminator(image_channels: int, base: int, channels: list[int]) -> nn.Sequential:
    """(B, C, H, W) to logits (B, 1): stages that halve the side down to base x base, then one linear layer."""
    stages: list[nn.Module] = [halving(image_channels, channels[0]), nn.LeakyReLU(0.2)]
    for inputs, outputs in pairwise(channels):
        stages += [halving(inputs, outputs, bias=False), BatchNorm(outputs), nn.LeakyReLU(0.2)]
    return nn.Sequential(*stages, nn.Flatten(), nn.Linear(base * base * channels[-1], 1))


def split_side(shape: tuple[int, ...]) -> tuple[int, int]:
    """The side of the coarsest maps and the number of halvings that lead to it: (1, 28, 28) gives (7, 2)."""
    height, width = shape[1:]
    for base in (4, 7):
        num_stages = int(math.log2(height / base)) if height >= base else 0
        if height == width == base * 2**num_stages and num_stages >= 2:
            return base, num_stages
    raise ValueError(
        f"model=dcgan takes square images with a side of 4 or 7 times a power of two, 16 at least "
        f"(16, 28, 32, 56, 64, 112, 128, ...), not {height}x{width}"
    )


def initialise(module: nn.Module) -> None:
    """All weights from N(0, 0.02) (Section 4); scales of normalisation, which it does not mention, around 1."""
    if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, BatchNorm):
        nn.init.normal_(module.weight, mean=1.0, std=0.02)
