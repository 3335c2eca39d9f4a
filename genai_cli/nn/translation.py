"""Networks from image to image, and the judge of their patches: those of pix2pix and of CycleGAN.

Isola et al. 2017 (arXiv:1611.07004), Section 6.1, and Zhu et al. 2017 (arXiv:1703.10593), Section 7.2. Ck is a
convolution of k channels, a normalisation and a ReLU.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai_cli.nn.conv import doubling, halving
from genai_cli.nn.norm import BatchNorm
from genai_cli.nn.random import RowRandom
from genai_cli.nn.ranges import Range, tanh_to_range

Norm = Callable[[int], nn.Module]
PATCHES = {1: 0, 16: 1, 34: 2, 70: 3, 142: 4, 286: 5}  # pixels along a side that a logit sees -> halvings
MOST_DROPOUTS = 3  # stages of the decoder with dropout: "CD512-CD512-CD512-C512-..."


def instance_norm(channels: int) -> nn.Module:
    """Over the pixels of each channel of each image: what a batch normalisation is in batches of one."""
    return nn.InstanceNorm2d(channels, affine=True)


NORMS: dict[str, Norm] = {"instance": instance_norm, "batch": BatchNorm}


class TranslationUNet(nn.Module):
    """Images (B, C, H, W) to (B, C', H, W): `levels` halvings, as many doublings, and a skip past all below each level.

    `width` channels at half of the side, doubled at each level up to eight times. The images are extended at their
    borders to a multiple of 2^levels and cut back afterwards. Noise is dropout, in sampling too (pix2pix, Section 3.1).
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, width: int, levels: int, norm: Norm, dropout: float,
        value_range: Range | None,
    ):  # fmt: skip
        super().__init__()
        self.multiple, self.dropout, self.value_range = 2**levels, dropout, value_range
        channels = [in_channels, *(width * min(2**level, 8) for level in range(levels))]  # at level 0, 1, ...
        self.downs, self.ups = nn.ModuleList(), nn.ModuleList()
        for level in range(levels):
            # The first has no norm, and the innermost, of perhaps a single pixel, would be all zeros after one.
            is_plain = level in (0, levels - 1)
            down = [halving(channels[level], channels[level + 1], bias=is_plain)]
            down += [] if is_plain else [norm(channels[level + 1])]
            self.downs.append(nn.Sequential(*([] if level == 0 else [nn.LeakyReLU(0.2)]), *down))
        for level in reversed(range(levels)):
            inputs = channels[level + 1] * (1 if level == levels - 1 else 2)  # what came up beside what went down
            outputs = channels[level] if level > 0 else out_channels
            up = [nn.ReLU(), doubling(inputs, outputs, bias=level == 0)]
            self.ups.append(nn.Sequential(*up, *([norm(outputs)] if level > 0 else [])))

    def forward(self, x: Tensor, random: RowRandom) -> Tensor:
        height, width = x.shape[2:]
        below, right = -height % self.multiple, -width % self.multiple
        h = F.pad(x, (right // 2, right - right // 2, below // 2, below - below // 2), mode="replicate")
        skips = []
        for down in self.downs:
            h = down(h)  # (B, C_l, H / 2^l, W / 2^l)
            skips.append(h)
        skips.pop()
        for number, up in enumerate(self.ups):
            h = up(h)
            if self.dropout > 0 and number < min(MOST_DROPOUTS, len(self.ups) - 1):
                is_kept = random.uniform(*h.shape[1:]) >= self.dropout
                h = h * is_kept / (1 - self.dropout)
            if skips:
                h = torch.cat([h, skips.pop()], dim=1)
        h = h[:, :, below // 2 : below // 2 + height, right // 2 : right // 2 + width]
        return tanh_to_range(h, self.value_range)


class ResidualTranslator(nn.Module):
    """c7s1-w, d2w, d4w, R4w x depth, u2w, uw, c7s1-C' (CycleGAN, Section 7.2, after Johnson et al. 2016).

    The sides of the images are halved twice, so they must be multiples of 4. The way up is a 4x4 transposed convolution
    of stride 2, which covers every pixel evenly, in place of a 3x3 one.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, width: int, depth: int, norm: Norm, value_range: Range | None
    ):  # fmt: skip
        super().__init__()
        self.value_range = value_range
        self.layers = nn.Sequential(
            nn.ReflectionPad2d(3), nn.Conv2d(in_channels, width, 7, bias=False), norm(width), nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=False), norm(2 * width), nn.ReLU(),
            nn.Conv2d(2 * width, 4 * width, 3, stride=2, padding=1, bias=False), norm(4 * width), nn.ReLU(),
            *(ReflectedBlock(4 * width, norm) for _ in range(depth)),
            doubling(4 * width, 2 * width, bias=False), norm(2 * width), nn.ReLU(),
            doubling(2 * width, width, bias=False), norm(width), nn.ReLU(),
            nn.ReflectionPad2d(3), nn.Conv2d(width, out_channels, 7),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C', H, W)."""
        return tanh_to_range(self.layers(x), self.value_range)


class ReflectedBlock(nn.Module):
    """Rk: two 3x3 convolutions over reflected borders, added to what came in."""

    def __init__(self, channels: int, norm: Norm):
        super().__init__()
        convolution = [nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3, bias=False), norm(channels)]
        again = [nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3, bias=False), norm(channels)]
        self.layers = nn.Sequential(*convolution, nn.ReLU(), *again)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


def patch_discriminator(
    in_channels: int, shape: tuple[int, ...], *, width: int, patch: int, norm: Norm | None
) -> nn.Sequential:
    """(B, in_channels, H, W) to a map of logits (B, 1, h, w), each of `patch` x `patch` pixels; a key of PATCHES.

    Raises ValueError if images of `shape` (C, H, W) are too small for so many halvings.
    """
    num_halvings = PATCHES[patch]
    if patch > 1 and (min(shape[1:]) >> num_halvings) < 3:
        fitting = [size for size, halvings in PATCHES.items() if (min(shape[1:]) >> halvings) >= 3]
        raise ValueError(
            f"model.patch={patch} halves images {num_halvings} times, and these of {shape[1]}x{shape[2]} pixels would "
            f"vanish: use model.patch={fitting[-1] if fitting else 1} or smaller"
        )
    channels = [in_channels, *(width * min(2**stage, 8) for stage in range(num_halvings + 1))]
    layers: list[nn.Module] = []
    for stage in range(len(channels) - 1):
        inputs, outputs = channels[stage : stage + 2]
        has_norm = stage > 0 and norm is not None
        is_halving = stage < num_halvings
        kernel = {"kernel_size": 4, "stride": 2 if is_halving else 1, "padding": 1} if patch > 1 else {"kernel_size": 1}
        layers += [nn.Conv2d(inputs, outputs, **kernel, bias=not has_norm)]
        layers += [norm(outputs)] if has_norm else []
        layers += [nn.LeakyReLU(0.2)]
    last = {"kernel_size": 4, "padding": 1} if patch > 1 else {"kernel_size": 1}
    return nn.Sequential(*layers, nn.Conv2d(channels[-1], 1, **last))


def initialise(module: nn.Module) -> None:
    """All weights from N(0, 0.02), scales of normalisation around 1 (both papers)."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, BatchNorm | nn.InstanceNorm2d):
        nn.init.normal_(module.weight, mean=1.0, std=0.02)
