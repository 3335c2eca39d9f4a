"""Series and sounds as pictures: line plots side by side; waveforms beside spectrograms. Without matplotlib."""

import math
from collections.abc import Sequence
from typing import Any

import numpy
import torch
from torch import Tensor

from genai_cli.media.plots import DARK, GREY, ticks

COLOURS = (
    (31, 119, 180), (214, 98, 40), (44, 140, 84), (188, 54, 72), (128, 90, 170), (120, 110, 60), (222, 168, 20),
    (190, 90, 150),
)  # fmt: skip
GIVEN = (120, 124, 132)  # of a sound, what was given
FINE = 2  # pictures are drawn so many times larger, then averaged
PANEL = (300, 170)  # width and height of the box of one series, in pixels
MARGIN = (52, 40, 14, 24)  # left, top, right, bottom of a sheet of series
GAP = 12
COLUMNS = 3
NAMED = 8  # columns in the legend
WAVE = (420, 96)  # of a waveform, and of a spectrogram
LOUDEST_TO_SILENT = 70.0  # decibels from white to black in a spectrogram
INKS = ((10, 8, 30), (70, 20, 110), (180, 50, 100), (245, 130, 50), (252, 245, 190))  # of a spectrogram, rising


def plot_series(series: Tensor, names: Sequence[str], *, unit: str = "") -> Tensor:
    """(B, T, C) -> (3, H, W) uint8: a panel for each, a line for each column; all have the same axes."""
    series = series.detach().double().cpu()
    count, length, _ = series.shape
    columns = min(COLUMNS, count)
    rows = math.ceil(count / columns)
    width, height = PANEL
    left, top, right, bottom = MARGIN
    size = (left + columns * (width + GAP) - GAP + right, top + rows * (height + GAP) - GAP + bottom)
    picture, draw, font = canvas(size)
    low, high = value_frame(series)
    for i, one in enumerate(series):
        x0, y0 = left + i % columns * (width + GAP), top + i // columns * (height + GAP)
        draw_axes(
            draw, font, (x0, y0, width, height), low, high, length, has_values=i % columns == 0,
            has_steps=i // columns == rows - 1,
        )  # fmt: skip
        for column, values in enumerate(one.unbind(1)):
            draw_line(draw, values, (x0, y0, width, height), low, high, COLOURS[column % len(COLOURS)])
    _legend(draw, font, names, unit, left=left)
    return averaged(picture)


def draw_axes(
    draw: Any, font: Any, box: tuple[int, int, int, int], low: float, high: float, length: int, *, has_values: bool,
    has_steps: bool,
) -> None:  # fmt: skip
    """A panel's box, the lines of its values and the ticks of its steps, with their numbers where it has them."""
    x0, y0, width, height = box
    for value in ticks(low, high):
        y = y0 + height * (high - value) / (high - low)
        draw.line(fine([(x0, y), (x0 + width, y)]), fill=GREY, width=FINE)
        if has_values:
            draw.text(fine([(x0 - 6, y)])[0], f"{value:g}", fill=DARK, font=font, anchor="rm")
    for step in [value for value in ticks(0, max(length - 1, 1)) if value == round(value)]:
        x = x0 + width * step / max(length - 1, 1)
        draw.line(fine([(x, y0 + height), (x, y0 + height + 4)]), fill=DARK, width=FINE)
        if has_steps:
            draw.text(fine([(x, y0 + height + 6)])[0], f"{step:g}", fill=DARK, font=font, anchor="mt")
    draw.rectangle(fine([(x0, y0), (x0 + width, y0 + height)]), outline=DARK, width=FINE)


def plot_sounds(sounds: Tensor, sample_rate: int, *, num_given: int = 0) -> Tensor:
    """(B, T) in [-1, 1] -> (3, H, W) uint8: a row for each, its waveform and its spectrogram, time to the right.

    The first `num_given` samples of each were given: they are grey, and a line stands where they end.
    """
    sounds = sounds.detach().float().cpu().nan_to_num(0.0)
    width, height = WAVE
    left, top, right, bottom = MARGIN[0], 22, 14, 24
    size = (2 * (left + width) + right, top + len(sounds) * (height + GAP) - GAP + bottom)
    picture, draw, font = canvas(size)
    seconds = sounds.shape[1] / sample_rate
    starts = (left, 2 * left + width)
    for i, sound in enumerate(sounds):
        y0 = top + i * (height + GAP)
        _waveform(draw, sound, (starts[0], y0, width, height), num_given=num_given)
        image = spectrogram(sound, width * FINE, height * FINE)
        picture.paste(_image(image), (starts[1] * FINE, y0 * FINE))
        for x0, labels in (
            (starts[0], ("1", "-1")), (starts[1], (f"{sample_rate / 2000:g} kHz", "0")),
        ):  # fmt: skip
            draw.rectangle(fine([(x0, y0), (x0 + width, y0 + height)]), outline=DARK, width=FINE)
            if num_given:
                x = x0 + width * num_given / sounds.shape[1]
                draw.line(fine([(x, y0), (x, y0 + height)]), fill=COLOURS[1], width=FINE)
            for label, y, anchor in zip(labels, (y0, y0 + height), ("rt", "rb"), strict=True):
                draw.text(fine([(x0 - 5, y)])[0], label, fill=DARK, font=font, anchor=anchor)
    for x0, title in zip(starts, ("waveform", "spectrogram"), strict=True):
        title += ", grey: given" if num_given and title == "waveform" else ""
        draw.text(fine([(x0, top - 5)])[0], title, fill=DARK, font=font, anchor="lb")
        for value in ticks(0, seconds):
            x = x0 + width * value / seconds
            draw.text(fine([(x, size[1] - bottom + 5)])[0], f"{value:g} s", fill=DARK, font=font, anchor="mt")
    return averaged(picture)


def spectrogram(sound: Tensor, width: int, height: int) -> Tensor:
    """(T,) -> (3, height, width) uint8: decibels below the loudest of it, low frequencies at the bottom."""
    size = max(16, min(512, 2 ** int(math.log2(max(len(sound) / 8, 16)))))
    padded = torch.nn.functional.pad(sound, (0, max(0, size - len(sound))))
    power = torch.stft(
        padded, size, hop_length=max(1, size // 8), window=torch.hann_window(size), center=True, pad_mode="constant",
        return_complex=True,
    ).abs().square()  # fmt: skip
    decibels = 10 * (power / power.max().clamp(min=1e-12)).clamp(min=1e-12).log10()
    unit = (1 + decibels / LOUDEST_TO_SILENT).clamp(0, 1).flip(0)[None, None]
    unit = torch.nn.functional.interpolate(unit, (height, width), mode="bilinear", align_corners=False)[0, 0]
    inks = torch.tensor(INKS, dtype=torch.float32)
    place = unit * (len(INKS) - 1)
    below = place.floor().long().clamp(max=len(INKS) - 2)
    colours = inks[below].lerp(inks[below + 1], (place - below).unsqueeze(-1))
    return colours.permute(2, 0, 1).round().to(torch.uint8)


def value_frame(values: Tensor) -> tuple[float, float]:
    """Lowest and highest value to draw, a little apart, of what is finite."""
    finite = values[values.isfinite()]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return low - margin, high + margin


def draw_line(
    draw: Any, values: Tensor, box: tuple[int, int, int, int], low: float, high: float, colour: tuple[int, int, int],
    *, thickness: float = 1.5,
) -> None:  # fmt: skip
    """Values (T,), with a gap where one is not finite; `thickness` in pixels."""
    x0, y0, width, height = box
    points: list[tuple[float, float]] = []
    for step, value in enumerate([*values.tolist(), math.nan]):
        if math.isfinite(value):
            points.append((x0 + width * step / max(len(values) - 1, 1), y0 + height * (high - value) / (high - low)))
            continue
        if len(points) == 1:
            points.append((points[0][0] + 1, points[0][1]))
        if points:
            draw.line(fine(points), fill=colour, width=round(thickness * FINE), joint="curve")
        points = []


def _waveform(draw: Any, sound: Tensor, box: tuple[int, int, int, int], *, num_given: int) -> None:
    """The range of the values that fall on each column of pixels, joined to that of the column before."""
    x0, y0, width, height = box
    columns = width * FINE
    place = (torch.arange(len(sound)) * columns // len(sound)).clamp(max=columns - 1)
    level = (1 - sound.clamp(-1, 1).double()) / 2 * height  # pixels from the top
    low = torch.full((columns,), math.inf, dtype=torch.float64).scatter_reduce(0, place, level, "amin")
    high = torch.full((columns,), -math.inf, dtype=torch.float64).scatter_reduce(0, place, level, "amax")
    middle = FINE * (y0 + height / 2)
    draw.line([(x0 * FINE, middle), ((x0 + width) * FINE, middle)], fill=GREY, width=1)
    before: tuple[float, float] | None = None
    for column, (top, bottom) in enumerate(zip(low.tolist(), high.tolist(), strict=True)):
        if not math.isfinite(top):
            continue
        first, last = (top, bottom) if before is None else (min(top, before[1]), max(bottom, before[0]))
        x = x0 * FINE + column
        ink = GIVEN if column * len(sound) < num_given * columns else COLOURS[0]
        draw.line([(x, (y0 + first) * FINE), (x, (y0 + last) * FINE)], fill=ink, width=1)
        before = (top, bottom)


def _legend(draw: Any, font: Any, names: Sequence[str], unit: str, *, left: int) -> None:
    x = float(left)
    for column, name in enumerate(names[:NAMED]):
        text = name if len(name) <= 16 else name[:15] + "…"
        draw.line(fine([(x, 16), (x + 18, 16)]), fill=COLOURS[column % len(COLOURS)], width=3 * FINE)
        draw.text(fine([(x + 24, 16)])[0], text, fill=DARK, font=font, anchor="lm")
        x += 24 + draw.textlength(text, font=font) / FINE + 18
    rest = [f"and {len(names) - NAMED} more"] if len(names) > NAMED else []
    draw.text(fine([(x, 16)])[0], "  ".join(rest + ([unit] if unit else [])), fill=DARK, font=font, anchor="lm")


def canvas(size: tuple[int, int]) -> tuple[Any, Any, Any]:
    from PIL import Image, ImageDraw, ImageFont

    picture = Image.new("RGB", (size[0] * FINE, size[1] * FINE), "white")
    return picture, ImageDraw.Draw(picture), ImageFont.load_default(size=12 * FINE)


def _image(pixels: Tensor) -> Any:
    from PIL import Image

    return Image.fromarray(numpy.ascontiguousarray(pixels.permute(1, 2, 0).numpy()))


def fine(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(FINE * x, FINE * y) for x, y in points]


def averaged(picture: Any) -> Tensor:
    """(3, H, W) uint8 at the size that it is shown in."""
    small = picture.reduce(FINE)
    return torch.from_numpy(numpy.array(small)).permute(2, 0, 1)
