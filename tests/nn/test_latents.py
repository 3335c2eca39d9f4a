"""Facts about densities of codes: one Gaussian is the mean and covariance, EM finds a known mixture and never falls."""

import itertools

import pytest
import torch
from torch import Tensor

from genai_cli.nn.latents import CodeMemory, fit_flow, fit_mixture
from genai_cli.nn.random import BatchRandom, SampleRandom

CENTRES = torch.tensor([[-4.0, 0.0], [4.0, 0.0], [0.0, 5.0]])


def clusters(count: int) -> Tensor:
    """Three tilted clusters of one third each, (count, 2)."""
    generator = torch.Generator().manual_seed(0)
    tilt = torch.tensor([[1.0, 0.0], [0.6, 0.3]])
    return CENTRES[torch.arange(count) % 3] + torch.randn(count, 2, generator=generator) @ tilt.T


def test_one_gaussian_has_the_mean_and_the_covariance():
    x = clusters(600)
    memory = CodeMemory(2, capacity=1000)
    memory.update(x)
    drawn = memory.draw(BatchRandom(0, stop=100_000), "gaussian")
    torch.testing.assert_close(drawn.mean(0), x.mean(0), atol=0.05, rtol=0)
    torch.testing.assert_close(drawn.T.cov(), x.T.cov(), atol=0.15, rtol=0)


def test_the_mixture_finds_the_clusters():
    mixture = fit_mixture(clusters(3000), 3)
    found = mixture.mean[torch.cdist(CENTRES.double(), mixture.mean).argmin(1)].float()
    torch.testing.assert_close(found, CENTRES, atol=0.1, rtol=0)
    torch.testing.assert_close(mixture.weight.float(), torch.full((3,), 1 / 3), atol=0.01, rtol=0)
    covariance = mixture.factor @ mixture.factor.mT
    expected = torch.tensor([[1.0, 0.6], [0.6, 0.45]]).expand(3, 2, 2)
    torch.testing.assert_close(covariance.float(), expected, atol=0.1, rtol=0)
    drawn = mixture.draw(BatchRandom(0, stop=5000)).float()
    assert (torch.cdist(drawn, CENTRES).min(1).values < 4).float().mean() > 0.99


def test_the_density_is_that_of_torch_and_no_iteration_loses_likelihood():
    x = clusters(600)
    values = []
    for iterations in range(6):
        mixture = fit_mixture(x, 4, num_iterations=iterations)
        values.append(mixture.log_prob(x.double()).logsumexp(1).mean().item())
    assert all(after >= before - 1e-3 for before, after in itertools.pairwise(values))
    parts = torch.distributions.MultivariateNormal(mixture.mean, scale_tril=mixture.factor)
    expected = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(mixture.weight), parts)
    torch.testing.assert_close(mixture.log_prob(x.double()).logsumexp(1), expected.log_prob(x.double()))


def test_the_last_codes_are_remembered_and_only_in_training():
    memory = CodeMemory(1, capacity=5)
    for start in range(0, 12, 3):
        memory.update(torch.arange(start, start + 3).float()[:, None])
    assert sorted(memory.remembered().flatten().tolist()) == [7, 8, 9, 10, 11]
    memory.eval()
    memory.update(torch.zeros(3, 1))
    assert memory.count == 12


@pytest.mark.parametrize("latent", ["gaussian", "gmm", "flow"])
def test_a_fit_follows_the_codes_and_forgets_none_of_its_randomness(latent):
    memory = CodeMemory(2, capacity=100)
    nothing = memory.draw(SampleRandom(0, range(4)), latent)
    torch.testing.assert_close(nothing, SampleRandom(0, range(4)).normal(2))
    memory.update(clusters(60))
    first = memory.draw(SampleRandom(0, range(4)), latent)
    torch.testing.assert_close(memory.draw(SampleRandom(0, range(2)), latent), first[:2])
    restored = CodeMemory(2, capacity=100)
    restored.draw(SampleRandom(0, range(4)), latent)
    restored.load_state_dict(memory.state_dict())
    torch.testing.assert_close(restored.draw(SampleRandom(0, range(4)), latent), first)
    memory.update(clusters(60) + 100)
    assert (memory.draw(SampleRandom(0, range(4)), latent) != first).any()


def test_codes_that_are_all_the_same_are_drawn_as_they_are():
    memory = CodeMemory(2, capacity=100)
    memory.update(torch.ones(50, 2))
    torch.testing.assert_close(memory.draw(SampleRandom(0, range(3)), "gmm"), torch.ones(3, 2), atol=1e-4, rtol=0)


def test_a_flow_knows_more_than_a_gaussian_and_its_density_is_one():
    """Of a ring, which one Gaussian fills; against the integral of the density over the plane."""
    generator = torch.Generator().manual_seed(0)
    angle = 2 * torch.pi * torch.rand(2000, generator=generator)
    radius = 3 + 0.3 * torch.randn(2000, generator=generator)
    ring = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)
    flow, gaussian = fit_flow(ring[:1500], steps=200), fit_mixture(ring[:1500], 1)
    held_out = ring[1500:]
    assert flow.log_prob(held_out).mean() > gaussian.log_prob(held_out.double()).mean() + 0.3
    axis = torch.linspace(-8, 8, 161)
    plane = torch.cartesian_prod(axis, axis)
    assert flow.log_prob(plane).exp().sum().item() * 0.1**2 == pytest.approx(1, abs=0.02)
    assert torch.equal(
        flow.draw(SampleRandom(0, range(4))), fit_flow(ring[:1500], steps=200).draw(SampleRandom(0, range(4)))
    )
