"""Facts about what is held against a discriminator: each equals its closed form, or finite differences."""

import math

import pytest
import torch
from torch import Tensor, nn

from genai_cli.nn.random import BatchRandom
from genai_cli.nn.regularizers import (
    LeCam,
    consistency,
    gradient_penalty,
    likeness,
    spectrally_normalise,
    squared_slopes,
    zero_centred_penalty,
)


def small_judge() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1)).double()


def points(seed: int, count: int = 4) -> Tensor:
    return torch.randn(count, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slopes_by_differences(judge: nn.Module, x: Tensor, h: float = 1e-5) -> Tensor:
    """(B, D): central differences of every logit."""
    columns = []
    for d in range(x.shape[1]):
        move = torch.zeros_like(x)
        move[:, d] = h
        columns.append((judge(x + move) - judge(x - move)) / (2 * h))
    return torch.cat(columns, dim=1)


def test_the_zero_centred_penalty_is_that_of_finite_differences():
    judge, x = small_judge(), points(1).requires_grad_()
    expected = 0.5 * slopes_by_differences(judge, x.detach()).square().sum(1)
    torch.testing.assert_close(0.5 * squared_slopes(judge(x), x), expected, atol=1e-8, rtol=1e-6)
    torch.testing.assert_close(zero_centred_penalty(judge(x), x), expected.mean(), atol=1e-8, rtol=1e-6)


def test_the_gradient_penalty_is_that_of_finite_differences_between_data_and_fakes():
    judge, real, fake = small_judge(), points(1), points(2)
    eps = BatchRandom(5, stop=4).uniform(1).double()
    slopes = slopes_by_differences(judge, eps * real + (1 - eps) * fake)
    expected = (slopes.square().sum(1).sqrt() - 1).square().mean()
    found = gradient_penalty(judge, real, fake, BatchRandom(5, stop=4))
    torch.testing.assert_close(found, expected, atol=1e-8, rtol=1e-6)


@pytest.mark.parametrize("kind", ["gp", "r1"])
def test_the_gradient_of_a_penalty_is_that_of_its_finite_differences(kind):
    """The second derivative: how a weight changes the penalty."""
    judge, real, fake = small_judge(), points(1).requires_grad_(), points(2)

    def penalty() -> Tensor:
        if kind == "r1":
            return zero_centred_penalty(judge(real), real)
        return gradient_penalty(judge, real.detach(), fake, BatchRandom(5, stop=4))

    (gradient,) = torch.autograd.grad(penalty(), judge[0].weight)
    with torch.no_grad():
        judge[0].weight[2, 1] += 1e-5
    above = penalty()
    with torch.no_grad():
        judge[0].weight[2, 1] -= 2e-5
    below = penalty()
    torch.testing.assert_close(gradient[2, 1], (above - below).detach() / 2e-5, atol=1e-7, rtol=1e-5)


def test_a_linear_critic_has_the_slope_of_its_weight():
    critic = nn.Linear(3, 1).double()
    with torch.no_grad():
        critic.weight.copy_(torch.tensor([[3.0, 0.0, 4.0]]))  # of norm 5
    x = points(1).requires_grad_()
    assert zero_centred_penalty(critic(x), x).item() == pytest.approx(12.5)
    assert gradient_penalty(critic, points(1), points(2), BatchRandom(0, stop=4)).item() == pytest.approx(16)


def test_a_constant_critic_gets_a_finite_gradient():
    critic = nn.Linear(3, 1)
    nn.init.zeros_(critic.weight)
    gradient_penalty(critic, points(1).float(), points(2).float(), BatchRandom(0, stop=4)).backward()
    assert critic.weight.grad.isfinite().all()


def test_consistency_is_the_squared_change_of_the_logit():
    judge, x = small_judge(), points(1)
    found = consistency(judge, x, judge(x), lambda x: 2 * x)
    torch.testing.assert_close(found, (judge(x) - judge(2 * x)).square().mean())


def test_lecam_pulls_each_side_towards_the_average_of_the_other():
    lecam = LeCam(decay=0.5)
    lecam.follow(torch.tensor([[2.0], [4.0]]), torch.tensor([[-1.0], [-3.0]]))
    torch.testing.assert_close(lecam.averages, torch.tensor([1.5, -1.0]))
    real, fake = torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [0.5]])
    assert lecam(real, fake).item() == pytest.approx(((2**2 + 3**2) + (1.5**2 + 1.0**2)) / 2)


def test_the_largest_singular_value_becomes_one():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 4, stride=2), nn.Flatten(), nn.Linear(8 * 3 * 3, 5))
    weights = [network[0].weight.detach().flatten(1), network[2].weight.detach().clone()]
    spectrally_normalise(network)
    for _ in range(200):
        network(torch.zeros(1, 3, 8, 8))
    network.eval()
    for layer, weight in zip((network[0], network[2]), weights, strict=True):
        largest = torch.linalg.svdvals(weight)[0]
        torch.testing.assert_close(layer.weight.flatten(1), weight / largest, atol=1e-4, rtol=1e-3)
        assert torch.linalg.svdvals(layer.weight.flatten(1))[0].item() == pytest.approx(1, abs=1e-3)


def test_a_spectrally_normalised_perceptron_is_lipschitz():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 50), nn.LeakyReLU(0.2), nn.Linear(50, 1))
    with torch.no_grad():
        network[0].weight.mul_(30)
    spectrally_normalise(network)
    for _ in range(100):
        network(torch.zeros(1, 3))
    network.eval()
    x, y = torch.randn(500, 3), torch.randn(500, 3)
    steepness = (network(x) - network(y)).abs()[:, 0] / (x - y).norm(dim=1)
    assert steepness.max() <= 1 + 1e-3
    assert not math.isclose(steepness.max().item(), 0, abs_tol=0.01)


def test_likeness_is_the_slope_of_the_generator_inverted_and_of_each_pair_by_itself():
    z, other = points(0), points(1)
    scale = torch.tensor([[1.0], [2.0], [4.0], [0.5]], dtype=torch.float64)
    assert likeness(scale * z, scale * other, z, other).item() == pytest.approx((1 + 0.5 + 0.25 + 2) / 4, rel=1e-3)
    images = (scale * z)[:, :, None, None].expand(-1, -1, 2, 2)
    others = (scale * other)[:, :, None, None].expand(-1, -1, 2, 2)
    assert likeness(images, others, z, other) == likeness(scale * z, scale * other, z, other)
    assert likeness(z, z, z, other).isfinite()  # one image for every z


def test_a_generator_that_is_held_apart_learns_to_use_z():
    torch.manual_seed(0)
    generator, truth = nn.Linear(1, 2), 3.0  # data: 3 or more from one another
    optimizer = torch.optim.Adam(generator.parameters(), lr=0.05, betas=(0.9, 0.9))
    with torch.no_grad():
        generator.weight.fill_(0.1)
    for _ in range(300):
        z, other = torch.randn(32, 1), torch.randn(32, 1)
        fake = generator(z)
        loss = fake.square().mean() / truth**2 + likeness(fake, generator(other), z, other)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    # min over a slope w of w^2 / truth^2 + 1 / |w|
    assert generator.weight.abs().mean().item() == pytest.approx((truth**2 / 2) ** (1 / 3), rel=0.15)
