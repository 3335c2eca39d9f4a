"""R3GAN (Huang et al. 2025, arXiv:2501.05441): a GAN without tricks. `genai train model=r3gan dataset=mnist`

The relativistic pairing loss with zero-centred gradient penalties on data and fakes, which converges locally (Section
2), and residual networks without normalisation (Section 3). The backbone is that of the paper at the sizes at hand: one
inverted bottleneck with grouped convolutions a side and no block at the full side. Fakes are unbounded in training, for
a tanh would be flat where most pixels are; samples are clamped to the range of the data.
"""

from collections.abc import Iterable
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn import Parameter

from genai_cli.data.base import Batch, Spec
from genai_cli.models.base import GenerativeModel, Metrics, Step
from genai_cli.nn.conv import doubling, halving
from genai_cli.nn.convnets import split_side
from genai_cli.nn.game import Game
from genai_cli.nn.random import RowRandom
from genai_cli.nn.ranges import clamp_to_range
from genai_cli.rules import PositiveFloat, PositiveInt

GROUP = 16  # channels of a group of the 3x3 convolutions


class R3GAN(GenerativeModel):
    """Two residual networks, for square images whose side is 4 or 7 times a power of two.

    `width` is the number of channels at half of the side, doubled with every further halving; `depth` the number of
    blocks a side. Its inner layers have twice the channels.
    """

    modalities = ("image",)
    tiny = {"latent_dim": 4, "width": 8, "depth": 1}
    rules = {"width % 8 == 0": "width must be divisible by 8, half of a group of channels"}

    def __init__(
        self,
        spec: Spec,
        *,
        latent_dim: PositiveInt = 64,
        width: PositiveInt = 32,
        depth: PositiveInt = 1,
        loss: Literal["nonsaturating", "minimax", "lsgan", "wgan", "hinge", "relativistic"] = "relativistic",
        regularizer: Literal["none", "gp", "r1", "r2", "r1r2", "lecam", "consistency"] = "r1r2",
        regularizer_weight: PositiveFloat | None = None,
        regularizer_every: PositiveInt = 1,
        critic_steps: PositiveInt = 1,
        augment: Literal["none", "diffaug", "ada"] = "none",
    ):
        super().__init__(spec)
        self.latent_dim = latent_dim
        self.game = Game(
            spec, loss=loss, regularizer=regularizer, regularizer_weight=regularizer_weight,
            regularizer_every=regularizer_every, critic_steps=critic_steps, augment=augment,
        )  # fmt: skip
        self.batches_per_step = critic_steps
        base, num_stages = split_side(spec.shape)
        channels = [width * 2**stage for stage in range(num_stages)]  # from fine to coarse
        self.generator = Generator(spec.shape[0], latent_dim, base, channels[::-1], depth)
        self.discriminator = Discriminator(spec.shape[0], base, channels, depth)
        self.to(memory_format=torch.channels_last)

    def train_step(self, step: Step) -> None:
        self.game.play(step, self.discriminator_loss, self.generator_loss)

    def discriminator_loss(self, batch: Batch, *, regularize: bool = True) -> tuple[Tensor, Metrics]:
        with torch.no_grad():
            fake = self.generator(self.draw_latent(batch.random))
        real = batch["image"]
        return self.game.discriminator_loss(self.discriminator, real, fake, batch.random, regularize=regularize)

    def generator_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        fake = self.generator(self.draw_latent(batch.random))
        return self.game.generator_loss(self.discriminator, fake, batch["image"], batch.random)

    def sample(self, random: RowRandom) -> Tensor:
        return self.decode(self.draw_latent(random))

    def draw_latent(self, random: RowRandom) -> Tensor:
        return random.normal(self.latent_dim)

    def decode(self, latent: Tensor) -> Tensor:
        return clamp_to_range(self.generator(latent), self.spec.value_range)

    def parameter_groups(self) -> dict[str, Iterable[Parameter]]:
        return {"discriminator": self.discriminator.parameters(), "generator": self.generator.parameters()}

    def ema_parameters(self) -> Iterable[Parameter]:
        return self.generator.parameters()


class Generator(nn.Module):
    """Learned maps of base x base, weighted by a linear function of z; blocks and enlargements; then the image."""

    def __init__(self, image_channels: int, latent_dim: int, base: int, channels: list[int], depth: int):
        super().__init__()
        self.basis = nn.Parameter(torch.randn(channels[0], base, base))
        self.weights = nn.Linear(latent_dim, channels[0], bias=False)
        nn.init.normal_(self.weights.weight, std=latent_dim**-0.5)
        scale = (depth * len(channels)) ** -0.25
        stages: list[nn.Module] = [residual_blocks(channels[0], depth, scale)]
        for inputs, outputs in pairwise(channels):
            stages += [Enlarge(inputs, outputs), residual_blocks(outputs, depth, scale)]
        self.stages = nn.Sequential(*stages)
        self.to_image = doubling(channels[-1], image_channels)

    def forward(self, latent: Tensor) -> Tensor:
        """(B, latent_dim) to (B, C, H, W), unbounded."""
        maps = self.weights(latent)[:, :, None, None] * self.basis
        maps = self.stages(maps.contiguous(memory_format=torch.channels_last))
        return self.to_image(maps)


class Discriminator(nn.Module):
    """The generator's mirror image: blocks and reductions down to base x base, one number of each map, a logit."""

    def __init__(self, image_channels: int, base: int, channels: list[int], depth: int):
        super().__init__()
        self.from_image = halving(image_channels, channels[0])
        scale = (depth * len(channels)) ** -0.25
        stages: list[nn.Module] = [residual_blocks(channels[0], depth, scale)]
        for inputs, outputs in pairwise(channels):
            stages += [nn.AvgPool2d(2), nn.Conv2d(inputs, outputs, 1, bias=False)]
            stages += [residual_blocks(outputs, depth, scale)]
        self.stages = nn.Sequential(*stages)
        last = channels[-1]
        self.whole = nn.Conv2d(last, last, base, groups=last, bias=False)
        self.head = nn.Linear(last, 1)

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, H, W) to (B, 1)."""
        return self.head(self.whole(self.stages(self.from_image(image))).flatten(1))


class Enlarge(nn.Module):
    """Twice the side, bilinearly, and other channels."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.channels = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(self.channels(x), scale_factor=2, mode="bilinear")


def residual_blocks(channels: int, depth: int, scale: float) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(channels, scale) for _ in range(depth)))


class ResidualBlock(nn.Module):
    """1x1, grouped 3x3 and 1x1 convolutions beside the identity, which it is before training (Section 3.3).

    In place of normalisation the weights begin smaller by `scale`, L^(-1/4) for L blocks, and the last ones at zero
    (Zhang et al. 2019, arXiv:1901.09321).
    """

    def __init__(self, channels: int, scale: float):
        super().__init__()
        inner = 2 * channels
        self.expand = nn.Conv2d(channels, inner, 1)
        self.mix = nn.Conv2d(inner, inner, 3, padding=1, groups=inner // GROUP)
        self.reduce = nn.Conv2d(inner, channels, 1, bias=False)
        for layer in (self.expand, self.mix):
            nn.init.kaiming_normal_(layer.weight, a=0.2)
            nn.init.zeros_(layer.bias)
            with torch.no_grad():
                layer.weight.mul_(scale)
        nn.init.zeros_(self.reduce.weight)

    def forward(self, x: Tensor) -> Tensor:
        h = F.leaky_relu(self.expand(x), 0.2)
        return x + self.reduce(F.leaky_relu(self.mix(h), 0.2))
