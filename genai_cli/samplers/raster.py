"""Drawing an image pixel by pixel, in raster order, with a network of two streams (nn/raster.py)."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from genai_cli.nn.raster import Memory


class TwoStreams(Protocol):
    """A network that predicts each pixel from those above and to the left of it."""

    def vertical(self, above: Tensor, label: Tensor | None, memory: Memory | None = None) -> list[Tensor]:
        """Of rows, each in the place of the one below it: what each layer of the horizontal stream is sent."""
        ...

    def horizontal(
        self, left: Tensor, own: Tensor, links: list[Tensor], label: Tensor | None, memory: Memory | None = None
    ) -> Tensor:
        """Of pixels, each in the place of the next, and of the colours of their own places: the outputs."""
        ...


def draw_raster(
    network: TwoStreams,
    draw: Callable[[Tensor, int, int, int], Tensor],
    x: Tensor,
    *,
    passes: int,
    label: Tensor | None = None,
    known: Tensor | None = None,
) -> Tensor:
    """Fill `x` (B, C, H, W) pixel by pixel, where `known` (H, W) is not true, and return it.

    `draw(outputs, i, j, n)` gives the pixel (B, C) at row i and column j from the network's outputs (B, P) there; the
    n-th of `passes` calls, of which each sees in the network what the former drew.
    """
    height, width = x.shape[2:]
    down, right = Memory(), Memory()
    for i in range(height):
        above = x[:, :, i - 1 : i] if i > 0 else torch.zeros_like(x[:, :, :1])
        links = network.vertical(above, label, down)
        down.advance()
        right.return_to_edge()
        for j in range(width):
            here = [link[..., j : j + 1] for link in links]
            left = x[:, :, i : i + 1, j - 1 : j] if j > 0 else torch.zeros_like(x[:, :, :1, :1])
            is_known = known is not None and bool(known[i, j])
            for n in range(1 if is_known else passes):
                outputs = network.horizontal(left, x[:, :, i : i + 1, j : j + 1], here, label, right)
                if not is_known:
                    x[:, :, i, j] = draw(outputs.flatten(1), i, j, n)
            right.advance()
    return x


def draw_level(logits: Tensor, uniform: Tensor) -> Tensor:
    """(B,) int64 from softmax of `logits` (B, L), by inverting the cumulative distribution at `uniform` (B,)."""
    cumulative = logits.double().softmax(-1).cumsum(-1)
    threshold = uniform.double().unsqueeze(1) * cumulative[:, -1:]
    return (cumulative <= threshold).sum(1).clamp_(max=logits.shape[-1] - 1)
