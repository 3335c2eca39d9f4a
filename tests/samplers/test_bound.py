"""The variational bound, where its terms are known."""

import math

import pytest
import torch
from torch import Tensor

from genai_cli.nn.random import BatchRandom
from genai_cli.samplers.bound import bits_per_dim, draw_timestep, nats_of_bins, nats_of_start
from genai_cli.samplers.schedules import cosine_schedule, sigma_of_alpha_bar

LEVELS = sigma_of_alpha_bar(cosine_schedule(50))
STD = 0.3  # of Gaussian data, far inside [-1, 1] and smooth beside the bins


def gaussian_estimate(x: Tensor, t: Tensor) -> Tensor:
    """E[x_0 | x] for data N(0, STD^2)."""
    return STD**2 / (STD**2 + LEVELS.to(x)[t][:, None] ** 2) * x


def sum_of_terms(levels: Tensor, bin_width: float) -> float:
    """The bound in bits for Gaussian data and their best estimate, in closed form."""

    def posterior_variance(sigma: Tensor) -> Tensor:
        return STD**2 * sigma**2 / (STD**2 + sigma**2)

    gains = (levels[1:-1] ** -2 - levels[2:] ** -2) / 2
    middle = (gains * posterior_variance(levels[2:])).sum()
    first = levels[1]
    last = 0.5 * math.log(2 * math.pi * first**2) + posterior_variance(first) / (2 * first**2) - math.log(bin_width)
    return ((STD**2 / (2 * levels[-1] ** 2) + middle + last) / math.log(2)).item()


def test_it_equals_the_sum_of_its_terms():
    random = BatchRandom(0, stop=100_000)
    x0 = STD * random.normal(1)
    found = bits_per_dim(gaussian_estimate, x0, random, LEVELS, bin_width=0.002)
    standard_error = found.std().item() / math.sqrt(len(found))
    assert found.mean().item() == pytest.approx(sum_of_terms(LEVELS, 0.002), abs=4 * standard_error + 1e-3)
    assert standard_error < 0.03


def test_it_bounds_the_entropy_and_more_steps_come_closer():
    """Not all the way: sigma_t grows like the root of t at first; those steps lose half of Euler's constant."""
    entropy = 0.5 * math.log2(2 * math.pi * math.e * STD**2) - math.log2(0.002)
    gaps = [sum_of_terms(sigma_of_alpha_bar(cosine_schedule(steps)), 0.002) - entropy for steps in (50, 1000, 4000)]
    assert gaps[0] > gaps[1] > gaps[2] > 0.57722 / 2 / math.log(2)
    assert gaps[2] < 0.5


def test_timesteps_are_drawn_as_often_as_they_say():
    t, probability = draw_timestep((torch.arange(200_000) + 0.5) / 200_000, LEVELS)
    assert t.min() == 2 and t.max() == 50
    for value in (2, 7, 25, 50):
        share = (t == value).double().mean().item()
        assert share == pytest.approx(probability[t == value][0].item(), abs=1e-5)


def test_bins_partition_the_line():
    values = torch.linspace(-1, 1, 256)[:, None]  # every colour
    for mean, std in ((0.1, 0.02), (-1.0, 0.5), (3.0, 0.05)):
        nats = nats_of_bins(values, torch.full_like(values, mean), torch.tensor(std), 2 / 255)
        assert nats.double().neg().exp().sum().item() == pytest.approx(1, abs=1e-6)


def test_bins_far_above_the_mean_keep_their_digits():
    x, mean = torch.tensor([[0.2], [-0.2]]), torch.zeros(2, 1)
    above, below = nats_of_bins(x, mean, torch.tensor(0.02), 2 / 255).tolist()
    assert above == pytest.approx(below, rel=1e-4) and above > 40


def test_start_is_the_divergence_of_two_gaussians():
    x0, sigma = torch.tensor([[0.4, -0.2]]), torch.tensor(3.0)
    expected = sum(
        torch.distributions.kl_divergence(
            torch.distributions.Normal(value, sigma), torch.distributions.Normal(torch.tensor(0.0), sigma)
        )
        for value in x0[0]
    )
    torch.testing.assert_close(nats_of_start(x0, sigma)[0], expected)
