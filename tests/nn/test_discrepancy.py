"""Facts about the maximum mean discrepancy: nothing between like samples, much between unlike ones."""

import pytest
import torch

from genai_cli.nn.discrepancy import kernel, mmd


def normal(count: int, seed: int) -> torch.Tensor:
    return torch.randn(count, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_it_is_zero_in_the_mean_for_one_law_and_not_for_two():
    values = torch.stack([mmd(normal(64, 2 * i), normal(64, 2 * i + 1)) for i in range(200)])
    error = values.std() / 200**0.5
    assert values.mean().abs() < 4 * error
    assert mmd(normal(64, 0), normal(64, 1) + 1) > 20 * values.std()
    assert mmd(normal(64, 0), normal(64, 1) * 2) > 4 * values.std()  # not only the mean counts


def test_equal_sets_are_nearer_than_any_two():
    """Of a set with itself, the biased estimate is zero: the unbiased one leaves out the diagonal, which is largest."""
    x = normal(10, 0)
    total = kernel(x, x)
    biased = 2 * total.mean() - 2 * total.mean()
    unbiased = mmd(x, x)
    assert biased == 0
    expected = 2 * (total.sum() - total.diagonal().sum()) / 90 - 2 * total.mean()
    torch.testing.assert_close(unbiased, expected)
    assert unbiased < 0


def test_the_kernel_is_positive_definite():
    assert torch.linalg.eigvalsh(kernel(normal(50, 0), normal(50, 0))).min() > 0


def test_one_example_is_too_few():
    with pytest.raises(ValueError, match=r"a larger train.batch_size"):
        mmd(normal(1, 0), normal(1, 1))
