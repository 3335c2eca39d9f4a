"""Smaller images for models whose cost grows with the number of pixels: averaged to a resolution, rounded to levels."""

import torch.nn.functional as F
from torch import Tensor

from genai_cli.nn.ranges import Range, from_unit, to_unit


class Reduction:
    """From images (B, C, H, W) of a data set to the levels (B, C, h, w) that a model learns, and back.

    `resolution` is h = w, a divisor of H and W; None keeps the size. Raises ValueError where it divides neither.
    """

    def __init__(self, shape: tuple[int, int, int], value_range: Range, levels: int, resolution: int | None):
        channels, height, width = shape
        self.factor = (1, 1)
        if resolution is not None:
            if height % resolution or width % resolution:
                raise ValueError(f"model.resolution={resolution} must divide the sides of {height} x {width} images")
            self.factor = (height // resolution, width // resolution)
        self.value_range, self.levels = value_range, levels
        self.shape = (channels, height // self.factor[0], width // self.factor[1])

    def to_levels(self, image: Tensor) -> Tensor:
        """(B, C, H, W) in the range of the data to (B, C, h, w) int64 from 0 to levels - 1, the nearest."""
        if self.factor != (1, 1):
            image = F.avg_pool2d(image, self.factor)
        return (to_unit(image, self.value_range) * (self.levels - 1)).round().long().clamp_(0, self.levels - 1)

    def centred(self, levels: Tensor) -> Tensor:
        """Levels as floats from -1 to 1, what networks take."""
        return levels * (2 / (self.levels - 1)) - 1

    def to_image(self, x: Tensor) -> Tensor:
        """(B, C, h, w) from -1 to 1 to (B, C, H, W) in the range of the data: each pixel a block."""
        image = from_unit((x + 1) / 2, self.value_range).clamp(*self.value_range)
        return image.repeat_interleave(self.factor[0], 2).repeat_interleave(self.factor[1], 3)
