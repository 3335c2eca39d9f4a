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
    names, rows = read_rows(path, header=header)
    chosen = choose_columns(names, columns, path)
    try:
        numbers = torch.tensor([[float(row[index]) for index in chosen] for _, row in rows], dtype=torch.float64)
    except (ValueError, IndexError):
        numbers = torch.tensor([math.nan])
    is_whole = numbers.isfinite().all() and all(len(row) == len(names) for _, row in rows)
    if not rows or not is_whole:
        raise DataError(f"{path}: {what_is_wrong(rows, names, chosen)}")
    return tuple(names[index] for index in chosen), numbers


def read_rows(
    path: Path, *, header: bool | None, may_be_empty: bool = False
) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The names of all columns, and the lines below them that hold something: the number of each, and its cells.

    If cells `may_be_empty`, so may all of a line: of a table of one column this is an empty line between others.
    """
    content = read_text(path)
    text = decode_utf8(content, str(path), remedy="give a CSV file, which is a text, or convert it")
    text = text.removeprefix("\ufeff")
    delimiter = max(DELIMITERS, key=text.split("\n", 1)[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    rows: list[tuple[int, list[str]]] = []  # line number, cells
    try:
        rows += ((reader.line_num, row or [""]) for row in reader)
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num} is no line of a CSV file: {error}") from None
    told = [i for i, (_, row) in enumerate(rows) if any(cell.strip() for cell in row)]
    if not told:
        raise DataError(f"{path} is empty: give a file with a line of numbers for each step of time")
    width = len(rows[told[0]][1])
    if may_be_empty:
        last = told[-1] if width == 1 else len(rows) - 1
        is_told = set(told)
        told = [i for i in range(told[0], last + 1) if i in is_told or len(rows[i][1]) == width]
    rows = [rows[i] for i in told]
    has_header = not any(_is_number(cell) for cell in rows[0][1]) if header is None else header
    names = [cell.strip() for cell in rows[0][1]] if has_header else [str(i + 1) for i in range(len(rows[0][1]))]
    return names, rows[1:] if has_header else rows


def read_series(path: Path, spec: Spec, *, header: bool | None) -> list[Tensor]:
    """Series in the columns of `spec`, scaled as it says, (P, C) float32 each, NaN where a cell is empty.

    A table with a column `sample`, as `genai sample` writes it, holds a series for each number there; another file is
    one series. Columns that are none of the spec's are passed over. Raises DataError, naming file, line and column.
    """
    names, rows = read_rows(path, header=header, may_be_empty=True)
    chosen = _columns_of(spec, names, path)
    is_whole = rows and all(len(row) == len(names) for _, row in rows)
    cells = [[row[index].strip() for index in chosen] for _, row in rows] if is_whole else []
    if not is_whole or not all(_is_finite(cell) for line in cells for cell in line if cell):
        raise DataError(f"{path}: {what_is_wrong(rows, names, chosen, may_be_empty=True)}")
    numbers = torch.tensor(
        [[float(cell) if cell else math.nan for cell in line] for line in cells], dtype=torch.float64
    )
    if spec.value_range is not None:
        low, high = spec.value_range
        for value in numbers[(numbers < low) | (numbers > high)].tolist()[:1]:
            raise DataError(f"{path} holds {value:g}, but what the run learned lies between {low:g} and {high:g}")
    if spec.scale:
        numbers = (numbers - numbers.new_tensor(spec.offset)) / numbers.new_tensor(spec.scale)
    numbers = numbers.float()
    if "sample" not in names or "sample" in spec.columns:
        return [numbers]
    lines: dict[str, list[int]] = {}
    for number, (_, row) in enumerate(rows):
        lines.setdefault(row[names.index("sample")].strip(), []).append(number)
    return [numbers[of_one] for of_one in lines.values()]


def _columns_of(spec: Spec, names: Sequence[str], path: Path) -> list[int]:
    """The places of the spec's columns. Raises DataError for one that is not there, or more than once."""
    if tuple(names) == spec.columns:
        return list(range(len(names)))
    for name in spec.columns:
        if names.count(name) != 1:
            why = "more than one column" if name in names else "no column"
            raise DataError(
                f"{path} has {why} {name}: it must have those that the run learned, {_listed(spec.columns)}, and it "
                f"has {_listed(names)}"
            )
    return [names.index(name) for name in spec.columns]


def _listed(names: Sequence[str]) -> str:
    return ",".join(names[:20]) + (",..." if len(names) > 20 else "")


def choose_columns(names: Sequence[str], columns: Sequence[str] | None, path: Path) -> list[int]:
    """The places of `columns`, or of all. Raises DataError for one that is not there, or twice."""
    if columns is None:
        return list(range(len(names)))
    listed = _listed(names)
    if not columns:
        raise DataError(f"dataset.columns=[] leaves nothing of {path}: choose among {listed}, or leave it null for all")
    for name in columns:
        if names.count(name) != 1 or list(columns).count(name) != 1:
            why = "it has no such column" if name not in names else "a column of that name is there more than once"
            raise DataError(f"dataset.columns: {name!r} is no choice of {path}: {why}; choose among {listed}")
    return [names.index(name) for name in columns]


def what_is_wrong(
    rows: Sequence[tuple[int, list[str]]], names: Sequence[str], chosen: Sequence[int], *, may_be_empty: bool = False
) -> str:
    """One sentence about the first line that is no step of a series: one to learn, or one given, with gaps in it."""
    for line, row in rows:
        if len(row) != len(names):
            return (
                f"line {line} has {len(row)} cells where the first line has {len(names)}: every line must have as "
                "many; mend or delete it"
            )
        for index in chosen:
            cell = row[index].strip()
            if _is_finite(cell) or (may_be_empty and not cell):
                continue
            rule = "where every cell must be a finite number" if _is_number(cell) or not cell else "which is no number"
            kept = [names[i] for i in chosen if _is_finite(row[i])]
            without = f", or leave the column out with dataset.columns=[{','.join(kept)}]" if kept else ""
            found = repr(cell[:40]) if cell else "empty"
            if may_be_empty:
                return f"line {line}, column {names[index]} is {found}, {rule}: mend it, or leave the cell empty"
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
