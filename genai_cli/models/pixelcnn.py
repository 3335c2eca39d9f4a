"""Gated PixelCNN (van den Oord et al. 2016, arXiv:1606.05328): each pixel given those above and to the left of it.

Two streams of causal convolutions without a blind spot, a softmax over the levels of each colour, an exact likelihood.
`genai train model=pixelcnn dataset=binary_mnist`, `genai sample run=latest given=FOLDER keep=top_half`
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai_cli.data.base import Batch, Spec
from genai_cli.models.base import GenerativeModel, Metrics
from genai_cli.nn.labels import sample_labels
from genai_cli.nn.random import RowRandom
from genai_cli.nn.raster import (
    DownConv,
    Memory,
    OwnPixel,
    Position,
    RasterAttention,
    RightConv,
    gate,
    shift_down,
    shift_right,
)
from genai_cli.nn.reduced import Reduction
from genai_cli.rules import NonNegativeInt, PositiveFloat, PositiveInt
from genai_cli.samplers.keep import given_rows, kept_pixels
from genai_cli.samplers.raster import draw_level, draw_raster


class PixelCNN(GenerativeModel):
    """`depth` gated layers of `width` features, kernels of `kernel` x `kernel`, of which the causal half counts.

    Colours are predicted red, green, blue: features are divided into groups that know 0, 1 or 2 colours of their own
    pixel. Two additions to the paper, since depth is dear on a CPU: a learned position, and kernels whose taps are 1,
    2, 4, ... apart in `dilations` layers, then 1 again. `attention` adds causal self-attention in the middle (Chen et
    al. 2017). `resolution` learns images averaged to that many pixels a side; the likelihood is then of these.
    `conditional` learns p(x | label).
    """

    modalities = ("image",)
    monitor = "nll"
    figures = {"nll": "nats, exact, of images as they are learned", "bits_per_dim": "bits per dimension, exact"}
    rules = {
        "kernel % 2 == 1": "kernel must be odd",
        "first_kernel % 2 == 1": "first_kernel must be odd",
    }
    tiny = {"width": 6, "depth": 2, "first_kernel": 3, "resolution": 4, "attention": True}

    def __init__(
        self,
        spec: Spec,
        *,
        width: PositiveInt = 32,
        depth: PositiveInt = 7,
        kernel: PositiveInt = 3,
        first_kernel: PositiveInt = 7,
        dilations: PositiveInt = 3,
        attention: bool = False,
        resolution: PositiveInt | None = None,
        conditional: bool = False,
    ):
        super().__init__(spec)
        if conditional and not spec.classes:
            raise ValueError("model.conditional=true needs data with labels; take model.conditional=false")
        if width < spec.shape[0]:
            raise ValueError(f"model.width={width} must be at least {spec.shape[0]}, the number of colours")
        self.reduction = Reduction(spec.shape, spec.value_range, spec.levels, resolution)
        self.network = TwoStreamNetwork(
            self.reduction.shape, spec.levels, width=width, depth=depth, kernel=kernel, first_kernel=first_kernel,
            dilations=dilations, attention=attention, num_classes=len(spec.classes) if conditional else 0,
        )  # fmt: skip
        self.conditional = conditional

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """Nats per colour of a pixel."""
        nll = self.nll(batch).mean()
        return nll / math.prod(self.reduction.shape), {"nll": nll.detach()}

    def nll(self, batch: Batch) -> Tensor:
        """-log p(x) in nats, (B,)."""
        levels = self.reduction.to_levels(batch[self.spec.key])  # (B, C, H, W)
        x = self.reduction.centred(levels)
        logits = self.network(x, batch["label"] if self.conditional else None)  # (B, C * L, H, W)
        logits = logits.float().unflatten(1, (levels.shape[1], -1)).transpose(1, 2)  # (B, L, C, H, W)
        return F.cross_entropy(logits, levels, reduction="none").sum((1, 2, 3))

    def evaluate(self, batch: Batch) -> Metrics:
        nll = self.nll(batch)
        return {"nll": nll, "bits_per_dim": nll / (math.prod(self.reduction.shape) * math.log(2))}

    @torch.inference_mode()
    def sample(
        self,
        random: RowRandom,
        *,
        label: NonNegativeInt | None = None,
        temperature: PositiveFloat = 1.0,
        given: Tensor | None = None,
        keep: Literal["top_half", "left_half"] = "top_half",
    ) -> Tensor:
        """Pixel by pixel, at the price of one pass. Of `given` images only what is not kept is drawn.

        A kept left half goes on row by row: what is drawn knows the rows above, whole, and its own row's left half.
        """
        if not self.conditional and label is not None:
            raise ValueError(f"label={label} needs a model trained with model.conditional=true")
        labels = sample_labels(random, len(self.spec.classes), label) if self.conditional else None
        channels, height, width = self.reduction.shape
        noise = random.uniform(channels, height, width)
        x, known = torch.zeros_like(noise), None
        if given is not None:
            known = kept_pixels(keep, height, width)
            x = self.reduction.centred(self.reduction.to_levels(given_rows(given, random)))

        def draw(outputs: Tensor, i: int, j: int, channel: int) -> Tensor:
            logits = outputs.unflatten(1, (channels, -1))[:, channel] / temperature  # (B, L)
            pixel = x[:, :, i, j].clone()
            pixel[:, channel] = self.reduction.centred(draw_level(logits, noise[:, channel, i, j]))
            return pixel

        draw_raster(self.network, draw, x, passes=channels, label=labels, known=known)
        return self.reduction.to_image(x)


class TwoStreamNetwork(nn.Module):
    """Pixels (B, C, H, W) in [-1, 1] to logits (B, C * L, H, W) of each colour, given the pixels before it."""

    def __init__(
        self, shape: tuple[int, int, int], levels: int, *,
        width: int, depth: int, kernel: int, first_kernel: int, dilations: int, attention: bool, num_classes: int,
    ):  # fmt: skip
        super().__init__()
        colours, height, columns = shape
        self.into_vertical = DownConv(colours, width, (first_kernel // 2 + 1, first_kernel))
        self.into_horizontal = RightConv(colours, width, first_kernel // 2 + 1)
        self.own = OwnPixel(colours, width) if colours > 1 else None
        self.position_down = Position(width, (height, columns))
        self.position_right = Position(width, (height, columns))
        self.layers = nn.ModuleList(
            GatedLayer(
                width,
                kernel=kernel,
                dilation=2 ** (index % dilations),
                colours=colours,
                num_classes=num_classes,
                is_last=index == depth - 1,
            )
            for index in range(depth)
        )
        self.attention = None
        if attention:
            self.attention = RasterAttention(width, colours=colours, size=(height, columns), heads=1)
        self.head = nn.ModuleList(
            [RightConv(width, 2 * width, colours=colours), RightConv(2 * width, colours * levels, colours=colours)]
        )

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        return self.horizontal(shift_right(x), x, self.vertical(shift_down(x), label), label)

    def vertical(self, above: Tensor, label: Tensor | None, memory: Memory | None = None) -> list[Tensor]:
        """See `samplers.raster.TwoStreams`."""
        position = self.position_down.whole() if memory is None else self.position_down.of_row(memory.place)
        v, links = self.into_vertical(above, memory) + position, []
        for layer in self.layers:
            v, link = layer.down(v, label, memory)
            links.append(link)
        return links

    def horizontal(
        self, left: Tensor, own: Tensor, links: list[Tensor], label: Tensor | None, memory: Memory | None = None
    ) -> Tensor:
        """See `samplers.raster.TwoStreams`."""
        position = self.position_right.whole() if memory is None else self.position_right.of_pixel(memory.place)
        h = self.into_horizontal(left, memory) + position
        if self.own is not None:
            h = h + self.own(own)
        for index, (layer, link) in enumerate(zip(self.layers, links, strict=True)):
            h = layer.right(h, link, label, memory)
            if self.attention is not None and index == (len(self.layers) - 1) // 2:
                h = self.attention(h, memory)
        return self.head[1](F.relu(self.head[0](F.relu(h), memory)), memory)


class GatedLayer(nn.Module):
    """One layer of both streams (Figure 2): gates, the vertical stream's link to the horizontal one, a residual."""

    def __init__(self, width: int, *, kernel: int, dilation: int, colours: int, num_classes: int, is_last: bool):
        super().__init__()
        reach = kernel // 2 + 1
        self.is_last = is_last  # nothing comes after this layer's vertical stream but its link
        self.down_conv = DownConv(width, 2 * width, (reach, kernel), dilation=dilation)
        self.link = nn.Conv2d(2 * width, 2 * width, 1)
        self.right_conv = RightConv(width, 2 * width, reach, dilation=dilation, colours=colours, gated=True)
        self.out = RightConv(width, width, colours=colours)
        self.label_right = nn.Embedding(num_classes, 2 * width) if num_classes else None
        self.label_down = nn.Embedding(num_classes, 2 * width) if num_classes and not is_last else None

    def down(self, v: Tensor, label: Tensor | None, memory: Memory | None) -> tuple[Tensor, Tensor]:
        """The vertical stream, and what it sends to the horizontal one (B, 2 C, H, W)."""
        v = self.down_conv(v, memory)
        link = self.link(v)
        if self.label_down is not None:
            v = v + self.label_down(label)[:, :, None, None]
        return (v if self.is_last else gate(v)), link

    def right(self, h: Tensor, link: Tensor, label: Tensor | None, memory: Memory | None) -> Tensor:
        """The horizontal stream."""
        update = self.right_conv(h, memory) + link
        if self.label_right is not None:
            update = update + self.label_right(label)[:, :, None, None]
        return h + self.out(gate(update), memory)
