"""Facts about what a network may predict."""

import pytest
import torch

from genai_cli.samplers.predictions import min_snr_weight, prediction_target, prediction_to_x0
from genai_cli.samplers.schedules import cosine_schedule


@pytest.mark.parametrize("objective", ["eps", "x0", "v"])
def test_a_perfect_prediction_gives_back_the_data(objective):
    generator = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 50, 3, generator=generator, dtype=torch.float64)
    alpha_bar = cosine_schedule(50)[1:, None]
    alpha, sigma = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    x_t = alpha * x0 + sigma * eps
    prediction = prediction_target(objective, x0, eps, alpha, sigma)
    torch.testing.assert_close(prediction_to_x0(objective, prediction, x_t, alpha, sigma), x0)


@pytest.mark.parametrize("objective", ["eps", "x0", "v"])
def test_min_snr_weighs_every_objective_as_the_same_error_of_x0(objective):
    generator = torch.Generator().manual_seed(0)
    x_t, right, wrong = torch.randn(3, 50, generator=generator, dtype=torch.float64)
    alpha_bar = cosine_schedule(50)[1:]
    alpha, sigma = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    error_of_x0 = (
        prediction_to_x0(objective, wrong, x_t, alpha, sigma) - prediction_to_x0(objective, right, x_t, alpha, sigma)
    ).square()
    weighted = min_snr_weight(objective, alpha, sigma, gamma=5.0) * (wrong - right).square()
    torch.testing.assert_close(weighted, (alpha**2 / sigma**2).clamp(max=5.0) * error_of_x0)
