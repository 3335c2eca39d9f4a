"""One thing to look at for many samples: a grid of images, plots of points, series and sounds, piano rolls, texts."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from genai_cli.data.base import Spec
from genai_cli.data.tokenizers import tokenizer_from_json
from genai_cli.media.continuations import Given, plot_continuations
from genai_cli.media.midi import Score
from genai_cli.media.plots import plot_points
from genai_cli.media.rolls import roll_sheet, score_of_roll
from genai_cli.media.signals import plot_series, plot_sounds
from genai_cli.media.sounds import SAMPLE_RATE, synthesise
from genai_cli.media.structures import HINT, structure_sheet

MOST_IMAGES = 256
MOST_TEXTS = 32
MOST_ROLLS = 8
MOST_STRUCTURES = 36
MOST_SERIES = 12
MOST_CLIPS = 8
SILENCE = 0.25  # seconds between clips that are heard one after the other
PADDING = 2  # pixels around and between images
LEGIBLE_WIDTH = 768  # pixels, to which a sheet of small images is enlarged by a whole factor


def sheet(samples: Tensor, spec: Spec, *, given: Given | None = None) -> Tensor | str:
    """A picture, (3, H, W) uint8, or for tokens a text, of `samples` (B, *spec.shape).

    Shows the first 256 images, the first 8 pieces of music and sounds, the first 12 series, the first 32 texts, the
    first 36 molecules, all points (of more than two dimensions, the first two). Series are shown as they are fed, so
    scaled, where their columns may have units of their own; those that go on from `given` ones in these units, column
    by column. Codes and latents that nobody decodes are numbers and
    points.
    """
    match spec.modality:
        case "image":
            return image_grid(images_to_uint8(samples[:MOST_IMAGES], spec))
        case "points" | "latents":
            return plot_points(samples.flatten(1))
        case "series" if given is not None:
            return plot_continuations(
                in_units(samples, spec), spec.columns, Given(in_units(given.values, spec), given.kept)
            )
        case "series":
            unit = "in standard deviations" if spec.scale else ""
            return plot_series(samples[:MOST_SERIES], spec.columns, unit=unit)
        case "audio":
            num_given = 0 if given is None else int(given.kept[0].sum())
            return plot_sounds(samples[:MOST_CLIPS], spec.sample_rate or SAMPLE_RATE, num_given=num_given)
        case "music" | "rolls":
            return roll_sheet(to_scores(samples[:MOST_ROLLS], spec))
        case "text" | "codes":
            return join_texts(tokens_to_texts(samples[:MOST_TEXTS], spec))
        case "molecules":
            molecules = tokens_to_texts(samples[:MOST_STRUCTURES], spec)
            drawn = structure_sheet(molecules)
            return f"({HINT})\n" + "\n".join(molecules) + "\n" if drawn is None else drawn
    raise ValueError(f"no sheet for the modality {spec.modality!r}")


def sound(samples: Tensor, spec: Spec) -> tuple[Tensor, int] | None:
    """(T,) in [-1, 1] and its rate in samples a second: what is heard of `samples`; None where that is nothing.

    Of music the first piece, of audio the first 8 clips one after the other.
    """
    if spec.modality == "audio":
        rate = spec.sample_rate or SAMPLE_RATE
        clips = samples[:MOST_CLIPS].detach().float().cpu()
        return F.pad(clips, (0, round(SILENCE * rate))).flatten(), rate
    if spec.modality in ("music", "rolls"):
        return synthesise(to_scores(samples[:1], spec)[0]), SAMPLE_RATE
    return None


def in_units(series: Tensor, spec: Spec) -> Tensor:
    """(B, T, C) as they are fed -> float64, on the CPU, in the units of the file, if the spec has them."""
    numbers = series.detach().cpu().double()
    return numbers * numbers.new_tensor(spec.scale) + numbers.new_tensor(spec.offset) if spec.scale else numbers


def images_to_uint8(images: Tensor, spec: Spec) -> Tensor:
    """(B, C, H, W) in the spec's range -> uint8 on the CPU. What is out of range is clamped, NaN is black."""
    low, high = spec.value_range or (-1.0, 1.0)
    unit = (images.detach().float().cpu() - low) / (high - low)
    return (unit.nan_to_num(0.0) * 255).round().clamp(0, 255).to(torch.uint8)


def image_grid(images: Tensor) -> Tensor:
    """(B, C, H, W) uint8, C = 1 or 3 -> (3, H', W') uint8: about as many rows as columns, on white.

    Small images are enlarged by a whole factor, pixel by pixel.
    """
    count, _, height, width = images.shape
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    scale = min(max(LEGIBLE_WIDTH // (columns * width), 1), 8)
    images = images.expand(-1, 3, -1, -1).repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    cell_height, cell_width = scale * height + PADDING, scale * width + PADDING
    grid = torch.full((3, PADDING + rows * cell_height, PADDING + columns * cell_width), 255, dtype=torch.uint8)
    for i, image in enumerate(images):
        top, left = PADDING + i // columns * cell_height, PADDING + i % columns * cell_width
        grid[:, top : top + scale * height, left : left + scale * width] = image
    return grid


def tokens_to_texts(tokens: Tensor, spec: Spec) -> list[str]:
    """(B, T) -> B texts; negative tokens stand for none."""
    if spec.tokenizer is None:
        raise ValueError("the spec of these tokens has no tokenizer")
    tokenizer = tokenizer_from_json(spec.tokenizer)
    return [tokenizer.decode(row[row >= 0]) for row in tokens.cpu()]


def to_scores(samples: Tensor, spec: Spec) -> list[Score]:
    """Tokens (B, T) of music, or piano rolls (B, T, 88) -> B scores."""
    if spec.modality == "rolls":
        return [score_of_roll(roll) for roll in samples.cpu()]
    return tokens_to_scores(samples, spec)


def tokens_to_scores(tokens: Tensor, spec: Spec) -> list[Score]:
    """(B, T) -> B scores."""
    tokenizer = tokenizer_from_json(spec.tokenizer or {})
    return [tokenizer.decode(row[row >= 0]) for row in tokens.cpu()]


def join_texts(texts: Sequence[str]) -> str:
    """Texts below each other, each under a line with its number."""
    return "".join(f"──── {i} {'─' * 60}\n{text}\n" for i, text in enumerate(texts))
