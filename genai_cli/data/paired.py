"""Your own pairs of images: `genai train model=pix2pix dataset=paired dataset.path=facades dataset.image_size=256`.

Three ways to lay them out:

- a folder with the sub-folders `source` and `target` (or A and B), in which the two of a pair have the same name;
- a table, `dataset.path=pairs.csv`, with the columns source and target: paths as seen from the table;
- a folder of images that show both beside each other, A|B, as the data sets of pix2pix do, in sub-folders train, val
  and test where there are any: `dataset.layout=side_by_side`.

A pair belongs to a split by those sub-folders, or else by the pixels of its target, as in `dataset=folder`.
"""

import csv
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from genai_cli.data.base import DataError, Dataset, Split, SplitName, TensorSplit
from genai_cli.data.folder import printable
from genai_cli.data.pictures import BrokenImage, image_paths, picture_digest, read_picture, to_pixels
from genai_cli.data.pixels import decode_images, image_spec
from genai_cli.data.shares import share_of_digest, split_of
from genai_cli.rules import FolderName, Fraction, PositiveInt

if TYPE_CHECKING:
    from PIL.Image import Image

SIDES = (("source", "target"), ("A", "B"), ("a", "b"))
OFFICIAL = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}


@dataclass(frozen=True)
class Place:
    """Where a pair lies: two files, or one that shows both."""

    name: str
    source: Path
    target: Path | None  # None: the right half of `source`


@dataclass(frozen=True)
class Pair:
    """A readable pair."""

    place: Place
    digest: str  # of the target's pixels
    source_digest: str
    pixels: tuple[Tensor, Tensor] | None  # source and target, (C, S, S) uint8 each; None where too many to hold


class Paired(Dataset):
    """Your own pairs of images, `dataset.path=FOLDER`: two sub-folders, a table, or A|B side by side."""

    modality = "image"
    has_source = True
    rules = {
        "validation > 0 and test > 0 and validation + test < 1": "validation and test must be above 0, together below 1"
    }

    def __init__(
        self,
        *,
        path: FolderName,
        layout: Literal["auto", "side_by_side"] = "auto",  # auto: two sub-folders, or a table
        swap: bool = False,  # take the second image for the source
        image_size: PositiveInt = 64,  # the centred square of each image is resized to this
        channels: Literal[1, 3] = 3,
        source_channels: Literal[1, 3] = 3,
        validation: Fraction = 0.05,
        test: Fraction = 0.1,
        memory_limit: PositiveInt = 1000,  # megabytes; more decoded images than that are read as they are needed
    ):
        self.path = Path(path).expanduser()
        self.layout, self.swap = layout, swap
        self.image_size = image_size
        self.channels = (source_channels, channels)
        self.shares = {"test": test, "validation": validation}
        self.memory_limit = memory_limit
        if not self.path.exists():
            raise DataError(f"dataset.path={path} is not there: give a folder of pairs, or a table of them")
        self.places = list(self._places())
        if not self.places:
            raise DataError(f"dataset.path={path} holds no pairs of images")
        source = image_spec(source_channels, image_size, image_size)
        self.spec = replace(image_spec(channels, image_size, image_size), source=source, is_paired=True)

    def load(self, split: SplitName) -> Split:
        pairs = [pair for pair in self._pairs if self._split_of(pair) == split]
        if not pairs:
            raise DataError(
                f"the {split} split of the {len(self._pairs)} pairs in {self.path} is empty: "
                "add pairs, or change the shares, such as dataset.validation=0.2 dataset.test=0.2"
            )
        if not self._is_small:
            return PairFiles(pairs, self._read)
        source, target = (torch.stack([pair.pixels[side] for pair in pairs]) for side in (0, 1))
        return TensorSplit({"source": source, "image": target}, decode_pairs)

    # -- where they are ---------------------------------------------------------------------------------------------

    def _places(self) -> Iterator[Place]:
        if self.layout == "side_by_side":
            for name, _ in image_paths(self.path):
                yield Place(name, self.path / name, None)
        elif self.path.is_file():
            yield from self._table()
        else:
            yield from self._two_folders()

    def _two_folders(self) -> Iterator[Place]:
        """Pairs of equal names without their endings: photo.jpg belongs to photo.png."""
        names = next((names for names in SIDES if all((self.path / name).is_dir() for name in names)), None)
        if names is None:
            raise DataError(
                f"dataset.path={self.path} has no sub-folders source and target (or A and B): make them, or set "
                "dataset.layout=side_by_side for images that show both halves of a pair"
            )
        sides = [
            {os.path.splitext(name)[0]: self.path / side / name for name, _ in image_paths(self.path / side)}
            for side in names
        ]
        alone = sorted(sides[0].keys() ^ sides[1].keys())
        if alone:
            lacking = names[1] if alone[0] in sides[0] else names[0]
            raise DataError(
                f"{len(alone)} images in {self.path} have no partner of the same name, such as "
                f"{printable(alone[0])}, which is not in {lacking}"
            )
        for name in sorted(sides[0]):
            yield Place(name, sides[0][name], sides[1][name])

    def _table(self) -> Iterator[Place]:
        try:
            with self.path.open(newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
        except (OSError, ValueError, csv.Error) as error:
            raise DataError(f"dataset.path={self.path} cannot be read as a table: {error}") from error
        for number, row in enumerate(rows, 2):
            if not row.get("source") or not row.get("target"):
                raise DataError(f"line {number} of {self.path} lacks a source or a target, in columns of these names")
            yield Place(row["target"], self.path.parent / row["source"], self.path.parent / row["target"])

    # -- what they are ----------------------------------------------------------------------------------------------

    @property
    def _is_small(self) -> bool:
        return len(self.places) * sum(self.channels) * self.image_size**2 <= self.memory_limit * 1_000_000

    @cached_property
    def _pairs(self) -> list[Pair]:
        """Read every pair once. One that is bad is an error: what it was paired with would teach something wrong."""
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            outcomes = list(pool.map(self._examine, self.places))
        bad = [outcome for outcome in outcomes if isinstance(outcome, str)]
        if bad:
            raise DataError(f"{len(bad)} of the {len(outcomes)} pairs in {self.path} are bad, such as {bad[0]}")
        return [outcome for outcome in outcomes if isinstance(outcome, Pair)]

    def _examine(self, place: Place) -> Pair | str:
        """The pair, or why it is none."""
        try:
            pictures = self._open(place)
        except BrokenImage as error:
            return f"{printable(place.name)}: {error}"
        pixels = self._fit(pictures) if self._is_small else None
        return Pair(place, picture_digest(pictures[1]), picture_digest(pictures[0]), pixels)

    def _open(self, place: Place) -> "tuple[Image, Image]":
        """Source and target in RGB, of one size. Raises BrokenImage."""
        if place.target is None:
            both = read_picture(place.source)
            if both.width % 2:
                raise BrokenImage(f"{both.width} pixels of width have no halves")
            half = both.width // 2
            first, second = both.crop((0, 0, half, both.height)), both.crop((half, 0, both.width, both.height))
        else:
            try:
                first, second = read_picture(place.source), read_picture(place.target)
            except OSError as error:
                raise BrokenImage(str(error)) from error
        if first.size != second.size:
            raise BrokenImage(
                f"the source has {first.width} x {first.height} pixels and the target {second.width} x {second.height}"
            )
        return (second, first) if self.swap else (first, second)

    def _fit(self, pictures: "tuple[Image, Image]") -> tuple[Tensor, Tensor]:
        source, target = (
            to_pixels(picture, size=self.image_size, channels=channels)
            for picture, channels in zip(pictures, self.channels, strict=True)
        )
        return source, target

    def _read(self, place: Place) -> tuple[Tensor, Tensor]:
        try:
            return self._fit(self._open(place))
        except BrokenImage as error:
            raise DataError(f"{printable(place.name)} could be read before, but not now: {error}") from error

    # -- which split ------------------------------------------------------------------------------------------------

    @cached_property
    def _official(self) -> set[str]:
        """The splits that sub-folders name; with only one beside `train`, that is the test split."""
        if self.layout != "side_by_side" or not all("/" in place.name for place in self.places):
            return set()
        parts = {place.name.split("/")[0] for place in self.places}
        return {OFFICIAL[part] for part in parts} if "train" in parts and parts <= OFFICIAL.keys() else set()

    def _split_of(self, pair: Pair) -> str:
        share = share_of_digest(pair.digest)
        if not self._official:
            return split_of(share, **self.shares)
        part = OFFICIAL[pair.place.name.split("/")[0]]
        if part != "train":
            return part if len(self._official) == 3 else "test"
        # What the official parts lack is taken from training.
        if len(self._official) == 3:
            return "train"
        missing = "validation" if len(self._official) == 2 else "test"
        if share < self.shares[missing]:
            return missing
        is_held_out = missing == "test" and share < self.shares["test"] + self.shares["validation"]
        return "validation" if is_held_out else "train"


class PairFiles(Split):
    """Pairs that are decoded as they are fetched, by loader processes."""

    streams = True

    def __init__(self, pairs: Sequence[Pair], read: Callable[[Place], tuple[Tensor, Tensor]]):
        self.pairs = pairs
        self.read = read  # a place to its pixels

    def __len__(self) -> int:
        return len(self.pairs)

    def fetch(self, positions: Tensor) -> dict[str, Tensor]:
        read = [self.read(self.pairs[position].place) for position in positions.tolist()]
        source, target = (torch.stack([pixels[side] for pixels in read]) for side in (0, 1))
        return decode_pairs({"source": source, "image": target})

    def content_hash(self) -> str:
        """Of the pictures' digests."""
        digests = "\n".join(f"{pair.source_digest} {pair.digest}" for pair in self.pairs)
        return hashlib.sha256(digests.encode()).hexdigest()


def decode_pairs(rows: dict[str, Tensor]) -> dict[str, Tensor]:
    """Stored rows to `image` and `source`, (B, C, H, W) float32 in [-1, 1] each."""
    return {**decode_images(rows), "source": decode_images({"image": rows["source"]})["image"]}
