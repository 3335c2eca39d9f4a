"""Images in storage: exact scaling, held-out ranges, mirror images."""

import pickle

import pytest
import torch

from genai_cli.data.base import DataError
from genai_cli.data.pixels import Mirrored, image_split, training_range


@pytest.fixture
def split():
    images = torch.arange(4 * 3 * 2 * 5, dtype=torch.uint8).view(4, 3, 2, 5)
    return image_split(images, torch.tensor([1, 0, 1, 2], dtype=torch.uint8))


def test_every_level_survives_the_scaling():
    levels = torch.arange(256, dtype=torch.uint8).view(256, 1, 1, 1)
    image = image_split(levels).fetch(torch.arange(256))["image"]
    assert (image.min(), image.max()) == (-1, 1)
    assert torch.equal(((image + 1) * 127.5).round().to(torch.uint8), levels)


def test_mirrored_split_has_each_image_twice(split):
    mirrored = Mirrored(split)
    assert len(mirrored) == 8
    rows = mirrored.fetch(torch.tensor([2, 6, 5]))
    plain = split.fetch(torch.tensor([2, 2, 1]))
    assert torch.equal(rows["image"][0], plain["image"][0])
    assert torch.equal(rows["image"][1:], plain["image"][1:].flip(-1))
    assert torch.equal(rows["label"], plain["label"])
    assert mirrored.content_hash() != split.content_hash()
    assert not mirrored.streams


def test_splits_can_be_sent_to_worker_processes(split):
    copy = pickle.loads(pickle.dumps(Mirrored(split)))
    assert torch.equal(copy.fetch(torch.tensor([7]))["image"], Mirrored(split).fetch(torch.tensor([7]))["image"])


def test_validation_is_the_end_of_the_training_images():
    assert training_range("train", 10, 3) == (0, 7)
    assert training_range("validation", 10, 3) == (7, 10)
    with pytest.raises(DataError, match=r"dataset\.validation=10 leaves nothing of 10 images"):
        training_range("train", 10, 10)
