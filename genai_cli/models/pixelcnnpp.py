"""PixelCNN++ (Salimans et al. 2017, arXiv:1701.05517): a mixture of discretised logistics in place of a softmax.

All colours of a pixel are drawn at once, for the means of the later ones are linear in the former. Gated residual
layers with short-cuts from the first half of the network to the second. `genai train model=pixelcnnpp dataset=mnist`
"""

import math
from collections.abc import Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai_cli.data.base import Batch, Spec
from genai_cli.models.base import GenerativeModel, Metrics
from genai_cli.nn.labels import sample_labels
from genai_cli.nn.logistic_mixture import draw, log_probability, logistic_mixture, num_parameters
from genai_cli.nn.random import RowRandom
from genai_cli.nn.raster import DownConv, Memory, RightConv, shift_down, shift_right
from genai_cli.nn.reduced import Reduction
from genai_cli.rules import Fraction, NonNegativeInt, PositiveInt
from genai_cli.samplers.keep import given_rows, kept_pixels
from genai_cli.samplers.raster import draw_raster


class PixelCNNpp(GenerativeModel):
    """2 `depth` residual layers of `width` features, the second half with short-cuts from the first.

    All at full resolution: the paper's down- and up-sampling, which cheapens long reach, is left out; and the kernels
    of the horizontal stream are 1 x 2, not 2 x 2, for the vertical stream is fed to every one of its layers.
    `resolution` learns images averaged to that many pixels a side. `conditional` learns p(x | label).
    """

    modalities = ("image",)
    monitor = "nll"
    figures = {"nll": "nats, exact, of images as they are learned", "bits_per_dim": "bits per dimension, exact"}
    tiny = {"width": 4, "depth": 1, "num_components": 2, "resolution": 4}

    def __init__(
        self,
        spec: Spec,
        *,
        width: PositiveInt = 24,
        depth: PositiveInt = 3,
        num_components: PositiveInt = 5,
        dropout: Fraction = 0.0,
        resolution: PositiveInt | None = None,
        conditional: bool = False,
    ):
        super().__init__(spec)
        if conditional and not spec.classes:
            raise ValueError("model.conditional=true needs data with labels; take model.conditional=false")
        self.reduction = Reduction(spec.shape, spec.value_range, spec.levels, resolution)
        channels = self.reduction.shape[0]
        self.network = ResidualStreams(
            channels, num_parameters(channels, num_components),
            width=width, depth=depth, dropout=dropout, num_classes=len(spec.classes) if conditional else 0,
        )  # fmt: skip
        self.conditional = conditional

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """Nats per colour of a pixel."""
        nll = self.nll(batch).mean()
        return nll / math.prod(self.reduction.shape), {"nll": nll.detach()}

    def nll(self, batch: Batch) -> Tensor:
        """-log p(x) in nats, (B,)."""
        x = self.reduction.centred(self.reduction.to_levels(batch[self.spec.key]))  # (B, C, H, W)
        mixture = logistic_mixture(self.network(x, batch["label"] if self.conditional else None), x.shape[1])
        return -log_probability(mixture, x, levels=self.spec.levels).sum((1, 2))

    def evaluate(self, batch: Batch) -> Metrics:
        nll = self.nll(batch)
        return {"nll": nll, "bits_per_dim": nll / (math.prod(self.reduction.shape) * math.log(2))}

    @torch.inference_mode()
    def sample(
        self,
        random: RowRandom,
        *,
        label: NonNegativeInt | None = None,
        given: Tensor | None = None,
        keep: Literal["top_half", "left_half"] = "top_half",
    ) -> Tensor:
        """Pixel by pixel, at the price of one pass. Of `given` images only what is not kept is drawn."""
        if not self.conditional and label is not None:
            raise ValueError(f"label={label} needs a model trained with model.conditional=true")
        labels = sample_labels(random, len(self.spec.classes), label) if self.conditional else None
        channels, height, width = self.reduction.shape
        noise = random.uniform(1 + channels, height, width)  # for the component, and for each colour
        x, known = torch.zeros_like(noise[:, 1:]), None
        if given is not None:
            known = kept_pixels(keep, height, width)
            x = self.reduction.centred(self.reduction.to_levels(given_rows(given, random)))

        def draw_pixel(outputs: Tensor, i: int, j: int, n: int) -> Tensor:
            mixture = logistic_mixture(outputs[:, :, None, None], channels)
            return draw(mixture, DrawnAhead(noise[:, :, i, j]), levels=self.spec.levels).flatten(1)

        draw_raster(self.network, draw_pixel, x, passes=1, label=labels, known=known)
        return self.reduction.to_image(x)


class DrawnAhead(RowRandom):
    """Uniform numbers (B, n) that were drawn before, handed out in turn: the streams of rows are slow to ask singly."""

    def __init__(self, noise: Tensor):
        self.index, self.device = range(len(noise)), noise.device
        self._noise, self._used = noise, 0

    def uniform(self, *shape: int) -> Tensor:
        first, self._used = self._used, self._used + math.prod(shape)
        return self._noise[:, first : self._used].unflatten(1, shape)

    def normal(self, *shape: int) -> Tensor:
        return torch.special.ndtri(self.uniform(*shape))


class ResidualStreams(nn.Module):
    """Pixels (B, C, H, W) in [-1, 1] to `outputs` numbers at each, from the pixels before it."""

    def __init__(
        self, channels: int, outputs: int, *, width: int, depth: int, dropout: float, num_classes: int
    ):  # fmt: skip
        super().__init__()
        options = {"dropout": dropout, "num_classes": num_classes}
        # One more channel of ones, which shows where the image ends (Section 2.2's code).
        self.into_down = DownConv(channels + 1, width, (2, 3))
        self.into_right = RightConv(channels + 1, width, 2)
        self.first_link = nn.Conv2d(width, width, 1)
        self.down_first = nn.ModuleList(GatedResidual(width, "down", **options) for _ in range(depth))
        self.right_first = nn.ModuleList(GatedResidual(width, "right", extra=1, **options) for _ in range(depth))
        self.down_second = nn.ModuleList(GatedResidual(width, "down", extra=1, **options) for _ in range(depth))
        self.right_second = nn.ModuleList(GatedResidual(width, "right", extra=2, **options) for _ in range(depth))
        self.head = nn.Conv2d(width, outputs, 1)

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        return self.horizontal(shift_right(x), x, self.vertical(shift_down(x), label), label)

    def vertical(self, above: Tensor, label: Tensor | None, memory: Memory | None = None) -> list[Tensor]:
        """See `samplers.raster.TwoStreams`."""
        links = [self.into_down(with_ones(above), memory)]
        for layer in self.down_first:
            links.append(layer(links[-1], None, label, memory))
        shortcuts = reversed(links[:-1])
        for layer in self.down_second:
            links.append(layer(links[-1], next(shortcuts), label, memory))
        return links

    def horizontal(
        self, left: Tensor, own: Tensor, links: list[Tensor], label: Tensor | None, memory: Memory | None = None
    ) -> Tensor:
        """See `samplers.raster.TwoStreams`."""
        from_above = iter(links)
        passed = [self.into_right(with_ones(left), memory) + self.first_link(next(from_above))]
        for layer in self.right_first:
            passed.append(layer(passed[-1], next(from_above), label, memory))
        return self._second_half(passed, from_above, label, memory)

    def _second_half(
        self, passed: list[Tensor], from_above: Iterator[Tensor], label: Tensor | None, memory: Memory | None
    ) -> Tensor:
        h, shortcuts = passed[-1], reversed(passed[:-1])
        for layer in self.right_second:
            h = layer(h, torch.cat([next(from_above), next(shortcuts)], dim=1), label, memory)
        return self.head(F.elu(h))


class GatedResidual(nn.Module):
    """x + a sigmoid(b), where a and b come from two causal convolutions of x, of `extra` streams and of the label."""

    def __init__(
        self, width: int, direction: Literal["down", "right"], *, extra: int = 0, dropout: float, num_classes: int
    ):
        super().__init__()

        def conv(outputs: int) -> nn.Module:
            if direction == "down":
                return DownConv(2 * width, outputs, (2, 3))
            return RightConv(2 * width, outputs, 2)

        self.first, self.second = conv(width), conv(2 * width)
        self.extra = nn.Conv2d(2 * extra * width, width, 1) if extra else None
        self.label = nn.Embedding(num_classes, 2 * width) if num_classes else None
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, extra: Tensor | None, label: Tensor | None, memory: Memory | None) -> Tensor:
        hidden = self.first(concat_elu(x), memory)
        if self.extra is not None:
            hidden = hidden + self.extra(concat_elu(extra))
        update = self.second(self.dropout(concat_elu(hidden)), memory)
        if self.label is not None:
            update = update + self.label(label)[:, :, None, None]
        value, gates = update.chunk(2, dim=1)
        return x + value * torch.sigmoid(gates)


def concat_elu(x: Tensor) -> Tensor:
    """(B, C, ...) to (B, 2 C, ...): what is lost on one side is kept on the other."""
    return F.elu(torch.cat([x, -x], dim=1))


def with_ones(x: Tensor) -> Tensor:
    """(B, C, H, W) to (B, C + 1, H, W)."""
    return torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
