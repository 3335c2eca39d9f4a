"""Emoji: 3,786 small pictures with names, of the npm package emoji-datasource-twitter (Twemoji, CC BY 4.0).

Read from ROOT/emoji: a sheet of all pictures, `twemoji_sheet_64_256colours.png` or the one of 32 pixels, and
`captions.jsonl.gz`, which says where in it each picture lies, and its category. Transparent pixels become white.
"""

import gzip
import json
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy
import torch
from torch import Tensor

from genai_cli.data.base import DataError, Dataset, Split, SplitName
from genai_cli.data.pictures import BrokenImage, read_picture
from genai_cli.data.pixels import Mirrored, image_spec, image_split
from genai_cli.data.places import find, missing
from genai_cli.data.shares import share_of
from genai_cli.rules import Fraction

CAPTIONS = "captions.jsonl.gz"
CATEGORIES = (
    "Activities", "Animals & Nature", "Component", "Flags", "Food & Drink", "Objects", "People & Body",
    "Smileys & Emotion", "Symbols", "Travel & Places",
)  # fmt: skip
MODIFIERS = ("1F3FB", "1F3FC", "1F3FD", "1F3FE", "1F3FF", "FE0F")  # of the skin's colour, and "as a picture"


class Emoji(Dataset):
    """Emoji of 32 or 64 pixels in colour, on white, their category as label; variants of a skin share a split."""

    modality = "image"
    rules = {
        "validation > 0 and test > 0 and validation + test < 1": "validation and test must be above 0, together below 1"
    }

    def __init__(
        self,
        *,
        root: str | None = None,
        image_size: Literal[32, 64] = 32,
        category: Literal[
            "Activities",
            "Animals & Nature",
            "Component",
            "Flags",
            "Food & Drink",
            "Objects",
            "People & Body",
            "Smileys & Emotion",
            "Symbols",
            "Travel & Places",
        ]
        | None = None,  # only the pictures of one
        skins: bool = True,  # false: one of the pictures that differ in the colour of the skin alone
        flip: bool = False,  # train on the mirror images too
        validation: Fraction = 0.05,
        test: Fraction = 0.1,
    ):
        self.root = root
        self.image_size = image_size
        self.category, self.skins, self.flip = category, skins, flip
        self.validation, self.test = validation, test
        self.spec = image_spec(3, image_size, image_size, CATEGORIES)

    def load(self, split: SplitName) -> Split:
        images, labels, shares = self._pictures
        is_test, is_training = shares < self.test, shares >= self.test + self.validation
        chosen = {"test": is_test, "train": is_training, "validation": ~(is_test | is_training)}[split]
        if not chosen.any():
            raise DataError(f"the {split} split of {len(labels)} emoji is empty: change dataset.validation and test")
        held = image_split(images[chosen], labels[chosen])
        return Mirrored(held) if self.flip and split == "train" else held

    @cached_property
    def _pictures(self) -> tuple[Tensor, Tensor, Tensor]:
        """All pictures (N, 3, S, S) uint8, their labels (N,), and a number in [0, 1) that says their split (N,)."""
        folder = find(self.root, ["emoji"])
        if folder is None:
            raise missing(
                "The set of emoji", self.root, ["emoji"],
                remedy=f"put {CAPTIONS} and the sheet {sheet_name(self.image_size)} into such a folder",
            )  # fmt: skip
        records = [record for record in read_captions(folder / CAPTIONS) if self._is_wanted(record)]
        try:
            sheet = torch.from_numpy(numpy.array(read_picture(folder / sheet_name(self.image_size))))  # (H, W, 3)
        except (OSError, BrokenImage) as error:
            raise DataError(f"{folder / sheet_name(self.image_size)} cannot be read: {error}") from error
        images = torch.stack([cut(sheet, record, self.image_size) for record in records])
        labels = torch.tensor([CATEGORIES.index(record["category"]) for record in records])
        return images, labels, torch.tensor([share_of_record(record) for record in records], dtype=torch.float64)

    def _is_wanted(self, record: dict[str, Any]) -> bool:
        return (self.category in (None, record["category"])) and (self.skins or not record["skin"])


def sheet_name(size: int) -> str:
    return f"twemoji_sheet_{size}_256colours.png"


def read_captions(path: Path) -> list[dict[str, Any]]:
    """Of each picture: name, category, skin, and its place in the sheet."""
    try:
        records = [json.loads(line) for line in gzip.decompress(path.read_bytes()).decode().splitlines()]
        known = [record for record in records if record["category"] in CATEGORIES]
        for record in known:
            record["sheet_x"], record["sheet_y"], record["skin"], record["unified"]
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not the list of emoji: {error}") from error
    return known


def cut(sheet: Tensor, record: dict[str, Any], size: int) -> Tensor:
    """(3, size, size): the cell of a picture, without the pixel of border around it."""
    left, top = (record[axis] * (size + 2) + 1 for axis in ("sheet_x", "sheet_y"))
    cell = sheet[top : top + size, left : left + size]
    if cell.shape != (size, size, 3):
        raise DataError(f"the sheet of emoji has no cell {record['sheet_x']}, {record['sheet_y']}")
    return cell.permute(2, 0, 1)


def share_of_record(record: dict[str, Any]) -> float:
    """In [0, 1), the same for all pictures that differ in the colour of the skin alone."""
    name = "-".join(part for part in record["unified"].split("-") if part not in MODIFIERS)
    return share_of(name)
