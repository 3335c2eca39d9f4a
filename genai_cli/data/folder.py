"""Your own images: `genai train model=dcgan dataset=folder dataset.path=photos dataset.image_size=64`.

The names of the sub-folders are the labels; images that lie in the folder itself have none. Every file is read once
before the training: broken ones are named, and more than a few of them stop it. Which split an image belongs to
follows from its pixels, so that duplicates never straddle splits and a new file moves no other.
"""

import hashlib
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from genai_cli.data.base import DataError, Dataset, Split, SplitName
from genai_cli.data.pictures import SUFFIXES, BrokenImage, image_paths, picture_digest, read_picture, to_pixels
from genai_cli.data.pixels import Mirrored, decode_images, image_spec, image_split
from genai_cli.data.scans import remember, remembered, stamp
from genai_cli.data.shares import share_of_digest, split_of
from genai_cli.rules import FolderName, Fraction, PositiveInt

NAMED = 20  # broken files that a message names
WORTH_REMEMBERING = 1.0  # seconds of a scan


@dataclass(frozen=True)
class Example:
    """A readable image file."""

    name: str  # path below the folder, with "/"
    digest: str  # of its pixels
    pixels: Tensor | None  # (C, S, S) uint8, or None where the images are too many to hold


class Folder(Dataset):
    """Your own images, labels from sub-folders: `dataset.path=FOLDER`."""

    modality = "image"
    rules = {
        "validation > 0 and test > 0 and validation + test < 1": "validation and test must be above 0, together below 1"
    }

    def __init__(
        self,
        *,
        path: FolderName,
        image_size: PositiveInt = 64,  # the centred square of each image is resized to this
        channels: Literal[1, 3] = 3,
        validation: Fraction = 0.05,
        test: Fraction = 0.1,
        flip: bool = False,  # train on the mirror images too
        max_broken: Fraction = 0.01,  # the share of files that may be unreadable
        memory_limit: PositiveInt = 1000,  # megabytes; more decoded images than that are read as they are needed
    ):
        self.folder = Path(path).expanduser()
        self.image_size, self.channels = image_size, channels
        self.validation, self.test = validation, test
        self.flip = flip
        self.max_broken = max_broken
        self.memory_limit = memory_limit
        if not self.folder.is_dir():
            raise DataError(f"dataset.path={path} is not a folder: give one that holds images")
        self.listing = list(image_paths(self.folder))
        self.classes = class_names([name for name, reason in self.listing if reason is None])
        self.spec = image_spec(channels, image_size, image_size, [printable(name) for name in self.classes])

    def load(self, split: SplitName) -> Split:
        examples = [example for example in self._examples if self._split_of(example) == split]
        if not examples:
            raise DataError(
                f"the {split} split of {self.folder} is empty "
                f"(images that differ: {len({example.digest for example in self._examples})}): "
                "add images, or change the shares, such as dataset.validation=0.2 dataset.test=0.2"
            )
        labels = None
        if self.classes:
            index = {name: i for i, name in enumerate(self.classes)}
            labels = torch.tensor([index[label_name(example.name)] for example in examples])
        if self._is_small:
            held: Split = image_split(torch.stack([example.pixels for example in examples]), labels)
        else:
            held = FileSplit(self.folder, examples, labels, size=self.image_size, channels=self.channels)
        return Mirrored(held) if self.flip and split == "train" else held

    @property
    def _is_small(self) -> bool:
        return len(self.listing) * self.channels * self.image_size**2 <= self.memory_limit * 1_000_000

    def _split_of(self, example: Example) -> SplitName:
        return split_of(share_of_digest(example.digest), validation=self.validation, test=self.test)

    @cached_property
    def _examples(self) -> list[Example]:
        """Read every file once, and judge the whole."""
        began = time.monotonic()
        self._known = {} if self._is_small else remembered(self.folder)  # small ones must be decoded anyway
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            outcomes = list(pool.map(self._examine, self.listing))
        if not self._is_small and time.monotonic() - began > WORTH_REMEMBERING:
            remember(self.folder, self._known)
        self.notes = judge(outcomes, self.folder, what="images", suffixes=SUFFIXES, max_broken=self.max_broken)
        return [outcome for outcome in outcomes if isinstance(outcome, Example)]

    def _examine(self, listed: tuple[str, str | None]) -> Example | str:
        """The example, or the line about it in the report on broken files."""
        name, reason = listed
        if reason is not None:
            return f"{printable(name)}: {reason}"
        stamped = stamp(self.folder / name)  # before it is read: what changes meanwhile is read again next time
        known = self._known.get(name)
        if known is not None and known[:2] == stamped:
            return Example(name, known[2], None) if known[2] else f"{printable(name)}: {known[3]}"
        try:
            picture = read_picture(self.folder / name)
        except BrokenImage as error:
            self._note(name, stamped, "", str(error))
            return f"{printable(name)}: {error}"
        digest = picture_digest(picture)
        self._note(name, stamped, digest, "")
        pixels = to_pixels(picture, size=self.image_size, channels=self.channels) if self._is_small else None
        return Example(name, digest, pixels)

    def _note(self, name: str, stamped: tuple[int, int] | None, digest: str, reason: str) -> None:
        if stamped is not None:
            self._known[name] = (*stamped, digest, reason)


class FileSplit(Split):
    """Images that are decoded as they are fetched, by loader processes."""

    streams = True

    def __init__(self, folder: Path, examples: Sequence[Example], labels: Tensor | None, *, size: int, channels: int):
        self.folder = folder
        self.names = [example.name for example in examples]
        self.digests = [example.digest for example in examples]
        self.labels = labels  # (N,) int64
        self.size, self.channels = size, channels

    def __len__(self) -> int:
        return len(self.names)

    def fetch(self, positions: Tensor) -> dict[str, Tensor]:
        rows = {"image": torch.stack([self._read(self.names[position]) for position in positions.tolist()])}
        if self.labels is not None:
            rows["label"] = self.labels[positions]
        return decode_images(rows)

    def name_of(self, position: int) -> str:
        return printable(self.names[position])

    def _read(self, name: str) -> Tensor:
        try:
            return to_pixels(read_picture(self.folder / name), size=self.size, channels=self.channels)
        except BrokenImage as error:
            raise DataError(f"{self.folder / printable(name)} could be read before, but not now: {error}") from error

    def content_hash(self) -> str:
        """Of the pictures' digests, the labels and the size that the pictures are brought to."""
        digest = hashlib.sha256(f"{self.channels} {self.size}\n".encode())
        labels = [] if self.labels is None else self.labels.tolist()
        digest.update("\n".join([*self.digests, *map(str, labels)]).encode())
        return digest.hexdigest()


def class_names(names: Sequence[str]) -> list[str]:
    """The first-level sub-folders that hold images, sorted; none if any image lies outside of them."""
    return sorted({label_name(name) for name in names}) if all("/" in name for name in names) else []


def label_name(name: str) -> str:
    return name.split("/")[0]


def judge(
    outcomes: Sequence[object], folder: Path, *, what: str, suffixes: Sequence[str], max_broken: float
) -> tuple[str, ...]:
    """What a user should know of the files that were left out: those whose outcome is a line about them.

    Raises DataError where there are no files, or a larger share than `max_broken` of them is broken.
    """
    if not outcomes:
        raise DataError(f"{folder} holds no {what}: put some there (names ending in {' '.join(suffixes)})")
    broken = [outcome for outcome in outcomes if isinstance(outcome, str)]
    if len(broken) > max_broken * len(outcomes):
        raise DataError(
            f"{len(broken)} of the {len(outcomes)} {what} in {folder} cannot be read, "
            f"a larger share than dataset.max_broken={max_broken:g}:\n{enumerate_broken(broken)}"
        )
    return (f"{len(broken)} of {len(outcomes)} {what} were left out:\n{enumerate_broken(broken)}",) if broken else ()


def enumerate_broken(lines: Sequence[str]) -> str:
    rest = [f"  and {len(lines) - NAMED} more"] if len(lines) > NAMED else []
    return "\n".join([f"  {line}" for line in lines[:NAMED]] + rest)


def printable(name: str) -> str:
    """A file name in a form that can be printed and written as JSON, on one line.

    It may hold bytes which are no UTF-8, and control characters, which could rewrite a terminal.
    """
    whole = name.encode("utf-8", "backslashreplace").decode()
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in whole)
