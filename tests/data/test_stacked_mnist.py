"""Facts about the stacked digits: what they are made of, and that they never change."""

import torch

from genai_cli.data.mnist import Mnist
from genai_cli.data.stacked_mnist import StackedMnist

# Which digits meet: with another generator of torch it would be another data set.
SUM_OF_TEST_PLACES = 389_831_896


def test_every_channel_is_a_digit_of_its_own_split():
    data, digits = StackedMnist(), Mnist().load("test")
    split = data.load("test")
    rows = split.fetch(torch.arange(50))
    assert rows["image"].shape == (50, *data.spec.shape) and rows["image"].dtype == torch.float32
    for i in range(50):
        parts = digits.fetch(split.places[i])
        assert torch.equal(rows["image"][i], parts["image"][:, 0])
        label = "".join(str(figure) for figure in parts["label"].tolist())
        assert data.spec.classes[rows["label"][i]] == label


def test_it_is_the_same_every_time_and_its_parts_differ():
    data = StackedMnist(count=1000)
    assert data.load("test").content_hash() == StackedMnist().load("test").content_hash()
    assert data.load("validation").content_hash() != data.load("test").content_hash()
    assert len(data.load("train")) == 1000
    assert int(data.load("test").places.sum()) == SUM_OF_TEST_PLACES


def test_all_thousand_classes_are_there():
    split = StackedMnist().load("test")
    labels = split.fetch(torch.arange(len(split)))["label"]
    counts = labels.bincount(minlength=1000)
    assert len(counts) == 1000 and counts.min() > 5
