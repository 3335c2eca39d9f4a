"""Image files of any kind, from anywhere: found, read, brought to one size, or named with the reason why not."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy
import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm")
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")  # of Pillow; never those that start other programs
MOST_PIXELS = 89_478_485  # Pillow's own threshold for a "decompression bomb"


class BrokenImage(Exception):
    """Why a file cannot be an example."""


def image_paths(folder: Path) -> Iterator[tuple[str, str | None]]:
    """The image files below `folder`, as `file_paths` gives them."""
    return file_paths(folder, SUFFIXES)


def file_paths(folder: Path, suffixes: tuple[str, ...]) -> Iterator[tuple[str, str | None]]:
    """The files below `folder` as (path/below/folder, None), and what cannot be followed as (path, reason).

    In the order of their names' code points, whatever the file system and the locale say. Hidden files and files
    whose names do not end in one of `suffixes` are passed over; links are followed, but not in circles.
    """
    yield from _walk(folder, "", {os.path.realpath(folder)}, suffixes)


def _walk(folder: Path, prefix: str, above: set[str], suffixes: tuple[str, ...]) -> Iterator[tuple[str, str | None]]:
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        yield prefix.rstrip("/") or ".", str(error.strerror)
        return
    for name in names:
        path = folder / name
        if name.startswith("."):
            continue
        real = os.path.realpath(path)
        if real in above:
            yield prefix + name, "a link that leads back to a folder above it"
        elif path.is_dir():
            yield from _walk(path, f"{prefix}{name}/", above | {real}, suffixes)
        elif name.lower().endswith(suffixes):
            yield prefix + name, None


def read_picture(path: Path) -> "Image":
    """The picture in RGB, upright, its first frame, on white where it is transparent. Raises BrokenImage."""
    from PIL import Image, ImageOps

    try:
        if path.stat().st_size == 0:
            raise BrokenImage("0 bytes")
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise BrokenImage(f"{image.width} x {image.height} pixels, too many to be decoded safely")
            image.load()
            return to_rgb(ImageOps.exif_transpose(image))
    except BrokenImage:
        raise
    except Exception as error:  # a broken file may make Pillow raise anything
        reason = "not an image" if isinstance(error, Image.UnidentifiedImageError) else str(error)
        raise BrokenImage(reason or type(error).__name__) from error


def to_rgb(image: "Image") -> "Image":
    """Any mode of Pillow as 8-bit RGB; 16-bit grey is divided by 257, so that white stays white."""
    from PIL import Image

    if image.mode.startswith("I"):
        levels = numpy.asarray(image).astype(numpy.int64)
        if levels.min() < 0 or levels.max() > 65535:
            raise BrokenImage("pixels of 32 bits")
        image = Image.fromarray(((levels + 128) // 257).astype(numpy.uint8))
    if image.mode == "F":
        raise BrokenImage("pixels are floating-point numbers")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def picture_digest(image: "Image") -> str:
    """sha256 of the pixels before any resizing: equal for equal pictures, whatever file holds them."""
    return hashlib.sha256(f"{image.width} {image.height} ".encode() + image.tobytes()).hexdigest()


def to_pixels(image: "Image", *, size: int, channels: int) -> Tensor:
    """The largest centred square of an RGB picture, resized: (C, size, size) uint8."""
    from PIL import Image, ImageOps

    image = ImageOps.fit(image, (size, size), method=Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(numpy.array(image if channels == 3 else image.convert("L")))
    return pixels.permute(2, 0, 1).contiguous() if channels == 3 else pixels.unsqueeze(0)
