"""Black and white MNIST, on which exact likelihoods are compared: 50,000 / 10,000 / 10,000 digits, 28 x 28.

`static` is the one draw that NADE, MADE and PixelCNN report on (Larochelle & Murray 2011), read from its files.
`dynamic` draws each training pixel anew whenever it is seen, white with the probability of its grey value
(Salakhutdinov & Murray 2008); what is held out is drawn once, from `seed`. Figures on the two do not compare.
"""

from pathlib import Path
from typing import Literal

import numpy
import torch
from torch import Tensor

from genai_cli.data.base import DataError, Dataset, Spec, Split, SplitName, TensorSplit
from genai_cli.data.mnist import Mnist
from genai_cli.data.places import find, missing
from genai_cli.nn.random import RowRandom, mix
from genai_cli.rules import NonNegativeInt

COUNTS = {"train": 50_000, "validation": 10_000, "test": 10_000}
FOLDERS = ("binary_mnist_static", "BinaryMNIST", ".")  # where the files of the static draw are looked for
PACKED = "binary_mnist_static.npz"  # keys train, valid, test: rows of 98 bytes, 784 bits
TEXT = {split: f"binarized_mnist_{name}.amat" for split, name in zip(COUNTS, ("train", "valid", "test"), strict=True)}
_STREAMS = {"train": 0, "validation": 1, "test": 2}


class BinaryMnist(Dataset):
    """Handwritten digits in black and white: binarised once for all (static) or whenever they are seen (dynamic)."""

    modality = "image"
    variant = "binarisation"
    rules = {"binarisation == 'dynamic' or seed == 0": "the static digits are drawn already: seed belongs to dynamic"}

    def __init__(
        self,
        *,
        binarisation: Literal["static", "dynamic"] = "static",
        root: str | None = None,
        seed: NonNegativeInt = 0,  # of the draw of what is held out
    ):
        self.binarisation = binarisation
        self.root = root
        self.seed = seed
        classes = () if binarisation == "static" else tuple("0123456789")  # the static files have no labels
        self.spec = Spec("image", (1, 28, 28), value_range=(-1.0, 1.0), classes=classes, levels=2)

    def load(self, split: SplitName) -> Split:
        if self.binarisation == "static":
            return TensorSplit({"image": self._read_static(split)}, decode_bits)
        return self._draw(split)

    def _read_static(self, split: SplitName) -> Tensor:
        """(N, 1, 28, 28) uint8 of 0 and 1."""
        path = find(self.root, [f"{folder}/{name}" for folder in FOLDERS for name in (PACKED, TEXT[split])])
        if path is None:
            remedy = (
                f"put {', '.join(TEXT.values())} (Larochelle & Murray's text files) or {PACKED} there, "
                "or take dataset.binarisation=dynamic, which needs no file"
            )
            raise missing("Static binary MNIST", self.root, [f"{FOLDERS[0]}/{PACKED}", TEXT[split]], remedy=remedy)
        pixels = read_packed(path, split) if path.name == PACKED else read_text(path)
        if pixels.shape != (COUNTS[split], 784):
            raise DataError(f"{path} has {pixels.shape[0]:,} rows of {pixels.shape[1]} pixels for {split}, where "
                            f"{COUNTS[split]:,} rows of 784 belong")  # fmt: skip
        return torch.from_numpy(pixels).view(-1, 1, 28, 28)

    def _draw(self, split: SplitName) -> Split:
        mnist = Mnist(root=self.root, validation=COUNTS["validation"]).load(split)
        grey, labels = mnist.tensors["image"], mnist.tensors["label"]
        generator = torch.Generator().manual_seed(mix(self.seed, _STREAMS[split]))
        bits = draw_bits(grey, torch.rand(grey.shape, generator=generator))
        if split == "train":
            return RedrawnSplit(TensorSplit({"image": bits, "grey": grey, "label": labels}, decode_bits))
        return TensorSplit({"image": bits, "label": labels}, decode_bits)


class RedrawnSplit(Split):
    """Digits with their grey values: fetched, they are black and white by one fixed draw; trained on, by a new one."""

    def __init__(self, split: TensorSplit):
        self.split = split

    def __len__(self) -> int:
        return len(self.split)

    def fetch(self, positions: Tensor) -> dict[str, Tensor]:
        return self.split.fetch(positions)

    def augment(self, rows: dict[str, Tensor], random: RowRandom) -> dict[str, Tensor]:
        grey = rows["grey"]  # (B, 1, 28, 28) uint8
        bits = draw_bits(grey, random.uniform(*grey.shape[1:]))
        return decode_bits({"image": bits, "label": rows["label"]})

    def content_hash(self) -> str:
        return self.split.content_hash()

    def to(self, device: torch.device) -> "RedrawnSplit":
        return RedrawnSplit(self.split.to(device))


def draw_bits(grey: Tensor, uniform: Tensor) -> Tensor:
    """uint8 of 0 and 1: white with probability grey / 255."""
    return (uniform * 255 < grey).to(torch.uint8)


def decode_bits(rows: dict[str, Tensor]) -> dict[str, Tensor]:
    """Stored rows to `image` (B, 1, 28, 28) float32 of -1 and 1 and, where there are labels, `label` (B,) int64."""
    rows = {**rows, "image": rows["image"].to(torch.float32).mul_(2).sub_(1)}
    if "label" in rows:
        rows["label"] = rows["label"].long()
    return rows


def read_packed(path: Path, split: SplitName) -> numpy.ndarray:
    """(N, 784) uint8 of 0 and 1, of one split of the npz file."""
    key = "valid" if split == "validation" else split
    try:
        with numpy.load(path) as arrays:
            return numpy.unpackbits(arrays[key], axis=1)
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        raise DataError(f"{path} is not the file of packed rows (train, valid, test): {error}") from error


def read_text(path: Path) -> numpy.ndarray:
    """(N, 784) uint8 of 0 and 1, from lines of 784 digits with spaces between them."""
    try:
        digits = path.read_bytes().translate(None, b" \t\r\n")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    pixels = numpy.frombuffer(bytearray(digits), dtype=numpy.uint8) - ord("0")
    if len(pixels) == 0 or len(pixels) % 784 or pixels.max() > 1:
        raise DataError(f"{path} is no text of lines of 784 zeros and ones: {len(pixels):,} characters")
    return pixels.reshape(-1, 784)
