"""Series of a CSV file: windows of each part of time, scaled as the first part says; what is no number is named."""

import lzma

import pytest
import torch

from genai_cli.data.base import DataError, Spec
from genai_cli.data.csv import Csv
from genai_cli.media.files import series_csv_bytes


def write(path, count: int = 100) -> str:
    """Two columns: 0, 1, 2, ... and 1000 minus twice that."""
    lines = ["hour,up,down", *(f"{t:02d}h,{t},{1000 - 2 * t}" for t in range(count))]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


OPTIONS = {"columns": ["up", "down"], "length": 5, "validation": 0.2, "test": 0.3}


def steps_of(dataset: Csv, split: str) -> torch.Tensor:
    """The numbers of `up` that the windows of a split hold, in the units of the file, (N, T)."""
    part = dataset.load(split)
    windows = part.fetch(torch.arange(len(part)))["series"]
    return (windows[..., 0] * dataset.spec.scale[0] + dataset.spec.offset[0]).round().long()


def test_parts_follow_in_time_and_no_window_reaches_into_another(tmp_path):
    dataset = Csv(path=write(tmp_path / "a.csv"), **OPTIONS)
    for split, (first, stop) in {"train": (0, 50), "validation": (50, 70), "test": (70, 100)}.items():
        steps = steps_of(dataset, split)
        expected = torch.arange(first, stop - 4).unsqueeze(1) + torch.arange(5)
        assert torch.equal(steps, expected), split


def test_windows_are_a_stride_apart(tmp_path):
    dataset = Csv(path=write(tmp_path / "a.csv"), **OPTIONS, stride=7)
    assert steps_of(dataset, "train")[:, 0].tolist() == [0, 7, 14, 21, 28, 35, 42]


def test_scaling_is_learned_on_the_part_to_train_on(tmp_path):
    dataset = Csv(path=write(tmp_path / "a.csv"), **OPTIONS)
    deviation = torch.arange(50).double().std(correction=0).item()
    assert dataset.spec.offset == pytest.approx((24.5, 951.0))
    assert dataset.spec.scale == pytest.approx((deviation, 2 * deviation))
    unscaled = Csv(path=str(tmp_path / "a.csv"), **OPTIONS, scale="none")
    assert unscaled.spec.scale == () and unscaled.load("test").fetch(torch.tensor([0]))["series"][0, 0].tolist() == [
        70, 860,
    ]  # fmt: skip


def test_samples_are_written_in_the_units_of_the_file(tmp_path):
    """A window that goes through the spec, through JSON, and out again is the file's own lines."""
    dataset = Csv(path=write(tmp_path / "a.csv"), **OPTIONS)
    spec = Spec.from_json(dataset.spec.to_json())
    assert spec == dataset.spec
    written = series_csv_bytes(dataset.load("test").fetch(torch.tensor([3]))["series"], spec).decode().splitlines()
    assert written[0] == "sample,step,up,down"
    assert [[round(float(cell), 3) for cell in line.split(",")] for line in written[1:]] == [
        [0, t, 73 + t, 1000 - 2 * (73 + t)] for t in range(5)
    ]


def test_a_column_that_never_changes_stays_finite(tmp_path):
    (tmp_path / "a.csv").write_text("".join(f"{t},7.7\n" for t in range(60)))
    dataset = Csv(path=str(tmp_path / "a.csv"), length=5)
    assert dataset.spec.columns == ("1", "2") and dataset.spec.scale[1] == 1.0
    assert dataset.load("train").fetch(torch.tensor([0]))["series"][0, :, 1].abs().max() < 1e-6


@pytest.mark.parametrize("name", ["a.csv", "b.csv.xz"])
def test_names_delimiters_and_packing_are_found_out(tmp_path, name):
    text = "\ufeffx;y\r\n" + "".join(f"{t};{-t}\r\n" for t in range(60))
    content = text.encode()
    (tmp_path / name).write_bytes(lzma.compress(content) if name.endswith(".xz") else content)
    assert Csv(path=str(tmp_path / name), length=5).spec.columns == ("x", "y")


def test_a_header_of_numbers_is_taken_at_its_word(tmp_path):
    (tmp_path / "a.csv").write_text("2019,2020\n" + "1,2\n" * 60)
    assert Csv(path=str(tmp_path / "a.csv"), header=True, length=5).spec.columns == ("2019", "2020")
    assert len(Csv(path=str(tmp_path / "a.csv"), length=5).numbers) == 61


GOOD = "a,b\n" + "1,2\n" * 60


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("", {}, ["is empty"]),
        ("a,b\n", {}, ["no line of numbers below the header"]),
        ("day,v\n" + "mon,1\n" * 60, {}, ["line 2, column day is 'mon', which is no number", "dataset.columns=[v]"]),
        (GOOD + "1,nan\n", {}, ["line 62, column b is 'nan'", "finite number", "dataset.columns=[a]"]),
        (GOOD + "1,\n", {}, ["line 62, column b is empty", "mend it or delete the line"]),
        (GOOD + "1,inf\n", {}, ["line 62, column b is 'inf'"]),
        (GOOD + "1\n" + GOOD[4:], {}, ["line 62 has 1 cells where the first line has 2"]),
        (GOOD + "1,2,3\n", {}, ["line 62 has 3 cells where the first line has 2"]),
        (GOOD, {"columns": ["c"]}, ["dataset.columns: 'c'", "no such column", "a,b"]),
        (GOOD, {"columns": ["a", "a"]}, ["more than once"]),
        (GOOD, {"columns": []}, ["leaves nothing"]),
        (GOOD, {"length": 24}, ["validation part", "has 6 of its 60 lines", "dataset.length=24"]),
        ("a,b\n1,\x80\n", {}, ["is not UTF-8"]),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(tmp_path, text, options, words):
    path = tmp_path / "a.csv"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError) as caught:
        Csv(path=str(path), **{"length": 5, **options})
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
    for word in words:
        assert word in message, message


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.csv cannot be read"):
        Csv(path=str(tmp_path / "gone.csv"))
