"""Facts about diagonal Gaussians: torch.distributions knows the same ones."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from genai_cli.nn.gaussians import (
    active_units,
    kl_per_coordinate,
    kl_to_standard_normal,
    log_normal,
    log_standard_normal,
    mutual_information,
    reparameterise,
    with_free_bits,
)


def seeded(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


def normal(mu: Tensor, logvar: Tensor) -> Normal:
    return Normal(mu, (0.5 * logvar).exp())


def test_kl_is_the_closed_form():
    mu, logvar, prior_mu, prior_logvar = seeded(4, 5, 3)
    expected = kl_divergence(normal(mu, logvar), Normal(0.0, 1.0))
    torch.testing.assert_close(kl_to_standard_normal(mu, logvar), expected.sum(1))
    torch.testing.assert_close(kl_per_coordinate(mu, logvar), expected)
    expected = kl_divergence(normal(mu, logvar), normal(prior_mu, prior_logvar))
    torch.testing.assert_close(kl_per_coordinate(mu, logvar, prior_mu, prior_logvar), expected)
    assert kl_to_standard_normal(torch.zeros(1, 3), torch.zeros(1, 3)).item() == 0


def test_kl_is_the_mean_log_ratio_of_draws():
    mu, logvar = seeded(2, 1, 3)
    z = reparameterise(mu, logvar, seeded(200_000, 3))
    ratios = log_normal(z, mu, logvar) - log_standard_normal(z)
    error = ratios.std().item() / math.sqrt(len(ratios))
    assert kl_to_standard_normal(mu, logvar).item() == pytest.approx(ratios.mean().item(), abs=4 * error)


def test_densities_are_those_of_torch():
    z, mu, logvar = seeded(3, 5, 3)
    torch.testing.assert_close(log_normal(z, mu, logvar), normal(mu, logvar).log_prob(z).sum(1))
    torch.testing.assert_close(log_standard_normal(z), Normal(0.0, 1.0).log_prob(z).sum(1))


def test_free_bits_bind_only_coordinates_below_them():
    kl = torch.tensor([[0.1, 2.0], [0.3, 4.0]], requires_grad=True)
    value = with_free_bits(kl, 0.5)
    assert value.item() == pytest.approx(0.5 + 3.0)
    value.backward()
    torch.testing.assert_close(kl.grad, torch.tensor([[0.0, 0.5], [0.0, 0.5]]))


def test_units_are_active_where_the_mean_moves():
    mu = torch.stack([torch.full((100,), 3.0), 0.05 * torch.randn(100), torch.randn(100)], dim=1)
    assert active_units(mu) == 1


def test_mutual_information_is_that_of_gaussians_and_at_most_log_n():
    """With z = x + noise, I = 1/2 log(1 + 1 / variance) for each coordinate."""
    mu, variance = seeded(1500, 2), 0.5
    logvar = torch.full_like(mu, math.log(variance))
    noise = torch.randn(1500, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    z = reparameterise(mu, logvar, noise)
    assert mutual_information(z, mu, logvar) == pytest.approx(math.log(1 + 1 / variance), abs=0.06)
    assert mutual_information(mu, mu, logvar - 30) == pytest.approx(math.log(1500))
    assert mutual_information(noise, 0 * mu, 0 * mu) == pytest.approx(0)
