"""Pairs made from any set of images: the source is what is left of an image when its edges, or its greys, are taken.

`genai train model=pix2pix dataset=edges`: from edges back to digits. The source is computed from the pixels as they are
fetched, in whole numbers, so that it is the same in every batch and on every machine.
"""

import dataclasses
import hashlib
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from genai_cli.data.base import Dataset, Split, SplitName
from genai_cli.data.cifar10 import Cifar10
from genai_cli.data.fashion_mnist import FashionMnist
from genai_cli.data.folder import Folder
from genai_cli.data.mnist import Mnist
from genai_cli.data.pixels import image_spec
from genai_cli.rules import FolderName, PositiveInt

SETS = {"mnist": Mnist, "fashion_mnist": FashionMnist, "cifar10": Cifar10, "folder": Folder}
LUMA = (299, 587, 114)  # thousandths of red, green and blue (ITU-R BT.601)
THRESHOLD = 64  # of 255
BLOCK = 4  # pixels along a side that become one in a small image


class Derived(Dataset):
    """Images with a source made from them: their edges, their greys, or a small copy."""

    modality = "image"
    has_source = True
    rules = {
        "(of == 'folder') == (path is not None)": "path goes with of=folder, and of=folder needs path",
        "of == 'folder' or image_size == 64": "image_size belongs to of=folder",
        "source == 'edges' or threshold is None": "threshold belongs to source=edges: leave it out, or give null",
        "of != 'folder' or root is None": "root belongs to sets of their own name: a folder is where path says",
    }

    def __init__(
        self,
        *,
        of: Literal["mnist", "fashion_mnist", "cifar10", "folder"] = "mnist",
        source: Literal["edges", "grey", "small"] = "edges",
        threshold: PositiveInt | None = None,  # the least step between neighbours that is an edge; null: THRESHOLD
        paired: bool = True,  # false: beside an image stands the source of another, half of the set away
        root: str | None = None,
        path: FolderName | None = None,
        image_size: PositiveInt = 64,  # of folders
    ):
        if of == "folder":
            self.images: Dataset = Folder(path=str(path), image_size=image_size)
        else:
            self.images = SETS[of](root=root)
        self.kind, self.threshold, self.paired = source, threshold or THRESHOLD, paired
        spec = self.images.spec
        channels = spec.shape[0] if source == "small" else 1
        self.spec = dataclasses.replace(spec, source=image_spec(channels, *spec.shape[1:]), is_paired=paired)

    def load(self, split: SplitName) -> "DerivedSplit":
        images = self.images.load(split)
        self.notes = self.images.notes
        return DerivedSplit(images, self.kind, threshold=self.threshold, shift=0 if self.paired else len(images) // 2)


class DerivedSplit(Split):
    """Every image of `split` with the source of the image `shift` places further on."""

    def __init__(self, split: Split, source: str, *, threshold: int, shift: int):
        self.split, self.source, self.threshold, self.shift = split, source, threshold, shift

    def __len__(self) -> int:
        return len(self.split)

    def fetch(self, positions: Tensor) -> dict[str, Tensor]:
        rows = self.split.fetch(positions)
        images = rows["image"]  # (B, C, H, W) in [-1, 1]
        if self.shift:
            images = self.split.fetch((positions + self.shift) % len(self.split))["image"]
        levels = ((images + 1) * 127.5).round().to(torch.int32)
        return {**rows, "source": self._derive(levels).to(torch.float32).div_(127.5).sub_(1)}

    def _derive(self, levels: Tensor) -> Tensor:
        """(B, C, H, W) in 0..255 to (B, C', H, W) in 0..255."""
        match self.source:
            case "edges":
                return edges(grey(levels), self.threshold)
            case "grey":
                return grey(levels)
            case _:
                return small(levels)

    def content_hash(self) -> str:
        words = f"{self.source} {self.threshold} {self.shift} {self.split.content_hash()}"
        return hashlib.sha256(words.encode()).hexdigest()

    def to(self, device: torch.device) -> "DerivedSplit":
        return DerivedSplit(self.split.to(device), self.source, threshold=self.threshold, shift=self.shift)

    @property
    def streams(self) -> bool:
        return self.split.streams


def grey(levels: Tensor) -> Tensor:
    """(B, 1 or 3, H, W) int32 to the brightness (B, 1, H, W)."""
    if levels.shape[1] == 1:
        return levels
    weights = torch.tensor(LUMA, dtype=levels.dtype, device=levels.device).view(3, 1, 1)
    return (levels * weights).sum(1, keepdim=True, dtype=torch.int32) // 1000


def edges(levels: Tensor, threshold: int) -> Tensor:
    """(B, 1, H, W) int32: 255 where a pixel is `threshold` or more from its right or lower neighbour, else 0."""
    right = (levels[..., :, 1:] - levels[..., :, :-1]).abs() >= threshold
    below = (levels[..., 1:, :] - levels[..., :-1, :]).abs() >= threshold
    return (F.pad(right, (0, 1)) | F.pad(below, (0, 0, 0, 1))).to(torch.int32) * 255


def small(levels: Tensor) -> Tensor:
    """(B, C, H, W) int32: every square of 4 x 4 pixels as the mean of them, on the same number of pixels."""
    height, width = levels.shape[2:]
    means = F.avg_pool2d(levels.float(), BLOCK, ceil_mode=True)  # exact: sums of 16 numbers below 256
    enlarged = means.round().to(torch.int32).repeat_interleave(BLOCK, 2).repeat_interleave(BLOCK, 3)
    return enlarged[..., :height, :width]
