"""Two folders of images that need not match: `dataset=unpaired dataset.source=horses dataset.target=zebras`.

Each folder is read as `dataset=folder` reads one. Which source stands beside which image is fixed and means nothing.
"""

import dataclasses
import hashlib
from typing import Literal

import torch
from torch import Tensor

from genai_cli.data.base import Dataset, Split, SplitName
from genai_cli.data.folder import Folder
from genai_cli.rules import FolderName, Fraction, PositiveInt


class Unpaired(Dataset):
    """Images of two domains, `dataset.source=FOLDER dataset.target=FOLDER`; no image belongs to another."""

    modality = "image"
    has_source = True
    rules = {
        "validation > 0 and test > 0 and validation + test < 1": "validation and test must be above 0, together below 1"
    }

    def __init__(
        self,
        *,
        source: FolderName,
        target: FolderName,
        image_size: PositiveInt = 64,  # the centred square of each image is resized to this
        channels: Literal[1, 3] = 3,
        validation: Fraction = 0.05,
        test: Fraction = 0.1,
        flip: bool = False,  # train on the mirror images too
        max_broken: Fraction = 0.01,
    ):
        options = {
            "image_size": image_size, "channels": channels, "validation": validation, "test": test, "flip": flip,
            "max_broken": max_broken,
        }  # fmt: skip
        self.sources, self.targets = Folder(path=source, **options), Folder(path=target, **options)
        source_spec = dataclasses.replace(self.sources.spec, classes=())
        self.spec = dataclasses.replace(self.targets.spec, source=source_spec)

    def load(self, split: SplitName) -> "TwoDomains":
        domains = TwoDomains(self.sources.load(split), self.targets.load(split))
        self.notes = self.sources.notes + self.targets.notes
        return domains


class TwoDomains(Split):
    """As many examples as the larger domain has images; the smaller one begins again at its end."""

    def __init__(self, sources: Split, targets: Split):
        self.sources, self.targets = sources, targets

    def __len__(self) -> int:
        return max(len(self.sources), len(self.targets))

    def fetch(self, positions: Tensor) -> dict[str, Tensor]:
        source = self.sources.fetch(positions % len(self.sources))["image"]
        return {**self.targets.fetch(positions % len(self.targets)), "source": source}

    def content_hash(self) -> str:
        words = f"{self.sources.content_hash()} {self.targets.content_hash()}"
        return hashlib.sha256(words.encode()).hexdigest()

    def to(self, device: torch.device) -> "TwoDomains":
        if self.streams:  # one domain in files: loader processes fetch both
            return self
        return TwoDomains(self.sources.to(device), self.targets.to(device))

    @property
    def streams(self) -> bool:
        return self.sources.streams or self.targets.streams
