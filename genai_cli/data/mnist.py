"""MNIST: 70,000 handwritten digits of 28 x 28 grey pixels (LeCun et al. 1998), inside the package, in full.

`genai train model=gan dataset=mnist` needs no network and no folder. A folder in torchvision's layout is used where
`dataset.root` or $GENAI_DATA has one. The last `validation` images of the training file are held out.
"""

import hashlib
import lzma
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from genai_cli.data.base import DataError, Dataset, SplitName, TensorSplit
from genai_cli.data.idx import find_raw, parse_idx, read_images
from genai_cli.data.pixels import image_spec, image_split, training_range
from genai_cli.rules import PositiveInt

EMBEDDED = Path(__file__).parent / "embedded" / "mnist"
TRAIN_COUNT = 60_000
PART_COUNT = 15_000  # training images in each of the four files that are decompressed side by side
EMBEDDED_SHA256 = {
    "train-images-0.xz": "1330d960ff0bab5bc641624f1b8cb2371f4074fe4afd227d0a33814b4b8b385c",
    "train-images-1.xz": "38c6a831d21e2b3203c95b59451292b0286ba4a4d178b8663d98282250c90199",
    "train-images-2.xz": "9f5b4d27ffe864bb5f26a9609f6bf8ef7126bfee317838f7b29f6158289d4272",
    "train-images-3.xz": "1666cc359fdd8d1bdd223b2568c83ab824f138052951d2c96919145018e9b551",
    "train-labels.xz": "7ad065e84763cf7575f5cce5c5e06215e9179e1a96ce6282aad10ef2fff145c0",
    "t10k-images.xz": "45f2b951eb4a4f2d8734d3be9484c3d3fc686b442c241194cec9b4d89f9d700a",
    "t10k-labels.xz": "8633efde8d3b1f51b986c982d8978d9e04dad5d086617acfd29f08093b177264",
}
# Of the files as they are distributed (md5, torchvision's list) and as torchvision extracts them (sha256).
CHECKSUMS = {
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


class Mnist(Dataset):
    """Handwritten digits, 28 x 28 grey, 55,000 / 5,000 / 10,000; in the package."""

    modality = "image"
    rules = {"validation < 60000": "validation must be below 60000, the number of training images"}

    def __init__(self, *, root: str | None = None, validation: PositiveInt = 5000):
        self.root = root
        self.validation = validation
        self.spec = image_spec(1, 28, 28, classes="0123456789")
        self._parts: dict[int, Tensor] = {}  # embedded training images read so far, for the next split

    def load(self, split: SplitName) -> TensorSplit:
        raw = find_raw(self.root, "MNIST")
        if raw is None and self.root is not None:
            raise DataError(
                f"no MNIST/raw in dataset.root={self.root}: put the four idx files (or .gz) there, "
                "or leave dataset.root out to use the copy in the package"
            )
        if split == "test":
            return image_split(*(read_images(raw, "test", CHECKSUMS) if raw else embedded_test()))
        start, stop = training_range(split, TRAIN_COUNT, self.validation)
        if raw is None:
            return image_split(*self._embedded_training(start, stop))
        images, labels = read_images(raw, "train", CHECKSUMS)
        return image_split(images[start:stop], labels[start:stop])

    def _embedded_training(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Training images `start` to `stop`, (N, 1, 28, 28), and their labels, (N,), both uint8."""
        needed = range(start // PART_COUNT, -(-stop // PART_COUNT))
        unread = [part for part in needed if part not in self._parts]
        with ThreadPoolExecutor() as pool:  # lzma lets other threads run
            self._parts |= zip(unread, pool.map(read_part, unread), strict=True)
        images = torch.cat([self._parts[part] for part in needed])
        offset = needed.start * PART_COUNT
        labels = parse_idx(read_embedded("train-labels.xz"))
        return images[start - offset : stop - offset], labels[start:stop]


def read_part(part: int) -> Tensor:
    """(15000, 1, 28, 28) uint8: one of the four files of training images."""
    content = bytearray(read_embedded(f"train-images-{part}.xz"))
    header = len(content) - PART_COUNT * 28 * 28  # part 0 begins with that of the idx file
    return torch.frombuffer(content, dtype=torch.uint8, offset=header).view(PART_COUNT, 1, 28, 28)


def embedded_test() -> tuple[Tensor, Tensor]:
    images = parse_idx(read_embedded("t10k-images.xz"))
    return images.unsqueeze(1), parse_idx(read_embedded("t10k-labels.xz"))


def read_embedded(name: str) -> bytes:
    """A file of the package, checked and decompressed."""
    path = EMBEDDED / name
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} is missing: install the package again ({error})") from error
    if hashlib.sha256(content).hexdigest() != EMBEDDED_SHA256[name]:
        raise DataError(f"{path} was altered: install the package again")
    return lzma.decompress(content)
