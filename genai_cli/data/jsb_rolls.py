"""J. S. Bach's chorales as piano rolls: which of 88 notes sound in each quarter (Boulanger-Lewandowski et al. 2012).

`genai train model=roll_net dataset=jsb_rolls`. The data of the published figures of log-likelihood per frame: 229
pieces to train, 76 to validate and 77 to test, already moved to the keys of C. An example is a whole piece.
"""

import json
from functools import cached_property

import torch
from torch import Tensor

from genai_cli.data.base import Dataset, Spec, Split, SplitName, TensorSplit
from genai_cli.data.jsb import COMMIT, KEYS, read_chorales
from genai_cli.media.rolls import LOWEST_KEY, NUM_KEYS
from genai_cli.nn.random import RowRandom
from genai_cli.rules import NonNegativeInt

SHA256 = "2db9329f1881a1d3f49703ec556bf1d6f84b4f6c1d702c156536e93cf31e1c91"
FILES = tuple(f"jsb-chorales-quarter.json{suffix}" for suffix in ("", ".xz", ".gz"))
URLS = (
    f"https://raw.githubusercontent.com/czhuang/JSB-Chorales-dataset/{COMMIT}/{FILES[0]}",
    f"https://cdn.jsdelivr.net/gh/czhuang/JSB-Chorales-dataset@{COMMIT}/{FILES[0]}",
)
LENGTH = 160  # frames of the longest piece


class JsbRolls(Dataset):
    """Bach's 382 chorales in quarters, 88 binary numbers each; `dataset.download=true` fetches them."""

    modality = "rolls"

    def __init__(
        self,
        *,
        root: str | None = None,
        download: bool = False,
        transpose: NonNegativeInt = 0,  # semitones by which a training piece is at most moved, anew in each step
    ):
        self.root, self.may_download, self.transpose = root, download, transpose
        self.spec = Spec("rolls", (LENGTH, NUM_KEYS), value_range=(0.0, 1.0), levels=2)

    def load(self, split: SplitName) -> Split:
        pieces = TensorSplit(roll_tensors(self._pieces[KEYS[split]], LENGTH), as_floats)
        return TransposedRolls(pieces, self.transpose) if split == "train" and self.transpose else pieces

    @cached_property
    def _pieces(self) -> dict[str, list[list[list[int]]]]:
        """Split -> pieces -> quarters -> the pitches that sound."""
        return json.loads(read_chorales(self.root, SHA256, FILES, URLS, may_download=self.may_download))


def roll_tensors(pieces: list[list[list[int]]], length: int) -> dict[str, Tensor]:
    """`roll` (N, length, 88) and `mask` (N, length), uint8 and bool; after a piece's end silence, which is masked."""
    roll = torch.zeros(len(pieces), length, NUM_KEYS, dtype=torch.uint8)
    mask = torch.zeros(len(pieces), length, dtype=torch.bool)
    for i, piece in enumerate(pieces):
        mask[i, : len(piece)] = True
        for t, pitches in enumerate(piece):
            roll[i, t, [pitch - LOWEST_KEY for pitch in pitches]] = 1
    return {"roll": roll, "mask": mask}


def as_floats(rows: dict[str, Tensor]) -> dict[str, Tensor]:
    return {"roll": rows["roll"].float(), "mask": rows["mask"]}


class TransposedRolls(Split):
    """Pieces that are moved up or down by a random number of semitones, as far as no note leaves the keyboard."""

    def __init__(self, pieces: Split, most: int):
        self.pieces, self.most = pieces, most

    def __len__(self) -> int:
        return len(self.pieces)

    def fetch(self, positions: Tensor) -> dict[str, Tensor]:
        return self.pieces.fetch(positions)

    def to(self, device: torch.device) -> "TransposedRolls":
        return TransposedRolls(self.pieces.to(device), self.most)

    def content_hash(self) -> str:
        """Of the pieces as they are written."""
        return self.pieces.content_hash()

    def augment(self, rows: dict[str, Tensor], random: RowRandom) -> dict[str, Tensor]:
        by = random.integers(2 * self.most + 1) - self.most  # (B,)
        roll = rows["roll"]
        source = torch.arange(NUM_KEYS, device=roll.device) - by[:, None]  # (B, 88): the key that moves to each
        is_there = (source >= 0) & (source < NUM_KEYS)
        moved = roll.gather(2, source.clamp(0, NUM_KEYS - 1)[:, None].expand_as(roll)) * is_there[:, None]
        fits = moved.sum((1, 2)) == roll.sum((1, 2))
        return {**rows, "roll": torch.where(fits[:, None, None], moved, roll)}
