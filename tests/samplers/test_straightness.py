"""Facts about pairs of noise and data, and about straight paths."""

import pytest
import torch

from genai_cli.nn.random import BatchRandom, SampleRandom
from genai_cli.samplers.pairs import SEED, Pairs, straightness

CPU = torch.device("cpu")


def test_a_pair_is_noise_and_what_was_made_of_it():
    pairs = Pairs(lambda random: 3 * random.normal(2), 300, CPU)
    x0, eps, index = pairs.draw(BatchRandom(1, stop=50))
    torch.testing.assert_close(x0, 3 * eps)
    assert torch.equal(eps, SampleRandom(SEED, index.tolist()).normal(2))
    assert len(index.unique()) > 30 and index.max() > 200


def test_a_constant_velocity_is_straight():
    eps = torch.randn(10, 3)
    assert straightness(lambda x, t: eps, eps, 7).abs().max() < 1e-10


def test_straightness_of_a_flow_to_a_narrow_gaussian():
    """x_t = std(t) eps with std(t)^2 = (1 - t)^2 STD^2 + t^2: the integral of (std' - (1 - STD))^2 eps^2."""
    std = 0.2

    def rate(t):
        return (t - (1 - t) * std**2) / ((1 - t) ** 2 * std**2 + t**2)

    eps = torch.tensor([[1.0], [-2.0]], dtype=torch.float64)
    t = torch.linspace(0, 1, 20_001, dtype=torch.float64)
    slope = rate(t) * ((1 - t) ** 2 * std**2 + t**2).sqrt()
    expected = torch.trapezoid((slope - (1 - std)) ** 2, t) * eps.squeeze(1) ** 2
    found = straightness(lambda x, t: rate(t) * x, eps, 2000)
    torch.testing.assert_close(found, expected, rtol=5e-3, atol=0)
    assert found[0].item() > 0.02
    assert straightness(lambda x, t: rate(t) * x, eps, 1).tolist() == [pytest.approx(0)] * 2  # one step sees no bend
