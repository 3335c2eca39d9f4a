"""The likelihood of the probability flow, where the answer is known."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from genai_cli.nn.random import BatchRandom
from genai_cli.samplers.likelihood import draw_probes, log_likelihood, negative_log_likelihood

MEAN = torch.tensor([0.7, -0.3])
COVARIANCE = torch.tensor([[0.5, 0.3], [0.3, 0.4]])


def gaussian_denoiser(x: Tensor, sigma: float) -> Tensor:
    """E[x_0 | x] for data N(MEAN, COVARIANCE): correlated, so that the Jacobian is not diagonal."""
    gain = COVARIANCE.to(x) @ torch.linalg.inv(COVARIANCE.to(x) + sigma**2 * torch.eye(2).to(x))
    return MEAN.to(x) + (x - MEAN.to(x)) @ gain.T


def test_likelihood_of_gaussian_data_is_exact():
    """Up to what noise of sigma_max leaves of the data: their mean shifts ln p by some z MEAN / sigma_max."""
    x = MEAN + torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
    found = negative_log_likelihood(gaussian_denoiser, x, BatchRandom(0, stop=6), sigma_min=0.002, sigma_max=1000.0)
    expected = -MultivariateNormal(MEAN, COVARIANCE).log_prob(x)
    torch.testing.assert_close(found["nll"], expected, atol=0.03, rtol=0)
    assert (found["nll"] - expected).mean().abs() < 0.01
    assert found["nll_step_error"].max() < 0.2


def test_error_falls_with_the_fourth_power_of_the_step():
    x = torch.tensor([[1.0, 0.5]], dtype=torch.float64)
    exact = MultivariateNormal(MEAN.double(), COVARIANCE.double() + 1e-4 * torch.eye(2)).log_prob(x)
    probes = draw_probes(x, BatchRandom(0, stop=1)).double()
    errors = []
    for steps in (20, 40):
        found = log_likelihood(gaussian_denoiser, x, probes, sigma_min=0.01, sigma_max=1e5, steps=steps)
        errors.append((found - exact).abs().item())
    assert math.log2(errors[0] / errors[1]) == pytest.approx(4, abs=0.5)


def test_random_probes_estimate_the_trace_without_bias():
    torch.manual_seed(0)
    matrix = 1 + torch.randn(12, 12)  # of a mean, which would show in probes that have one
    x = torch.zeros(20_000, 12)
    (probe,) = draw_probes(x, BatchRandom(0, stop=20_000))
    estimates = torch.einsum("bi,ij,bj->b", probe, matrix, probe)
    assert set(probe.unique().tolist()) == {-1, 1}
    standard_error = estimates.std().item() / math.sqrt(20_000)
    assert estimates.mean().item() == pytest.approx(matrix.trace().item(), abs=4 * standard_error)
    torch.testing.assert_close(
        torch.einsum("pbi,pbj->bij", *[draw_probes(x[:3, :5], None)] * 2), torch.eye(5).expand(3, 5, 5)
    )
