"""Pictures inside a page: PNG as data URIs, tiles of examples, and what a run's sample sheets hold."""

import base64
import io
import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy
import torch
from torch import Tensor

from genai_cli.data.base import Spec
from genai_cli.media.files import png_bytes
from genai_cli.media.sheets import MOST_IMAGES, PADDING, images_to_uint8, sheet, sound, tokens_to_texts
from genai_cli.media.sounds import wav_bytes
from genai_cli.report.html import Markup, element, join

RULER = re.compile(r"^──── \d+ ─+$\n?", re.MULTILINE)  # between the texts of a sheet
LARGEST_SIDE = 4096  # pixels of a sheet that is read back


def image(pixels: Tensor, alt: str, *, width: int | None = None) -> Markup:
    """(C, H, W) uint8 as an <img> that holds its own content; `width` in CSS pixels, enlarged without smoothing."""
    source = "data:image/png;base64," + base64.b64encode(png_bytes(pixels)).decode()
    return element("img", src=source, alt=alt, style=f"width:{width or pixels.shape[2]}px")


def audio(samples: Tensor, spec: Spec) -> Markup:
    """A player that holds the sound of the first of `samples` (B, *shape); nothing, where samples are not heard."""
    heard = sound(samples, spec)
    if heard is None:
        return Markup("")
    content = wav_bytes(heard[0], sample_rate=heard[1])
    return element("audio", controls="", src="data:audio/wav;base64," + base64.b64encode(content).decode())


def tile(images: Tensor, columns: int) -> Tensor:
    """(N, C, H, W) uint8 to (3, H', W') at their own size, row by row, one white pixel between them."""
    count, _, height, width = images.shape
    rows = math.ceil(count / columns)
    grid = torch.full((3, rows * (height + 1) - 1, columns * (width + 1) - 1), 255, dtype=torch.uint8)
    for i, picture in enumerate(images):
        top, left = i // columns * (height + 1), i % columns * (width + 1)
        grid[:, top : top + height, left : left + width] = picture
    return grid


def show(examples: Tensor, spec: Spec, alt: str, *, columns: int = 8) -> Markup:
    """Examples (B, *shape) of any modality: tiles, a plot, texts, or what its sheet is."""
    if spec.modality == "image":
        pixels = tile(images_to_uint8(examples, spec), min(columns, len(examples)))
        scale = max(1, min(64, 768 // columns) // spec.shape[2])
        return image(pixels, alt, width=scale * pixels.shape[2])
    if spec.modality == "text":
        return join(*(element("pre", text) for text in tokens_to_texts(examples, spec)))
    content = sheet(examples, spec)
    if isinstance(content, str):
        return element("pre", content)
    return image(content, alt, width=420 if spec.modality == "points" else None)


def film(folder: Path, spec: Spec, num_samples: int, *, frames: int = 9) -> list[tuple[int, Markup]]:
    """(step, what the first samples were then) of at most `frames` sheets that training left in `folder`."""
    sheets = {
        int(path.stem.removeprefix("step-")): path
        for path in folder.glob("step-*")
        if path.stem.removeprefix("step-").isdecimal() and path.suffix in (".png", ".txt") and path.is_file()
    }
    steps = sorted(sheets)
    chosen = sorted({steps[round(i * (len(steps) - 1) / (frames - 1))] for i in range(frames)}) if steps else []
    pictures = [(step, _frame(sheets[step], spec, num_samples)) for step in chosen]
    return [(step, picture) for step, picture in pictures if picture is not None]


def _frame(path: Path, spec: Spec, num_samples: int) -> Markup | None:
    if path.suffix == ".txt":
        with path.open(encoding="utf-8", errors="replace") as file:
            return element("pre", RULER.sub("", file.read(700)).strip())
    pixels = read_png(path)
    if pixels is None:
        return None
    if spec.modality == "image":
        cells = cells_of(pixels, spec.shape, num_samples)
        if cells is not None:
            column = tile(cells[:6], 1)
            return image(column, f"samples of {path.stem}", width=max(64, column.shape[2]))
    return image(pixels[:, ::2, ::2], f"samples of {path.stem}", width=240)


def read_png(path: Path) -> Tensor | None:
    """(3, H, W) uint8, or None where the file is no picture or a huge one: nobody vouches for it."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(path.read_bytes()), formats=["PNG"]) as picture:
            if max(picture.size) > LARGEST_SIDE:
                return None
            return torch.from_numpy(numpy.array(picture.convert("RGB"))).permute(2, 0, 1)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def cells_of(grid: Tensor, shape: Sequence[int], count: int) -> Tensor | None:
    """The images of a sheet that `media.sheets.image_grid` made, (N, 3, H, W) at their own size; None if it did not."""
    _, height, width = shape
    count = min(count, MOST_IMAGES)
    columns = math.ceil(math.sqrt(count))
    scale, rest = divmod((grid.shape[2] - PADDING) // columns - PADDING, width)
    if rest or scale < 1 or grid.shape[1] != PADDING + math.ceil(count / columns) * (scale * height + PADDING):
        return None
    cells = []
    for i in range(count):
        top, left = (
            PADDING + i // columns * (scale * height + PADDING),
            PADDING + i % columns * (scale * width + PADDING),
        )
        cells.append(grid[:, top : top + scale * height : scale, left : left + scale * width : scale])
    return torch.stack(cells)
