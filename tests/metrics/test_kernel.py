"""KID and the energy distance: equal to the sums they stand for, unbiased, and to torchmetrics."""

import pytest
import torch
from sklearn.metrics.pairwise import polynomial_kernel as sklearn_kernel
from torchmetrics.image.kid import poly_mmd

from genai_cli.metrics.kernel import (
    discrepancy_interval,
    energy_distance,
    kernel_distance,
    negative_distance,
    polynomial_kernel,
)


def normals(count: int, dim: int, *, seed: int, shift: float = 0.0) -> torch.Tensor:
    return shift + torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_kernel_equals_scikit_learns():
    x, y = normals(20, 6, seed=0), normals(15, 6, seed=1)
    expected = torch.from_numpy(sklearn_kernel(x.numpy(), y.numpy(), degree=3, gamma=1 / 6, coef0=1))
    torch.testing.assert_close(polynomial_kernel(x, y), expected)


def test_equals_torchmetrics_on_one_block():
    x, y = normals(50, 6, seed=0), normals(50, 6, seed=1, shift=0.3)
    expected = poly_mmd(x, y)
    assert kernel_distance(x, y) == pytest.approx(expected.item(), rel=1e-9)


def test_mean_over_draws_of_one_distribution_is_zero():
    values = torch.tensor([kernel_distance(normals(10, 4, seed=i), normals(15, 4, seed=500 + i)) for i in range(400)])
    assert abs(values.mean()) < 3 * values.std() / 400**0.5
    assert values.min() < 0  # unbiased: it must be able to come out negative


def test_energy_distance_is_its_definition_and_sees_what_two_moments_do_not():
    x, y = normals(30, 2, seed=0), normals(40, 2, seed=1, shift=0.5)
    within = [torch.cdist(a, a).sum() / (len(a) * (len(a) - 1)) for a in (x, y)]
    expected = 2 * torch.cdist(x, y).mean() - within[0] - within[1]
    assert energy_distance(x, y) == pytest.approx(expected.item(), rel=1e-9)
    gaussian, coin = normals(3000, 1, seed=2), normals(3000, 1, seed=3).sign()
    assert energy_distance(gaussian, coin) > 0.05


def test_interval_has_the_width_of_repeated_draws():
    values = torch.tensor(
        [energy_distance(normals(200, 2, seed=i), normals(200, 2, seed=900 + i, shift=0.5)) for i in range(80)]
    )
    x, y = normals(200, 2, seed=0), normals(200, 2, seed=900, shift=0.5)
    low, high = discrepancy_interval(negative_distance, values[0].item(), x, y, seed=0)
    assert low < values[0] < high
    assert high - low == pytest.approx(2 * 1.96 * values.std().item(), rel=0.3)
