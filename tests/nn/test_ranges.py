"""Facts about ranges."""

import pytest
import torch

from genai_cli.nn.ranges import flatten_to_unit, from_unit, tanh_to_range, to_unit

X = torch.linspace(-4, 4, 9)


@pytest.mark.parametrize("value_range", [(-1.0, 1.0), (0.0, 1.0), (-3.0, 5.0)])
def test_unit_and_back(value_range):
    low, high = value_range
    ends = torch.tensor([low, high])
    torch.testing.assert_close(to_unit(ends, value_range), torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(from_unit(to_unit(X, value_range), value_range), X)


@pytest.mark.parametrize("value_range", [(-1.0, 1.0), (0.0, 1.0), (-3.0, 5.0)])
def test_tanh_fills_the_range_from_end_to_end(value_range):
    low, high = value_range
    ends = tanh_to_range(torch.tensor([-50.0, 0.0, 50.0]), value_range)
    torch.testing.assert_close(ends, torch.tensor([low, (low + high) / 2, high]))
    torch.testing.assert_close(tanh_to_range(X, value_range), from_unit((2 * X).sigmoid(), value_range))


def test_flattening_scales_only_what_has_a_range():
    x = torch.tensor([[[-1.0, 0.0], [1.0, 0.5]]])
    torch.testing.assert_close(flatten_to_unit(x, (-1.0, 1.0)), torch.tensor([[0.0, 0.5, 1.0, 0.75]]))
    torch.testing.assert_close(flatten_to_unit(x, None), torch.tensor([[-1.0, 0.0, 1.0, 0.5]]))


def test_without_a_range_nothing_is_bent():
    assert tanh_to_range(X, None) is X
