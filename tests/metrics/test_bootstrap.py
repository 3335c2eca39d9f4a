"""Facts about the standard error of a mean: its formula, and that resampling finds the same."""

import math

import pytest
import torch

from genai_cli.metrics.bootstrap import mean_interval, resampling_counts, standard_error


def test_of_equal_weights_it_is_the_deviation_over_the_root_of_the_number():
    values = torch.tensor([1.0, 2.0, 4.0, 9.0])
    assert standard_error(values) == pytest.approx(values.std().item() / 2)
    assert standard_error(values, weight=torch.full((4,), 7.0)) == pytest.approx(values.std().item() / 2)
    assert standard_error(torch.ones(5)) == 0
    assert math.isnan(standard_error(torch.ones(1))), "one example says nothing of how the mean would move"


def test_it_is_the_deviation_of_resampled_means_and_the_interval_about_four_of_it_wide():
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(800, generator=generator, dtype=torch.float64).exp()
    weight = torch.randint(1, 40, (800,), generator=generator).double()  # tokens of a window
    counts = resampling_counts(4000, 800, seed=1)
    means = (counts @ (weight * values)) / (counts @ weight)
    error = standard_error(values, weight=weight)
    assert error == pytest.approx(means.std().item(), rel=0.05)
    low, high = mean_interval(values, seed=0, weight=weight, num_replicates=4000)
    assert (high - low) / (2 * 1.96) == pytest.approx(error, rel=0.05)
