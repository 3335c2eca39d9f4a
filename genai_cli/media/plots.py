"""Points as a picture: translucent dots in a box with labelled axes, without matplotlib, whose import is slow."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

SIZE = 640  # pixels of the picture's sides
MARGIN = (60, 28, 20, 52)  # left, top, right, bottom: pixels between the picture's edge and the (square) box
FINE = 2  # dots are laid out on a grid this much finer, then averaged
INK = (31, 78, 140)  # RGB of many dots upon each other
GREY, DARK = (224, 226, 230), (70, 74, 82)  # grid lines; box and labels


def plot_points(points: Tensor) -> Tensor:
    """(B, D), D >= 2 -> (3, 640, 640) uint8: the first two coordinates. Outliers beyond the frame are not drawn.

    The frame is a square around the middle 99 % of each coordinate.
    """
    if points.dim() != 2 or points.shape[1] < 2:
        raise ValueError(f"points of shape {tuple(points.shape)} have no two coordinates to draw")
    points = points[:, :2].detach().double().cpu()
    points = points[points.isfinite().all(1)]  # (B', 2)
    center, half_width = frame(points)
    left, top, right, bottom = MARGIN
    width, height = SIZE - left - right, SIZE - top - bottom
    unit = (points - center) / (2 * half_width) + 0.5  # in [0, 1]^2 where inside the frame
    cover = opacity(unit, width, height)  # (height, width)

    picture = _axes(center.tolist(), half_width)  # (3, SIZE, SIZE) in [0, 255]
    box = picture[:, top : top + height, left : left + width]
    box += (torch.tensor(INK, dtype=torch.float32).view(3, 1, 1) - box) * cover
    return picture.round().to(torch.uint8)


def frame(points: Tensor) -> tuple[Tensor, float]:
    """Center (2,) and half the side of the square to draw."""
    if len(points) == 0:
        return torch.zeros(2, dtype=torch.float64), 1.0
    ordered = points.sort(0).values
    last = len(points) - 1
    low, high = ordered[math.floor(0.005 * last)], ordered[math.ceil(0.995 * last)]
    return (low + high) / 2, 0.58 * float((high - low).max()) or 1.0


def opacity(unit: Tensor, width: int, height: int) -> Tensor:
    """(height, width) in [0, 1): how much ink dots at `unit` (B, 2) leave; more dots, smaller and fainter ones."""
    column, row = (unit * torch.tensor([width * FINE, height * FINE])).floor().long().unbind(1)
    row = height * FINE - 1 - row  # y points up
    is_inside = (column >= 0) & (column < width * FINE) & (row >= 0) & (row < height * FINE)
    index = (row * width * FINE + column)[is_inside]
    counts = torch.bincount(index, minlength=width * height * FINE**2).view(1, 1, height * FINE, width * FINE).float()

    radius = 2.0 + 3.0 / (1 + len(unit) / 1000)  # fine pixels
    alpha = max(0.9 / (1 + len(unit) / 1500), 0.12)
    reach = math.ceil(radius)
    offset = torch.arange(-reach, reach + 1).float()
    disc = (radius + 0.5 - torch.hypot(offset.view(-1, 1), offset)).clamp(0, 1)
    dots = F.conv2d(counts, disc.view(1, 1, *disc.shape), padding=reach)
    cover = 1 - (1 - alpha) ** dots  # of `dots` translucent layers
    return F.avg_pool2d(cover, FINE)[0, 0]


def _axes(center: list[float], half_width: float) -> Tensor:
    """The empty box with its grid lines and their labels, (3, SIZE, SIZE) float32 in [0, 255]."""
    import numpy
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("RGB", (SIZE, SIZE), "white")
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=15)
    left, top, right, bottom = MARGIN[0], MARGIN[1], SIZE - MARGIN[2] - 1, SIZE - MARGIN[3] - 1
    for value in ticks(center[0] - half_width, center[0] + half_width):
        x = left + (value - center[0] + half_width) / (2 * half_width) * (right - left)
        draw.line([(x, top), (x, bottom)], fill=GREY)
        draw.text((x, bottom + 10), f"{value:g}", fill=DARK, font=font, anchor="mt")
    for value in ticks(center[1] - half_width, center[1] + half_width):
        y = bottom - (value - center[1] + half_width) / (2 * half_width) * (bottom - top)
        draw.line([(left, y), (right, y)], fill=GREY)
        draw.text((left - 10, y), f"{value:g}", fill=DARK, font=font, anchor="rm")
    draw.rectangle([left - 1, top - 1, right + 1, bottom + 1], outline=DARK)
    return torch.from_numpy(numpy.array(image)).permute(2, 0, 1).float()


def ticks(low: float, high: float) -> list[float]:
    """About six round numbers from `low` to `high`: steps of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(factor for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [round(i * step, 12) for i in range(first, last + 1)]
