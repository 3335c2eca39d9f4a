"""Scores of forecasts: that of a normal is its closed form, few draws are judged as many are, and truth scores best."""

import math

import pytest
import torch

from genai_cli.metrics.forecasts import crps, median_error


def normal_crps(z: float) -> float:
    """Of a standard normal at z (Gneiting & Raftery 2007, Section 4.2)."""
    density, below = math.exp(-(z**2) / 2) / math.sqrt(2 * math.pi), (1 + math.erf(z / math.sqrt(2))) / 2
    return z * (2 * below - 1) + 2 * density - 1 / math.sqrt(math.pi)


@pytest.mark.parametrize("z", [0.0, 0.7, -2.0])
@pytest.mark.parametrize("count", [2, 20])
def test_the_score_of_a_normal_is_its_closed_form_however_few_the_draws(z, count):
    draws = torch.randn(count, 40_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert crps(draws, torch.full((40_000,), z)).mean().item() == pytest.approx(normal_crps(z), abs=0.015)


def test_the_score_is_that_of_all_pairs_of_draws():
    draws, truth = torch.randn(5, 3, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    between = (draws.unsqueeze(0) - draws.unsqueeze(1)).abs().sum((0, 1)) / (5 * 4)
    torch.testing.assert_close(crps(draws, truth), (draws - truth).abs().mean(0) - between / 2)
    same = draws[:1].expand(5, 3)  # one forecast: the absolute error
    torch.testing.assert_close(crps(same, truth), (draws[0] - truth).abs())
    torch.testing.assert_close(median_error(same, truth), (draws[0] - truth).abs())


def test_draws_as_wide_as_the_truth_score_best():
    random = torch.Generator().manual_seed(1)
    truth, noise = torch.randn(20_000, generator=random), torch.randn(20, 20_000, generator=random)
    scores = {width: crps(width * noise, truth).mean().item() for width in (0.5, 1.0, 2.0)}
    assert scores[1.0] < min(scores[0.5], scores[2.0])
