"""CIFAR-10: 60,000 photographs of 32 x 32 pixels in ten classes (Krizhevsky 2009).

Read from the official binary version, ROOT/cifar-10-batches-bin/*.bin (also .bin.xz or .bin.gz, also some of the files
only), or through torchvision from ROOT/cifar-10-batches-py, which `dataset.download=true` fetches.
"""

from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from genai_cli.data.base import DataError, Dataset, Split, SplitName
from genai_cli.data.download import file_lock
from genai_cli.data.pixels import Mirrored, image_spec, image_split, training_range
from genai_cli.data.places import find, missing, roots
from genai_cli.data.windows import read_text
from genai_cli.rules import PositiveInt

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
BINARY, PYTHON = "cifar-10-batches-bin", "cifar-10-batches-py"
RECORD = 1 + 3 * 32 * 32  # bytes: the label, then 1024 red, 1024 green and 1024 blue pixels, row by row
PATTERNS = {"train": "data_batch_[1-5]*.bin*", "test": "test_batch*.bin*"}
OFFICIAL = {"train": 50_000, "test": 10_000}


class Cifar10(Dataset):
    """Small photographs, 32 x 32 RGB, 45,000 / 5,000 / 10,000; `dataset.download=true` fetches them."""

    modality = "image"
    rules = {"validation < 50000": "validation must be below 50000, the number of training images"}

    def __init__(
        self,
        *,
        root: str | None = None,
        download: bool = False,
        validation: PositiveInt = 5000,
        flip: bool = False,  # train on the mirror images too
    ):
        self.root = root
        self.download = download
        self.validation = validation
        self.flip = flip
        self.spec = image_spec(3, 32, 32, CLASSES)

    def load(self, split: SplitName) -> Split:
        part = "test" if split == "test" else "train"
        images, labels = self._training if part == "train" else self._read("test")
        if len(images) < OFFICIAL[part]:
            note = f"cifar10: {len(images):,} of the {OFFICIAL[part]:,} images of the official {part} split are there"
            self.notes = tuple(dict.fromkeys((*self.notes, note)))
        if split == "test":
            return image_split(images, labels)
        start, stop = training_range(split, len(images), self.validation)
        held = image_split(images[start:stop], labels[start:stop])
        return Mirrored(held) if self.flip and split == "train" else held

    @cached_property
    def _training(self) -> tuple[Tensor, Tensor]:
        return self._read("train")  # once for both splits that are cut from it

    def _read(self, part: str) -> tuple[Tensor, Tensor]:
        """The images (N, 3, 32, 32) and labels (N,), both uint8, of the official "train" or "test" split."""
        folder = find(self.root, [f"{parent}{name}" for name in (BINARY, PYTHON) for parent in ("", "cifar10/")])
        if folder is None and not self.download:
            remedy = (
                "unpack cifar-10-binary.tar.gz or cifar-10-python.tar.gz, of https://www.cs.toronto.edu/~kriz/cifar.html,"
                " there, or let dataset.download=true fetch it (170 MB)"
            )
            raise missing("CIFAR-10", self.root, [BINARY, PYTHON], remedy=remedy)
        if folder is not None and folder.name == BINARY:
            return read_binary(folder, part)
        if self.download:  # torchvision fetches only what is missing or altered
            folder = fetch(folder.parent if folder else roots(self.root)[0])
        return read_torchvision(folder.parent, part)


def read_binary(folder: Path, part: str) -> tuple[Tensor, Tensor]:
    """All records of the files of `part` in `folder`, in the order of their names; of x.bin and x.bin.xz, one."""
    files = {file.name.split(".")[0]: file for file in sorted(folder.glob(PATTERNS[part]), reverse=True)}
    if not files:
        raise DataError(f"{folder} has no {PATTERNS[part]}: put the files of the {part} split there")
    records = torch.cat([read_records(files[name]) for name in sorted(files)])  # (N, 3073)
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0].contiguous()


def read_records(file: Path) -> Tensor:
    """(N, 3073) uint8: the records of one file."""
    content = read_text(file)
    if not content or len(content) % RECORD:
        raise DataError(f"{file} is not whole: {len(content):,} bytes, no multiple of {RECORD}")
    records = torch.frombuffer(bytearray(content), dtype=torch.uint8).view(-1, RECORD)
    if int(records[:, 0].max()) >= len(CLASSES):
        raise DataError(f"{file} is not of CIFAR-10: it has the label {int(records[:, 0].max())}")
    return records


def read_torchvision(root: Path, part: str, *, download: bool = False) -> tuple[Tensor, Tensor]:
    """Through torchvision, which compares every file with its md5 sum before it unpickles any."""
    from torchvision.datasets import CIFAR10

    try:
        dataset = CIFAR10(str(root), train=part == "train", download=download)
    except (OSError, RuntimeError) as error:
        raise DataError(f"CIFAR-10 in {root / PYTHON} is missing, altered or not to be had: {error}") from error
    images = torch.from_numpy(dataset.data).permute(0, 3, 1, 2).contiguous()
    return images, torch.tensor(dataset.targets, dtype=torch.uint8)


def fetch(root: Path) -> Path:
    """Let torchvision download and unpack the files, checked against its md5 sums."""
    with file_lock(root / ".cifar10.lock"):
        read_torchvision(root, "test", download=True)
    return root / PYTHON
