"""The idx format of MNIST and its successors, and the folder in which torchvision keeps the four files."""

import gzip
import hashlib
import math
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy
import torch
from torch import Tensor

from genai_cli.data.base import DataError
from genai_cli.data.places import find

# By official split: images, labels.
FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
_UINT8 = 0x08  # the type byte of the header


def find_raw(root: str | None, name: str) -> Path | None:
    """ROOT/`name`/raw, as torchvision lays it out, also one folder deeper: ROOT/mnist/MNIST/raw."""
    return find(root, [f"{name}/raw", f"{name.lower()}/{name}/raw"])


def has_all_files(raw: Path) -> bool:
    names = [name for pair in FILES.values() for name in pair]
    return all((raw / name).is_file() or (raw / f"{name}.gz").is_file() for name in names)


def read_images(raw: Path, part: str, checksums: Mapping[str, str]) -> tuple[Tensor, Tensor]:
    """The images (N, 1, H, W) and labels (N,), both uint8, of the "train" or "test" files in the folder `raw`."""
    images, labels = (_read_checked(raw, name, checksums) for name in FILES[part])
    if images.dim() != 3 or labels.dim() != 1 or len(images) != len(labels):
        raise DataError(f"{raw}: {len(images):,} images and {len(labels):,} labels of the {part} split do not match")
    return images.unsqueeze(1), labels


def _read_checked(raw: Path, name: str, checksums: Mapping[str, str]) -> Tensor:
    """`name`.gz or `name`. `checksums` by file name: md5 or sha256, told apart by their length."""
    paths = [raw / f"{name}.gz", raw / name]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise DataError(f"{raw} has no {name} and no {name}.gz: put one of them there")
    content = path.read_bytes()
    expected = checksums.get(path.name)
    if expected and hashlib.new("md5" if len(expected) == 32 else "sha256", content).hexdigest() != expected:
        raise DataError(f"{path} is not the original file, its checksum differs: remove it and fetch it again")
    try:
        return parse_idx(gzip.decompress(content) if path.suffix == ".gz" else content)
    except (ValueError, OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is not a whole idx file: {error}") from error


def parse_idx(content: bytes) -> Tensor:
    """A uint8 tensor. The header: 0, 0, the type, the number of dimensions, then each size as big-endian int32."""
    if content[:3] != bytes([0, 0, _UINT8]) or len(content) < 4:
        raise ValueError("its header is not that of unsigned bytes")
    header = 4 + 4 * content[3]
    shape = [int(size) for size in numpy.frombuffer(content[4:header], dtype=">i4")]
    if len(content) != header + math.prod(shape):
        raise ValueError(f"{len(content):,} bytes, where its header says {header + math.prod(shape):,}")
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=header).view(shape)
