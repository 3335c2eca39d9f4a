"""Series from a CSV file: `genai train model=wavenet dataset=csv dataset.path=sales.csv dataset.length=48`.

A line is a step of time, oldest first. The file is split by time: its first lines are trained on, the next validate,
the last test, and no window reaches from one part into another. Numbers are scaled by the mean and the standard
deviation of each column over the part to train on; both are kept in the spec, so samples are written in the units of
the file.
"""

import csv
import io
import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from genai_cli.data.base import DataError, Dataset, Spec, Split, SplitName
from genai_cli.data.windows import decode_utf8, read_text
from genai_cli.rules import Fraction, PositiveInt

DELIMITERS = ",;\t"


class Csv(Dataset):
    """Series from any CSV file, cut into windows: `dataset.path=FILE`, of .csv, .csv.gz or .csv.xz."""

    modality = "series"
    rules = {
        "validation > 0 and test > 0 and validation + test < 1": "validation and test must be above 0, together below 1"
    }

    def __init__(
        self,
        *,
        path: str,
        columns: list[str] | None = None,  # by name, or by number from 1 on where there is no header; null: all
        header: bool | None = None,  # whether the first line holds names; null: it does if none of it is a number
        length: PositiveInt = 24,  # steps of a window
        stride: PositiveInt = 1,  # steps from one window to the next
        scale: Literal["standard", "none"] = "standard",
        validation: Fraction = 0.1,
        test: Fraction = 0.2,
    ):
        self.path = Path(path).expanduser()
        self.length, self.stride = length, stride
        self.validation, self.test = validation, test
        names, self.numbers = read_table(self.path, columns=columns, header=header)  # (N, C) float64
        self.spec = Spec("series", (length, len(names)), columns=names)
        if scale == "standard":
            known = self.numbers[slice(*self._bounds["train"])]
            offset, deviation = known.mean(0), known.std(0, correction=0)
            spread = torch.where(deviation > 1e-12 * offset.abs().clamp(min=1.0), deviation, 1.0)  # of a constant: 1
            self.spec = Spec(
                "series", self.spec.shape, columns=names, offset=tuple(offset.tolist()), scale=tuple(spread.tolist())
            )
            self.numbers = (self.numbers - offset) / spread

    def load(self, split: SplitName) -> Split:
        return SeriesWindows(self.numbers[slice(*self._bounds[split])].float(), length=self.length, stride=self.stride)

    @cached_property
    def _bounds(self) -> dict[SplitName, tuple[int, int]]:
        """The lines of each part. Raises DataError where one is shorter than a window."""
        count = len(self.numbers)
        first, second = int(count * (1 - self.validation - self.test)), int(count * (1 - self.test))
        bounds: dict[SplitName, tuple[int, int]] = {
            "train": (0, first), "validation": (first, second), "test": (second, count)
        }  # fmt: skip
        for name, (start, stop) in bounds.items():
            if stop - start < self.length:
                raise DataError(
                    f"the {name} part of {self.path} has {stop - start} of its {count:,} lines, fewer than a window of "
                    f"dataset.length={self.length}: take a smaller dataset.length, a longer file, or other shares "
                    "dataset.validation and dataset.test"
                )
        return bounds


class SeriesWindows(Split):
    """Windows of one stored series, found by index arithmetic: nothing is stored twice."""

    def __init__(self, numbers: Tensor, *, length: int, stride: int):
        """`numbers` (N, C) float32; window i holds `length` steps from i * `stride` on."""
        self.numbers = numbers
        self.length, self.stride = length, stride

    def __len__(self) -> int:
        return (len(self.numbers) - self.length) // self.stride + 1

    def fetch(self, positions: Tensor) -> dict[str, Tensor]:
        starts = positions.to(self.numbers.device) * self.stride
        return {"series": self.numbers[starts.unsqueeze(1) + torch.arange(self.length, device=starts.device)]}

    def to(self, device: torch.device) -> "SeriesWindows":
        return SeriesWindows(self.numbers.to(device), length=self.length, stride=self.stride)

    def content_hash(self) -> str:
        """Of the numbers alone: it is the same series, however it is cut."""
        import hashlib

        return hashlib.sha256(self.numbers.cpu().contiguous().numpy().tobytes()).hexdigest()

    def name_of(self, position: int) -> str:
        start = position * self.stride
        return f"steps {start + 1:,} to {start + self.length:,} of this part"


# -- reading -----------------------------------------------------------------------------------------------------------


def read_table(path: Path, *, columns: Sequence[str] | None, header: bool | None) -> tuple[tuple[str, ...], Tensor]:
    """The names of the chosen columns and their numbers, (N, C) float64.

    Raises DataError, naming file, line and column, for what is no table of finite numbers.
    """
    content = read_text(path)
    text = decode_utf8(content, str(path)).removeprefix("\ufeff")
    delimiter = max(DELIMITERS, key=text.split("\n", 1)[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    rows: list[tuple[int, list[str]]] = []  # line number, cells
    try:
        rows += ((reader.line_num, row) for row in reader if any(cell.strip() for cell in row))
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num} is no line of a CSV file: {error}") from None
    if not rows:
        raise DataError(f"{path} is empty: give a file with a line of numbers for each step of time")
    has_header = not any(_is_number(cell) for cell in rows[0][1]) if header is None else header
    names = [cell.strip() for cell in rows[0][1]] if has_header else [str(i + 1) for i in range(len(rows[0][1]))]
    rows = rows[1:] if has_header else rows
    chosen = choose_columns(names, columns, path)
    try:
        numbers = torch.tensor([[float(row[index]) for index in chosen] for _, row in rows], dtype=torch.float64)
    except (ValueError, IndexError):
        numbers = torch.tensor([math.nan])
    is_whole = numbers.isfinite().all() and all(len(row) == len(names) for _, row in rows)
    if not rows or not is_whole:
        raise DataError(f"{path}: {what_is_wrong(rows, names, chosen)}")
    return tuple(names[index] for index in chosen), numbers


def choose_columns(names: Sequence[str], columns: Sequence[str] | None, path: Path) -> list[int]:
    """The places of `columns`, or of all. Raises DataError for one that is not there, or twice."""
    if columns is None:
        return list(range(len(names)))
    listed = ",".join(names[:20]) + (",..." if len(names) > 20 else "")
    if not columns:
        raise DataError(f"dataset.columns=[] leaves nothing of {path}: choose among {listed}, or leave it null for all")
    for name in columns:
        if names.count(name) != 1 or list(columns).count(name) != 1:
            why = "it has no such column" if name not in names else "a column of that name is there more than once"
            raise DataError(f"dataset.columns: {name!r} is no choice of {path}: {why}; choose among {listed}")
    return [names.index(name) for name in columns]


def what_is_wrong(rows: Sequence[tuple[int, list[str]]], names: Sequence[str], chosen: Sequence[int]) -> str:
    """One sentence about the first line that is no step of a series."""
    for line, row in rows:
        if len(row) != len(names):
            return (
                f"line {line} has {len(row)} cells where the first line has {len(names)}: every line must have as "
                "many; mend or delete it"
            )
        for index in chosen:
            cell = row[index].strip()
            if _is_finite(cell):
                continue
            rule = "where every cell must be a finite number" if _is_number(cell) or not cell else "which is no number"
            kept = [names[i] for i in chosen if _is_finite(row[i])]
            without = f", or leave the column out with dataset.columns=[{','.join(kept)}]" if kept else ""
            found = repr(cell[:40]) if cell else "empty"
            return f"line {line}, column {names[index]} is {found}, {rule}: mend it or delete the line{without}"
    return "there is no line of numbers below the header: give one for each step of time"


def _is_finite(cell: str) -> bool:
    return _is_number(cell) and math.isfinite(float(cell))


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
