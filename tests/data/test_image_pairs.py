"""Pairs of images: from two folders, a table, halves of one image, or made from any set; what is bad is named."""

import csv
import dataclasses

import numpy
import pytest
import torch
from PIL import Image

from genai_cli.data.base import DataError, Spec
from genai_cli.data.derived import Derived, edges, grey, small
from genai_cli.data.paired import Paired
from genai_cli.data.unpaired import Unpaired

OPTIONS = {"image_size": 8, "validation": 0.2, "test": 0.2}
SPLITS = ("train", "validation", "test")


def picture(number: int, width: int = 8, height: int = 8) -> Image.Image:
    generator = numpy.random.default_rng(number)
    return Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=numpy.uint8))


def inverted(image: Image.Image) -> Image.Image:
    return Image.fromarray(255 - numpy.array(image))


@pytest.fixture
def pairs(tmp_path):
    """40 pairs, the source of each the negative of its target."""
    for side in ("source", "target"):
        (tmp_path / side).mkdir()
    for number in range(40):
        picture(number).save(tmp_path / "target" / f"{number}.png")
        inverted(picture(number)).save(tmp_path / "source" / f"{number}.bmp")
    return tmp_path


def rows_of(dataset, split: str) -> dict[str, torch.Tensor]:
    held = dataset.load(split)
    return held.fetch(torch.arange(len(held)))


def assert_negatives(dataset, count: int = 40) -> None:
    rows = {split: rows_of(dataset, split) for split in SPLITS}
    assert sum(len(part["image"]) for part in rows.values()) == count
    for part in rows.values():
        torch.testing.assert_close(part["source"], -part["image"])


def test_equal_names_in_two_folders_are_a_pair(pairs) -> None:
    dataset = Paired(path=str(pairs), **OPTIONS)
    assert dataset.spec.is_paired and dataset.spec.source.shape == dataset.spec.shape == (3, 8, 8)
    assert_negatives(dataset)
    read_when_needed = Paired(path=str(pairs), memory_limit=1, **OPTIONS)
    assert not dataset.load("train").streams
    read_when_needed.memory_limit = 0
    assert read_when_needed.load("train").streams
    assert_negatives(read_when_needed)


def test_a_table_names_the_pairs(pairs) -> None:
    with (pairs / "pairs.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["target", "source"])
        writer.writerows([f"target/{number}.png", f"source/{number}.bmp"] for number in range(40))
    assert_negatives(Paired(path=str(pairs / "pairs.csv"), **OPTIONS))
    (pairs / "pairs.csv").write_text("target,other\na.png,b.png\n")
    with pytest.raises(DataError, match=r"line 2 of .* lacks a source or a target"):
        Paired(path=str(pairs / "pairs.csv"))


def test_halves_of_one_image_are_a_pair_and_sub_folders_are_splits(tmp_path) -> None:
    for part, numbers in (("train", range(20)), ("val", range(20, 26)), ("test", range(26, 30))):
        (tmp_path / part).mkdir()
        for number in numbers:
            both = Image.new("RGB", (16, 8))
            both.paste(inverted(picture(number)), (0, 0))
            both.paste(picture(number), (8, 0))
            both.save(tmp_path / part / f"{number}.png")
    dataset = Paired(path=str(tmp_path), layout="side_by_side", **OPTIONS)
    assert_negatives(dataset, 30)
    assert [len(dataset.load(split)) for split in SPLITS] == [20, 6, 4]
    swapped = Paired(path=str(tmp_path), layout="side_by_side", swap=True, **OPTIONS)
    torch.testing.assert_close(rows_of(swapped, "test")["source"], rows_of(dataset, "test")["image"])


def test_with_one_official_part_held_out_it_is_the_test_split(tmp_path) -> None:
    for part, numbers in (("train", range(20)), ("val", range(20, 26))):
        (tmp_path / part).mkdir()
        for number in numbers:
            picture(number, 16).save(tmp_path / part / f"{number}.png")
    dataset = Paired(path=str(tmp_path), layout="side_by_side", **OPTIONS)
    sizes = [len(dataset.load(split)) for split in SPLITS]
    assert sizes[2] == 6 and sizes[0] + sizes[1] == 20 and sizes[1] > 0


def test_bad_pairs_are_named_in_one_sentence(pairs) -> None:
    (pairs / "target" / "7.png").unlink()
    with pytest.raises(
        DataError, match=r"1 images in .* have no partner of the same name, such as 7, which is not in target"
    ):
        Paired(path=str(pairs), **OPTIONS)
    picture(7, 9).save(pairs / "target" / "7.png")
    with pytest.raises(
        DataError, match=r"1 of the 40 pairs in .* are bad, such as 7: the source has 8 x 8 .* target 9 x 8"
    ):
        Paired(path=str(pairs), **OPTIONS).load("train")
    (pairs / "target" / "7.png").write_bytes(b"none")
    with pytest.raises(DataError, match="such as 7: not an image"):
        Paired(path=str(pairs), **OPTIONS).load("train")
    with pytest.raises(DataError, match="has no sub-folders source and target"):
        Paired(path=str(pairs / "source"))
    with pytest.raises(DataError, match="is not there"):
        Paired(path=str(pairs / "nowhere"))


def test_two_domains_are_read_apart(pairs) -> None:
    for number in range(10):
        (pairs / "source" / f"{number}.bmp").unlink()
    dataset = Unpaired(source=str(pairs / "source"), target=str(pairs / "target"), **OPTIONS)
    assert not dataset.spec.is_paired and dataset.spec.source.shape == (3, 8, 8)
    rows = rows_of(dataset, "train")
    alone = dataset.sources.load("train"), dataset.targets.load("train")
    assert len(rows["image"]) == len(rows["source"]) == max(map(len, alone))
    for side, split in zip(("source", "image"), alone, strict=True):
        distinct = {image.numpy().tobytes() for image in rows[side]}
        assert len(distinct) == len(split)


def test_edges_are_where_neighbours_differ() -> None:
    square = torch.zeros(1, 1, 6, 6, dtype=torch.int32)
    square[..., 2:4, 2:4] = 200
    found = edges(square, 128)[0, 0] == 255
    expected = torch.zeros(6, 6, dtype=torch.bool)
    expected[1:4, 2:4] = True  # a step down to the next row: above the square, and its last row
    expected[2, 2:4] = False
    expected[2:4, 1] = expected[2:4, 3] = True
    expected[1, 2:4] = True
    assert torch.equal(found, expected)
    assert not edges(square, 201).any()


def test_greys_and_small_copies() -> None:
    white = torch.full((1, 3, 8, 8), 255, dtype=torch.int32)
    assert (grey(white) == 255).all() and grey(white).shape == (1, 1, 8, 8)
    assert grey(torch.tensor([255, 0, 0], dtype=torch.int32).view(1, 3, 1, 1)).item() == 76
    ramp = torch.arange(64, dtype=torch.int32).view(1, 1, 8, 8)
    assert small(ramp).unique().tolist() == [14, 18, 46, 50]
    assert small(ramp[..., :7, :6]).shape == (1, 1, 7, 6)


def test_sources_are_of_the_image_itself_or_unpaired_of_another() -> None:
    paired, unpaired = Derived(threshold=128), Derived(threshold=128, paired=False)
    assert paired.spec.is_paired and not unpaired.spec.is_paired
    own, other = paired.load("validation"), unpaired.load("validation")
    half = len(own) // 2
    mine, theirs = own.fetch(torch.arange(half, half + 4)), other.fetch(torch.arange(4))
    assert torch.equal(mine["source"], theirs["source"]) and not torch.equal(mine["image"], theirs["image"])
    assert set(mine["source"].unique().tolist()) == {-1.0, 1.0}
    assert own.content_hash() != other.content_hash()


def test_a_spec_with_a_source_survives_its_json() -> None:
    import json

    source = Spec("image", (1, 8, 8), (-1.0, 1.0))
    spec = dataclasses.replace(source, shape=(3, 8, 8), classes=("a", "b"), source=source, is_paired=True)
    assert Spec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    assert spec.side("source") == source and spec.side("image") == spec
