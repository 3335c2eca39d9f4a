"""The set of emoji: pictures are cut from the sheet that the list describes, and variants of one share a split."""

import gzip
import json

import numpy
import pytest
import torch
from PIL import Image

from genai_cli.data.base import DataError
from genai_cli.data.emoji import CATEGORIES, Emoji, share_of_record

SIDE = 6  # pictures along a side of the sheet


@pytest.fixture
def root(tmp_path):
    """36 pictures of one colour each, every third transparent in part, every fourth of a skin."""
    (tmp_path / "emoji").mkdir()
    sheet = numpy.zeros((SIDE * 34, SIDE * 34, 4), dtype=numpy.uint8)
    lines = []
    for i in range(SIDE**2):
        x, y = divmod(i, SIDE)
        sheet[y * 34 : y * 34 + 34, x * 34 : x * 34 + 34] = (7 * i, 255 - 7 * i, 0, 255)
        if i % 3 == 0:
            sheet[y * 34 + 1 : y * 34 + 17, x * 34 + 1 : x * 34 + 33, 3] = 0
        skin = ["light skin tone"] if i % 4 == 3 else []
        unified = f"1F4{i // 4 * 4:02X}" + ("-1F3FB" if skin else f"-{i % 4}" if i % 4 else "")
        place = {"sheet_x": x, "sheet_y": y, "category": CATEGORIES[i % 10], "skin": skin, "unified": unified}
        lines.append(json.dumps(place))
    Image.fromarray(sheet).save(tmp_path / "emoji" / "twemoji_sheet_32_256colours.png")
    (tmp_path / "emoji" / "captions.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    return tmp_path


def test_pictures_are_cut_from_the_sheet_on_white(root) -> None:
    dataset = Emoji(root=str(root), validation=0.2, test=0.2)
    rows = [split.fetch(torch.arange(len(split))) for split in map(dataset.load, ("train", "validation", "test"))]
    images = torch.cat([part["image"] for part in rows])
    levels = ((images + 1) * 127.5).round().long()
    numbers = (levels[:, 0, 31, 31] // 7).tolist()
    assert sorted(numbers) == list(range(36))
    for number, picture in zip(numbers, levels, strict=True):
        colour = torch.tensor([7 * number, 255 - 7 * number, 0])
        assert (picture[:, 16:] == colour.view(3, 1, 1)).all()
        assert (picture[:, :16] == (255 if number % 3 == 0 else colour.view(3, 1, 1))).all()
    labels = torch.cat([part["label"] for part in rows])
    assert labels.tolist() == [number % 10 for number in numbers]


def test_variants_of_a_skin_share_a_split_and_can_be_left_out(root) -> None:
    variants = [{"unified": name} for name in ("261D-FE0F", "261D-1F3FB", "261D-1F3FF")]
    assert len({share_of_record(record) for record in variants}) == 1
    splits = [Emoji(root=str(root), skins=False, validation=0.2, test=0.2).load(s) for s in ("train", "test")]
    assert all(len(split) for split in splits) and sum(map(len, splits)) <= 27
    flags = Emoji(root=str(root), category="Flags", validation=0.3, test=0.3)
    assert set(flags.load("train").fetch(torch.arange(1))["label"].tolist()) == {3}


def test_what_is_missing_or_broken_is_named(root, tmp_path) -> None:
    with pytest.raises(DataError, match=r"no emoji in .*put captions\.jsonl\.gz and the sheet"):
        Emoji(root=str(tmp_path / "nowhere")).load("train")
    with pytest.raises(DataError, match=r"twemoji_sheet_64_256colours\.png cannot be read"):
        Emoji(root=str(root), image_size=64).load("train")
    (root / "emoji" / "captions.jsonl.gz").write_bytes(b"none")
    with pytest.raises(DataError, match="is not the list of emoji"):
        Emoji(root=str(root)).load("train")
