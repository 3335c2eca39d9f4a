"""The assignment is the cheapest of all."""

import itertools

import pytest
import scipy.optimize
import torch

from genai_cli.nn.assignment import linear_assignment


@pytest.mark.parametrize("n", [1, 2, 4, 6])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_permutation_is_cheaper(n, seed):
    cost = torch.randn(n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    columns = linear_assignment(cost)
    assert sorted(columns.tolist()) == list(range(n))
    cheapest = min(cost[range(n), list(order)].sum().item() for order in itertools.permutations(range(n)))
    assert cost[range(n), columns].sum().item() == pytest.approx(cheapest, abs=1e-12)


@pytest.mark.parametrize("whole", [False, True])
def test_it_is_as_cheap_as_that_of_scipy(whole):
    cost = torch.rand(90, 90, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    cost = (10 * cost).floor() if whole else cost  # whole numbers: many ties
    rows, columns = scipy.optimize.linear_sum_assignment(cost.numpy())
    found = cost[range(90), linear_assignment(cost)].sum().item()
    assert found == pytest.approx(cost.numpy()[rows, columns].sum(), abs=1e-9)


def test_points_on_a_line_are_paired_in_order():
    x, y = torch.randn(2, 40, generator=torch.Generator().manual_seed(0))
    columns = linear_assignment((x[:, None] - y).square())
    assert torch.equal(y[columns][x.argsort()], y.sort().values)
