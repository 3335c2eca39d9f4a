"""Images as sequences of tokens, one a pixel in raster order, for models of sequences."""

import torch
from torch import Tensor

from genai_cli.data.base import Spec
from genai_cli.nn.reduced import Reduction

COLOUR_SHADES = 8  # of each colour by default: 512 tokens, as many as Chen et al. 2020 take


class PixelTokens:
    """From images (B, C, H, W) to tokens (B, T) and back.

    Each colour is rounded to `shades` evenly spaced ones (by default the levels of the data for one colour, 8 for
    three), and a pixel's colours together are one of shades ** C tokens. `resolution` averages to that side first.
    """

    def __init__(self, spec: Spec, *, shades: int | None, resolution: int | None):
        self.shades = shades or (spec.levels if spec.shape[0] == 1 else min(COLOUR_SHADES, spec.levels))
        if not 2 <= self.shades <= spec.levels:
            raise ValueError(f"model.shades={shades} must be from 2 to {spec.levels}, the levels of the data")
        self.reduction = Reduction(spec.shape, spec.value_range, self.shades, resolution)
        self.channels, self.height, self.width = self.reduction.shape
        self.length = self.height * self.width  # T
        self.vocabulary_size = self.shades**self.channels

    def to_tokens(self, image: Tensor) -> Tensor:
        """(B, T) int64."""
        levels = self.reduction.to_levels(image)  # (B, C, h, w)
        return (levels * self._place_values(levels.device)).sum(1).flatten(1)

    def to_image(self, tokens: Tensor) -> Tensor:
        levels = tokens.unflatten(1, (1, self.height, self.width)) // self._place_values(tokens.device) % self.shades
        return self.reduction.to_image(self.reduction.centred(levels))

    def _place_values(self, device: torch.device) -> Tensor:
        """(C, 1, 1): 1, shades, shades ** 2."""
        return (self.shades ** torch.arange(self.channels, device=device)).view(-1, 1, 1)


class CodeTokens:
    """The same of what are tokens already: sentences (B, T + 1) of codes, the first of which stands for nothing."""

    def __init__(self, spec: Spec):
        (self.length,) = spec.shape  # T
        self.vocabulary_size = spec.vocabulary_size or 0

    def to_tokens(self, sentences: Tensor) -> Tensor:
        """(B, T) int64."""
        return sentences[:, 1:]

    def to_image(self, tokens: Tensor) -> Tensor:
        """(B, T) int64: what a quantiser decodes."""
        return tokens
