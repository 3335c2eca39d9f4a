"""Facts about the losses of the two players."""

import math

import pytest
import torch
import torch.nn.functional as F
from scipy.integrate import quad
from scipy.stats import norm
from torch import Tensor

from genai_cli.nn.adversarial import LOSSES, discriminator_loss, hinge, minimax, nonsaturating, pairing

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


@pytest.mark.parametrize(
    ("name", "discriminator", "generator"),
    [
        ("lsgan", lambda d, g: 0.5 * ((d - 1) ** 2 + g**2), lambda g: 0.5 * (g - 1) ** 2),
        ("wgan", lambda d, g: g - d, lambda g: -g),
        ("hinge", lambda d, g: max(0, 1 - d) + max(0, 1 + g), lambda g: -g),
    ],
)
def test_a_loss_and_its_slope_are_those_of_the_paper(name, discriminator, generator):
    loss = LOSSES[name]
    for real, fake in ((-2.0, 0.5), (0.3, -3.0), (1.7, 2.0)):
        found = loss.discriminator(torch.tensor([[real]]), torch.tensor([[fake]])).item()
        assert found == pytest.approx(discriminator(real, fake))
        assert loss.generator(torch.tensor([[fake]])).item() == pytest.approx(generator(fake))
        h = 1e-6
        assert slope(loss.generator, fake) == pytest.approx(
            (generator(fake + h) - generator(fake - h)) / (2 * h), rel=1e-4
        )


def test_the_best_least_squares_discriminator_is_the_share_of_data():
    """D*(x) = p / (p + q) minimises 1/2 p (D - 1)^2 + 1/2 q D^2: Eq. 5 of the paper with b = 1, a = 0."""
    p, q = 0.7, 0.2
    logit = torch.tensor([[p / (p + q)]], requires_grad=True)
    loss = LOSSES["lsgan"].discriminator
    total = p * loss(logit, torch.zeros(1, 1)) + q * loss(torch.ones(1, 1), logit)
    total.backward()
    assert logit.grad.item() == pytest.approx(0, abs=1e-7)


def test_hinge_lets_go_beyond_the_margin():
    real, fake = torch.tensor([[1.5]], requires_grad=True), torch.tensor([[-1.5]], requires_grad=True)
    hinge(real, fake).backward()
    assert real.grad.item() == fake.grad.item() == 0


def test_the_relativistic_game_is_about_differences_and_symmetric():
    real, fake = LOGITS[:, None], LOGITS.flip(0)[:, None]
    torch.testing.assert_close(pairing(real + 7, fake + 7), pairing(real, fake))
    torch.testing.assert_close(pairing(real, fake), -F.logsigmoid(real - fake).mean())
    torch.testing.assert_close(pairing(real, fake) - pairing(fake, real), (fake - real).mean())
