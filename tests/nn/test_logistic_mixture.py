"""Facts about discretised logistic mixtures: they are distributions over levels, and samples follow them."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from genai_cli.nn.logistic_mixture import (
    draw,
    linked_means,
    log_probability,
    logistic_mixture,
    mean,
    num_parameters,
    quantise,
)
from genai_cli.nn.random import BatchRandom


def parameters(channels: int, components: int, *, scale: float = 1.0, count: int = 1) -> Tensor:
    """The same random mixture for `count` images of one pixel."""
    generator = torch.Generator().manual_seed(7)
    numbers = torch.randn(1, num_parameters(channels, components), 1, 1, generator=generator) * scale
    return numbers.expand(count, -1, -1, -1)


def all_images(channels: int, levels: int) -> Tensor:
    """Every image of one pixel, (levels^C, C, 1, 1)."""
    values = torch.linspace(-1, 1, levels).tolist()
    return torch.tensor(list(itertools.product(values, repeat=channels)))[:, :, None, None]


@pytest.mark.parametrize(("channels", "levels"), [(1, 256), (1, 2), (2, 16), (3, 8)])
@pytest.mark.parametrize("scale", [0.3, 5.0])
def test_probabilities_of_all_levels_sum_to_one(channels, levels, scale):
    x = all_images(channels, levels)
    mixture = logistic_mixture(parameters(channels, 3, scale=scale, count=len(x)), channels)
    total = log_probability(mixture, x, levels=levels).double().logsumexp(0).exp().item()
    assert total == pytest.approx(1, abs=2e-5)


def test_the_probability_is_the_mass_of_the_bin():
    """Against the integral of the density of the continuous mixture."""
    mixture = logistic_mixture(parameters(1, 3).double(), 1)
    logits, means, scales = (part.double().flatten() for part in mixture[:3])
    level = 100
    centre, half = -1 + 2 * level / 255, 1 / 255
    grid = torch.linspace(centre - half, centre + half, 20001, dtype=torch.float64)
    z = (grid[:, None] - means) / scales.exp()
    density = (logits.softmax(0) * torch.sigmoid(z) * torch.sigmoid(-z) / scales.exp()).sum(1)
    expected = torch.trapezoid(density, grid).log().item()
    x = torch.full((1, 1, 1, 1), centre)
    assert log_probability(mixture, x).item() == pytest.approx(expected, abs=1e-4)


def test_nothing_underflows_far_from_a_narrow_component():
    """log p falls linearly in the distance, by its exact slope, where a difference of sigmoids would be zero."""
    numbers = torch.zeros(2, 3, 1, 1)
    numbers[:, 1], numbers[:, 2] = 0.9, -7.0  # mean and log scale
    numbers.requires_grad_()
    x = torch.tensor([-0.8, -0.6]).view(2, 1, 1, 1)
    nll = -log_probability(logistic_mixture(numbers, 1), x).flatten()
    gap = (quantise(torch.tensor(-0.6), 256) - quantise(torch.tensor(-0.8), 256)).item()
    assert (nll[0] - nll[1]).item() == pytest.approx(gap * math.exp(7), rel=1e-4)
    nll.sum().backward()
    assert numbers.grad.isfinite().all() and numbers.grad[:, 1].abs().min() > 100


@pytest.mark.parametrize("channels", [1, 3])
def test_draws_have_the_probabilities_and_the_mean_has_the_linked_ones(channels):
    levels, count = 4, 40_000
    mixture = logistic_mixture(parameters(channels, 3, scale=0.7, count=count), channels)
    x = draw(mixture, BatchRandom(0, stop=count), levels=levels)  # (N, C, 1, 1)
    every = all_images(channels, levels)
    few = logistic_mixture(parameters(channels, 3, scale=0.7, count=len(every)), channels)
    expected = log_probability(few, every, levels=levels).exp().flatten()
    digits = ((x.flatten(1) + 1) * (levels - 1) / 2).round().long()  # (N, C)
    index = (digits * levels ** torch.arange(channels - 1, -1, -1)).sum(1)
    found = torch.bincount(index, minlength=len(every)) / count
    assert (found - expected).abs().max() < 5 * 0.5 / math.sqrt(count)
    assert mean(mixture).shape == x.shape and mean(mixture).abs().max() <= 1


def test_the_mean_is_that_of_wide_ranges():
    """With narrow components well inside the range, draws average to the mean, links between channels included."""
    numbers = parameters(3, 2, scale=0.15, count=20_000).clone().unflatten(1, (2, 10))
    numbers[:, :, 4:7] = -5.0
    mixture = logistic_mixture(numbers.flatten(1, 2), 3)
    drawn = draw(mixture, BatchRandom(0, stop=20_000)).mean(0)
    torch.testing.assert_close(drawn, mean(mixture)[0], atol=5e-3, rtol=0)


def test_a_later_channel_reads_the_former_and_no_other():
    mixture = logistic_mixture(parameters(3, 2), 3)
    x = torch.tensor([0.1, -0.3, 0.5]).view(1, 3, 1, 1)
    base = linked_means(mixture, x.unsqueeze(1))
    for channel in range(3):
        moved = x.clone()
        moved[:, channel] += 0.2
        changed = (linked_means(mixture, moved.unsqueeze(1)) != base).flatten(0, 1).any(0).flatten()
        assert changed.tolist() == [later > channel for later in range(3)]


def test_levels_are_kept_and_other_values_rounded():
    values = torch.linspace(-1, 1, 256)
    torch.testing.assert_close(quantise(values, 256), values)
    torch.testing.assert_close(quantise(values + 0.3 / 255, 256)[:-1], values[:-1])
