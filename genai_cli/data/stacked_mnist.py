"""Stacked MNIST: three random digits as the red, green and blue of one image, which makes 1,000 classes of known share.

The customary test of how many modes a GAN finds (Metz et al. 2017, arXiv:1611.02163). Made from `dataset=mnist`, each
split from its own digits; which digits meet is fixed. `genai train model=dcgan dataset=stacked_mnist`
"""

import hashlib

import torch
from torch import Tensor

from genai_cli.data.base import Dataset, Split, SplitName, TensorSplit
from genai_cli.data.mnist import Mnist
from genai_cli.data.pixels import decode_images, image_spec
from genai_cli.rules import PositiveInt

SEEDS = {"train": 1, "validation": 2, "test": 3}
HELD_OUT = {"validation": 5_000, "test": 26_000}  # 26,000 are the images that modes are customarily counted on


class StackedMnist(Dataset):
    """Three digits in one colour image of 28 x 28, labels 000 to 999, 128,000 / 5,000 / 26,000; in the package."""

    modality = "image"
    rules = {"validation < 60000": "validation must be below 60000, the number of training images"}

    def __init__(self, *, root: str | None = None, validation: PositiveInt = 5000, count: PositiveInt = 128_000):
        self.mnist = self.per_channel = Mnist(root=root, validation=validation)
        self.count = count
        self.spec = image_spec(3, 28, 28, classes=[f"{label:03}" for label in range(1000)])

    def load(self, split: SplitName) -> "Stacked":
        digits = self.mnist.load(split)
        generator = torch.Generator().manual_seed(SEEDS[split])
        shape = (HELD_OUT.get(split, self.count), 3)
        return Stacked(digits, torch.randint(len(digits), shape, generator=generator))


class Stacked(Split):
    """Example i is the digits at places[i] in red, green and blue; its label their three figures, read as a number."""

    def __init__(self, digits: TensorSplit, places: Tensor):
        self.digits = digits
        self.places = places  # (N, 3) int64

    def __len__(self) -> int:
        return len(self.places)

    def fetch(self, positions: Tensor) -> dict[str, Tensor]:
        places = self.places[positions.to(self.places.device)]  # (B, 3)
        images, labels = self.digits.tensors["image"], self.digits.tensors["label"]
        figures = labels[places].long()  # (B, 3)
        image = images[places].squeeze(2)  # (B, 3, 28, 28)
        return decode_images({"image": image, "label": figures[:, 0] * 100 + figures[:, 1] * 10 + figures[:, 2]})

    def content_hash(self) -> str:
        digest = hashlib.sha256(self.digits.content_hash().encode())
        digest.update(self.places.cpu().numpy().tobytes())
        return digest.hexdigest()

    def to(self, device: torch.device) -> "Stacked":
        return Stacked(self.digits.to(device), self.places.to(device))
