"""Gated dilated causal convolutions over time (van den Oord et al. 2016, arXiv:1609.03499, Sections 2.1 to 2.5)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai_cli.nn.raster import gate


class DilatedLayer(nn.Module):
    """z = gate(W x_t + V x_(t - dilation) + U h), then x + residual(z) and a skip to the head.

    h is the class of the sequence, where there are `num_classes` (Section 2.5, global conditioning).
    """

    def __init__(self, width: int, *, dilation: int, num_classes: int = 0):
        super().__init__()
        self.dilation = dilation
        self.now, self.earlier = nn.Conv1d(width, 2 * width, 1), nn.Conv1d(width, 2 * width, 1, bias=False)
        self.out = nn.Conv1d(width, 2 * width, 1)
        self.label = nn.Embedding(num_classes, 2 * width) if num_classes else None

    def forward(self, x: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(B, C, T), with zeros before the beginning, to the next layer's input and the skip."""
        weight = torch.cat([self.earlier.weight, self.now.weight], 2)  # one convolution: half the time of two
        mixed = F.conv1d(F.pad(x, (self.dilation, 0)), weight, self.now.bias, dilation=self.dilation)
        if self.label is not None:
            mixed = mixed + self.label(label).unsqueeze(2)
        residual, skip = self.out(gate(mixed)).chunk(2, dim=1)
        return x + residual, skip

    def step(self, x: Tensor, before: Tensor, told: Tensor | None) -> tuple[Tensor, Tensor]:
        """The same for one place and the one `dilation` before, (B, C) each; `told` (B, 2 C) is what the class adds."""
        mixed = F.linear(x, self.now.weight.squeeze(2), self.now.bias)
        mixed = mixed + F.linear(before, self.earlier.weight.squeeze(2))
        mixed = mixed if told is None else mixed + told
        residual, skip = F.linear(gate(mixed), self.out.weight.squeeze(2), self.out.bias).chunk(2, dim=1)
        return x + residual, skip


class Queues:
    """What layers remember of growing sequences: of each as many inputs as it reaches back (Paine et al. 2016)."""

    def __init__(self, layers: Sequence[DilatedLayer], label: Tensor | None):
        self.layers = layers
        self.told = [None if layer.label is None else layer.label(label) for layer in layers]  # (B, 2 C) each
        self.held: list[Tensor] = []  # (dilation, B, C) of each layer, filled in a circle
        self.num_read = 0

    def read(self, x: Tensor) -> Tensor:
        """The sum of the skips, (B, C), after one more place (B, C) of each sequence."""
        if not self.held:
            self.held = [x.new_zeros(layer.dilation, *x.shape) for layer in self.layers]
        skips = torch.zeros_like(x)
        for layer, held, told in zip(self.layers, self.held, self.told, strict=True):
            oldest = held[self.num_read % layer.dilation]  # of `dilation` places ago
            before = oldest.clone()
            oldest.copy_(x)
            x, skip = layer.step(x, before, told)
            skips = skips + skip
        self.num_read += 1
        return skips

    def select(self, rows: Tensor) -> None:
        """Go on with the sequences `rows` (B',) in place of all."""
        self.held = [held[:, rows] for held in self.held]
        self.told = [None if told is None else told[rows] for told in self.told]
