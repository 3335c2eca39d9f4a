"""Facts about the losses of the two players."""

import math

import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm
from torch import Tensor

from genai_cli.nn.adversarial import discriminator_loss, minimax, nonsaturating

LOGITS = torch.tensor([-5.0, -0.3, 0.0, 0.7, 4.0], dtype=torch.float64)


def slope(loss, logit: float) -> float:
    logits = torch.tensor([logit], requires_grad=True)
    loss(logits).backward()
    return logits.grad.item()


def test_they_are_the_logarithms_of_the_paper():
    probability = LOGITS.sigmoid()
    torch.testing.assert_close(nonsaturating(LOGITS), -probability.log().mean())
    torch.testing.assert_close(minimax(LOGITS), (1 - probability).log().mean())
    expected = -probability.log().mean() - (1 - probability.flip(0)).log().mean()
    torch.testing.assert_close(discriminator_loss(LOGITS, LOGITS.flip(0)), expected)


def test_a_sure_discriminator_leaves_a_slope_to_nonsaturating_alone():
    assert slope(nonsaturating, -200.0) == -1
    assert slope(minimax, -200.0) == 0
    assert slope(nonsaturating, 200.0) == 0
    assert slope(minimax, 200.0) == -1


@pytest.mark.parametrize("loss", [nonsaturating, minimax])
def test_the_generator_gains_by_passing_for_data(loss):
    assert all(slope(loss, logit) < 0 for logit in LOGITS.tolist())
    # At D = 1/2 both forms pull equally hard (and are the same game).
    assert slope(loss, 0.0) == -0.5


def test_all_is_finite_where_probabilities_round():
    extreme = torch.tensor([-1e4, 1e4])
    assert all(torch.isfinite(value) for value in (nonsaturating(extreme), minimax(extreme)))
    assert discriminator_loss(extreme.flip(0), extreme) == 1e4


def quantiles(mean: float) -> Tensor:
    """(20000,) points that stand for N(mean, 1)."""
    levels = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    return mean + math.sqrt(2) * torch.erfinv(2 * levels - 1)


def test_the_best_discriminator_measures_the_jensen_shannon_divergence():
    """Theorem 1 of the paper, for N(-1, 1) and N(1, 1), of which the best logit is log p(x) - log q(x) = -2 x."""
    real, fake = quantiles(-1.0), quantiles(1.0)

    def half(mean: float):
        """The integrand of KL(N(mean, 1) || mixture)."""
        mixture = lambda x: (norm.pdf(x, -1) + norm.pdf(x, 1)) / 2  # noqa: E731
        return lambda x: norm.pdf(x, mean) * math.log(norm.pdf(x, mean) / mixture(x))

    divergence = (quad(half(-1.0), -12, 12)[0] + quad(half(1.0), -12, 12)[0]) / 2
    best = discriminator_loss(-2 * real, -2 * fake).item()
    assert best == pytest.approx(2 * math.log(2) - 2 * divergence, abs=1e-4)
    for logits in (lambda x: -1.8 * x, lambda x: -2.2 * x, lambda x: -2 * x + 0.2):
        assert discriminator_loss(logits(real), logits(fake)).item() > best
