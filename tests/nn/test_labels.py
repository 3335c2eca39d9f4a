import pytest

from genai_cli.nn.labels import sample_labels
from genai_cli.nn.random import SampleRandom


def test_each_class_comes_in_turn_whatever_the_batch() -> None:
    assert sample_labels(SampleRandom(0, range(7)), 3).tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert sample_labels(SampleRandom(0, range(4, 7)), 3).tolist() == [1, 2, 0]


def test_a_label_is_for_all() -> None:
    assert sample_labels(SampleRandom(0, range(3)), 3, label=2).tolist() == [2, 2, 2]


def test_a_label_beyond_the_classes_is_refused() -> None:
    with pytest.raises(ValueError, match="label=3 must be below 3"):
        sample_labels(SampleRandom(0, range(3)), 3, label=3)
