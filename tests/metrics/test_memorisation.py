"""Closeness to training data: half for fresh draws, one for copies."""

import pytest
import torch

from genai_cli.metrics.bootstrap import resampled_interval
from genai_cli.metrics.memorisation import Closeness, closeness, nearest_distance


def draws(count: int, *, seed: int) -> torch.Tensor:
    return torch.randn(count, 1, 4, 4, generator=torch.Generator().manual_seed(seed))


def test_fresh_draws_are_as_close_to_either_set():
    found = closeness(draws(4000, seed=0), draws(500, seed=1), draws(500, seed=2))
    assert found.is_closer_to_train.mean() == pytest.approx(0.5, abs=0.03)
    assert found.ratio == pytest.approx(1, abs=0.02)


def test_copies_are_closer_to_the_training_set():
    train = draws(500, seed=1)
    found = closeness(train[:100] + 0.01, train, draws(500, seed=2))
    assert found.is_closer_to_train.mean() == 1
    assert found.ratio < 0.05


def test_equal_distances_count_half():
    train = draws(50, seed=1)
    assert closeness(draws(20, seed=0), train, train).is_closer_to_train.unique().tolist() == [0.5]


def test_sets_of_different_size_are_refused():
    with pytest.raises(ValueError, match="sizes must be equal"):
        closeness(draws(5, seed=0), draws(10, seed=1), draws(9, seed=2))


def test_nearest_distance_is_the_least_of_all():
    x, reference = draws(700, seed=0), draws(30, seed=1)
    expected = (x.flatten(1)[:, None] - reference.flatten(1)).norm(dim=2).min(1).values
    torch.testing.assert_close(nearest_distance(x, reference), expected, rtol=1e-4, atol=1e-4)


def test_the_ratio_has_the_interval_of_repeated_draws():
    def measured(seed: int) -> Closeness:
        generator = torch.Generator().manual_seed(seed)
        return Closeness(*(1 + torch.rand(2, 300, generator=generator)))

    values = torch.tensor([measured(seed).ratio for seed in range(300)])
    close = measured(0)
    low, high = resampled_interval(close.ratio, lambda rows: close.of(rows).ratio, 300, seed=0)
    assert low < close.ratio < high
    assert high - low == pytest.approx(2 * 1.96 * values.std().item(), rel=0.35)
