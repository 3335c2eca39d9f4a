"""Facts about the modern baseline, and of the game that it plays."""

import math

import pytest
import torch
from torch import Tensor, nn

from genai_cli.data.base import Batch, Spec
from genai_cli.models.r3gan import R3GAN, ResidualBlock
from genai_cli.nn.game import Game
from genai_cli.nn.norm import BatchNorm
from genai_cli.nn.random import BatchRandom, SampleRandom

POINTS = Spec("points", (1,))


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 64, 64)])
def test_both_players_fit_the_images(shape):
    torch.manual_seed(0)
    model = R3GAN(Spec("image", shape, value_range=(-1.0, 1.0)), latent_dim=4, width=8)
    samples = model.sample(SampleRandom(0, range(2)))
    assert samples.shape == (2, *shape) and model.discriminator(samples).shape == (2, 1)


def test_a_block_begins_as_the_identity():
    block, x = ResidualBlock(8, 0.5), torch.randn(2, 8, 7, 7)
    assert torch.equal(block(x), x)


@pytest.mark.parametrize("depth", [1, 4])
def test_weights_within_a_branch_begin_smaller_the_more_branches_there_are(depth):
    """By L^(-1/(2m - 2)) for L branches of m = 3 layers, beside He's deviation (arXiv:1901.09321, Section 3)."""
    torch.manual_seed(0)
    model = R3GAN(Spec("image", (1, 28, 28), (-1.0, 1.0)), width=32, depth=depth)
    for player in (model.generator, model.discriminator):
        blocks = [block for block in player.modules() if isinstance(block, ResidualBlock)]
        for block in blocks:
            he = math.sqrt(2 / (1 + 0.2**2) / block.expand.in_channels)
            assert block.expand.weight.std().item() == pytest.approx(he * len(blocks) ** -0.25, rel=0.06)


def test_nothing_is_normalised_and_no_row_sees_another():
    torch.manual_seed(0)
    model = R3GAN(Spec("image", (1, 28, 28), value_range=(-1.0, 1.0)), latent_dim=4, width=8)
    assert not any(isinstance(layer, BatchNorm | nn.GroupNorm) for layer in model.modules())
    x = torch.randn(3, 1, 28, 28)
    torch.testing.assert_close(model.discriminator(x)[:1], model.discriminator(x[:1]))


def test_both_gradients_are_penalised_at_every_step():
    torch.manual_seed(0)
    model = R3GAN(Spec("image", (1, 28, 28), value_range=(-1.0, 1.0)), latent_dim=4, width=8)
    batch = Batch({"image": torch.rand(4, 1, 28, 28)}, BatchRandom(0, stop=4))
    plain, _ = model.discriminator_loss(batch, regularize=False)
    batch.random.calls = 0
    whole, metrics = model.discriminator_loss(batch)
    torch.testing.assert_close(whole, plain + metrics["penalty"])
    assert metrics["penalty"] > 0


class Dirac(nn.Module):
    """The smallest GAN (Mescheder et al. 2018, Section 2): data at 0, one fake at theta, D(x) = psi x."""

    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.tensor([[0.01]], dtype=torch.float64))
        self.psi = nn.Parameter(torch.tensor([[0.01]], dtype=torch.float64))

    def judge(self, x: Tensor) -> Tensor:
        return x @ self.psi


def distance_after(game: Game, steps: int) -> float:
    """From the equilibrium (0, 0), both players descending at once."""
    dirac, real, random = Dirac(), torch.zeros(1, 1, dtype=torch.float64), BatchRandom(0, stop=1)
    for _ in range(steps):
        of_critic, _ = game.discriminator_loss(dirac.judge, real, dirac.theta.detach(), random)
        of_generator, _ = game.generator_loss(dirac.judge, dirac.theta, real, random)
        (psi,) = torch.autograd.grad(of_critic, [dirac.psi])
        (theta,) = torch.autograd.grad(of_generator, [dirac.theta])
        with torch.no_grad():
            dirac.psi -= 0.1 * psi
            dirac.theta -= 0.1 * theta
    return math.hypot(dirac.psi.item(), dirac.theta.item())


@pytest.mark.parametrize("regularizer", ["r1", "r2", "r1r2"])
def test_the_relativistic_game_converges_with_penalties_and_only_with_them(regularizer):
    """Propositions 1 and 2 of the paper, near the equilibrium of the Dirac GAN."""
    start = math.hypot(0.01, 0.01)
    assert distance_after(Game(POINTS, loss="relativistic"), 400) > start
    regularised = Game(POINTS, loss="relativistic", regularizer=regularizer, regularizer_weight=1.0)
    assert distance_after(regularised, 400) < 1e-2 * start
