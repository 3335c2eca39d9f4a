"""The two networks of the deep convolutional GAN (Radford et al. 2015, arXiv:1511.06434), for models that build on it.

The guidelines of its Section 3: strides in place of pooling, batch normalisation but for the generator's output and the
discriminator's input, ReLU and a final tanh in the generator, LeakyReLU in the discriminator.
"""

import math
from collections.abc import Callable
from itertools import pairwise

from torch import Tensor, nn

from genai_cli.data.base import Spec
from genai_cli.nn.conditional import ConditionalBatchNorm
from genai_cli.nn.conv import doubling, halving
from genai_cli.nn.norm import BatchNorm
from genai_cli.nn.ranges import tanh_to_range


class Generator(nn.Module):
    """z (latent_dim) to channels[0] maps of base x base, then doubled in side by each stage (Figure 1).

    `norm` may make layers that know of classes (`ConditionalBatchNorm`): `forward` then takes the label of each row.
    """

    def __init__(
        self, spec: Spec, latent_dim: int, base: int, channels: list[int],
        norm: Callable[[int], nn.Module] = BatchNorm,
    ):  # fmt: skip
        super().__init__()
        self.value_range = spec.value_range
        self.project = nn.Sequential(
            nn.Linear(latent_dim, base * base * channels[0], bias=False),
            nn.Unflatten(1, (base, base, channels[0])),
        )
        stages: list[nn.Module] = [norm(channels[0]), nn.ReLU()]
        for inputs, outputs in pairwise(channels):
            stages += [doubling(inputs, outputs, bias=False), norm(outputs), nn.ReLU()]
        self.stages = nn.Sequential(*stages, doubling(channels[-1], spec.shape[0]))

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        """(B, latent_dim) to (B, C, H, W)."""
        maps = self.project(latent).permute(0, 3, 1, 2)  # channels-last: 1.15x as fast
        for stage in self.stages:
            maps = stage(maps, label) if isinstance(stage, ConditionalBatchNorm) else stage(maps)
        return tanh_to_range(maps, self.value_range)


def build_discriminator(
    image_channels: int,
    base: int,
    channels: list[int],
    *,
    norm: Callable[[int], nn.Module] | None = BatchNorm,
    outputs: int = 1,
) -> nn.Sequential:
    """(B, C, H, W) to logits (B, outputs): stages that halve the side down to base x base, then one linear layer."""
    stages: list[nn.Module] = [halving(image_channels, channels[0]), nn.LeakyReLU(0.2)]
    for inputs, outputs_of_stage in pairwise(channels):
        # A bias before a normalisation would be undone by it.
        stages.append(halving(inputs, outputs_of_stage, bias=norm is None))
        stages += [] if norm is None else [norm(outputs_of_stage)]
        stages.append(nn.LeakyReLU(0.2))
    return nn.Sequential(*stages, nn.Flatten(), nn.Linear(base * base * channels[-1], outputs))


def layer_norm(channels: int) -> nn.GroupNorm:
    """Over all channels and pixels of one image: what Gulrajani et al. 2017 (Section 4) put in a critic."""
    return nn.GroupNorm(1, channels)


DISCRIMINATOR_NORMS: dict[str, Callable[[int], nn.Module] | None] = {
    "batch": BatchNorm, "layer": layer_norm, "none": None
}  # fmt: skip


def split_side(shape: tuple[int, ...]) -> tuple[int, int]:
    """The side of the coarsest maps and the number of halvings that lead to it: (1, 28, 28) gives (7, 2)."""
    height, width = shape[1:]
    for base in (4, 7):
        num_stages = int(math.log2(height / base)) if height >= base else 0
        if height == width == base * 2**num_stages and num_stages >= 2:
            return base, num_stages
    raise ValueError(
        f"this model takes square images with a side of 4 or 7 times a power of two, 16 at least "
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
