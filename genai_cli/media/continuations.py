"""Series that go on from given ones, as a picture: what was given, what was drawn, and how far the draws differ."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from genai_cli.media.plots import DARK
from genai_cli.media.signals import (
    COLOURS,
    FINE,
    averaged,
    canvas,
    draw_axes,
    draw_line,
    fine,
    value_frame,
)

MOST_PANELS = 12
COLUMNS = 3
PANEL = (290, 150)  # width and height of a panel's box, in pixels
PITCH = (350, 192)  # from a panel to the next
MARGIN = (58, 58, 16)  # left, top, right of a sheet
BAND, FAINT, INK, REST = (196, 218, 238), (138, 178, 214), COLOURS[0], COLOURS[1]
FEW = 10  # samples of one series, below which each is drawn and no band of them
EXAMPLES = 3  # drawn upon the band


@dataclass(frozen=True)
class Given:
    """What samples (B, T, ...) of signals were given: sample i belongs to row i mod N."""

    values: Tensor  # (N, T, ...), NaN where nothing is known
    kept: Tensor  # (N, T, ...) bool: what of it stands in the samples; the rest was drawn anew


def plot_continuations(series: Tensor, names: Sequence[str], given: Given) -> Tensor:
    """(B, T, C) -> (3, H, W) uint8: a panel for each column of the first given series, with axes of its own.

    What stayed of the given series is black, and what it holds beyond that, which the model has not seen, orange. Of
    ten samples or more there are the median, the band from the 10 to the 90 % quantile, and three of them.
    """
    series = series.detach().double().cpu()
    num_given, length, num_columns = given.values.shape
    shown = max(1, min(num_given, len(series), MOST_PANELS // num_columns))
    panels = [(row, column) for row in range(shown) for column in range(min(num_columns, MOST_PANELS))]
    across = min(COLUMNS, len(panels))
    left, top, right = MARGIN
    down = math.ceil(len(panels) / across)
    size = (max(left + across * PITCH[0] - (PITCH[0] - PANEL[0]) + right, 720), top + down * PITCH[1])
    picture, draw, font = canvas(size)
    for i, (row, column) in enumerate(panels):
        box = (left + i % across * PITCH[0], top + i // across * PITCH[1], *PANEL)
        drawn = series[row::num_given, :, column]  # (S, T)
        values, kept = given.values[row, :, column].double().cpu(), given.kept[row, :, column].cpu()
        low, high = value_frame(torch.cat([_quantiles(drawn).flatten(), drawn[: _num_lines(drawn)].flatten(), values]))
        draw_axes(draw, font, box, low, high, length, has_values=True, has_steps=True)
        _draw_samples(draw, drawn, box, low, high)
        unseen = values.masked_fill(kept & ~_is_beside(~kept), torch.nan)
        draw_line(draw, unseen, box, low, high, REST, thickness=1.2)
        draw_line(draw, values.masked_fill(~kept, torch.nan), box, low, high, (0, 0, 0), thickness=2)
        draw.rectangle(fine([(box[0], box[1]), (box[0] + PANEL[0], box[1] + PANEL[1])]), outline=DARK, width=FINE)
        title = names[column] + (f", series {row}" if num_given > 1 else "")
        draw.text(fine([(box[0], box[1] - 4)])[0], title, fill=DARK, font=font, anchor="lb")
    has_rest = bool((given.values.isfinite() & ~given.kept).any())
    _legend(draw, font, len(series[::num_given]), has_rest=has_rest)
    return averaged(picture)


def _num_lines(drawn: Tensor) -> int:
    """How many samples are drawn line by line."""
    return len(drawn) if len(drawn) < FEW else EXAMPLES


def _quantiles(drawn: Tensor) -> Tensor:
    """(S, T) to the 10, 50 and 90 % quantiles (3, T) where there are enough, else to nothing, (0, T)."""
    if len(drawn) < FEW:
        return drawn[:0]
    return drawn.nan_to_num().quantile(drawn.new_tensor([0.1, 0.5, 0.9]), dim=0)


def _draw_samples(draw: Any, drawn: Tensor, box: tuple[int, int, int, int], low: float, high: float) -> None:
    x0, y0, width, height = box
    few = len(drawn) < FEW
    if not few:
        below, median, above = _quantiles(drawn)
        x = [x0 + width * step / max(drawn.shape[1] - 1, 1) for step in range(drawn.shape[1])]
        edges = [[y0 + height * (high - value) / (high - low) for value in edge.tolist()] for edge in (below, above)]
        outline = [*zip(x, edges[0], strict=True), *reversed(list(zip(x, edges[1], strict=True)))]
        if len(x) > 1:
            draw.polygon(fine(outline), fill=BAND)
    for line in drawn[: _num_lines(drawn)]:
        draw_line(draw, line, box, low, high, INK if few else FAINT, thickness=1)
    if not few:
        draw_line(draw, median, box, low, high, INK, thickness=2)


def _is_beside(where: Tensor) -> Tensor:
    """(T,) bool: true there and one step to each side."""
    padded = torch.nn.functional.pad(where, (1, 1))
    return padded[:-2] | padded[1:-1] | padded[2:]


def _legend(draw: Any, font: Any, count: int, *, has_rest: bool) -> None:
    drawn = [("samples", INK)] if count < FEW else [
        (f"median of {count} samples", INK), ("10 to 90 %", BAND), ("three of them", FAINT)
    ]  # fmt: skip
    rest = [("in the file, not seen", REST)] if has_rest else []
    x = float(MARGIN[0])
    for text, colour in [("given", (0, 0, 0)), *drawn, *rest]:
        draw.line(fine([(x, 18), (x + 18, 18)]), fill=colour, width=(7 if colour == BAND else 3) * FINE)
        draw.text(fine([(x + 24, 18)])[0], text, fill=DARK, font=font, anchor="lm")
        x += 24 + draw.textlength(text, font=font) / FINE + 18
