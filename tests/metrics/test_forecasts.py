"""Scores of forecasts: that of a normal is its closed form, few draws are judged as many are, and truth scores best."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from genai_cli.commands.measure_forecasts import measure_forecasts
from genai_cli.config import EvaluateConfig
from genai_cli.data.base import Spec, TensorSplit
from genai_cli.metrics.forecasts import crps, median_error
from genai_cli.models.base import GenerativeModel


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


class Oracle(GenerativeModel):
    """Answers with `wrong` more than what came, and with rubbish where values were given."""

    def __init__(self, spec: Spec, wrong: float):
        super().__init__(spec)
        self.wrong = nn.Parameter(torch.tensor(wrong))

    def sample(self, random, *, given: torch.Tensor, keep: str) -> torch.Tensor:
        assert keep == "first_half"
        rows = given[torch.tensor(list(random.index)) % len(given)]
        return torch.cat([rows[:, :3] + 100, rows[:, 3:] + self.wrong], 1)


@pytest.mark.parametrize("wrong", [0.0, 2.0])
def test_a_model_is_scored_by_what_it_draws_after_the_given_half_of_its_own_window(wrong):
    spec = Spec("series", (7, 2), columns=("a", "b"))
    split = TensorSplit({"series": torch.randn(9, 7, 2, generator=torch.Generator().manual_seed(0))}, dict)
    trained = SimpleNamespace(
        spec=spec, model=Oracle(spec, wrong).eval(), config=SimpleNamespace(model={"name": "oracle"})
    )
    config = EvaluateConfig(run="", num_samples=100)
    found = list(measure_forecasts(trained, split, config, {}, [], torch.device("cpu")))
    assert [metric.name for metric in found] == ["forecast_crps", "forecast_error"]
    for metric in found:
        assert metric.value == pytest.approx(wrong, abs=1e-5)
        assert metric.controls["other_window"] > 0.5
