"""Facts about the variational autoencoder: its terms are those of torch.distributions, its bound is one."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import Bernoulli, MultivariateNormal, Normal, kl_divergence

from genai_cli.data.base import Batch, Spec
from genai_cli.models.vae import VAE, kl_to_standard_normal
from genai_cli.nn.random import BatchRandom, SampleRandom

IMAGES = Spec("image", (1, 4, 4), value_range=(-1.0, 1.0))
POINTS = Spec("points", (3,))


def seeded(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


def test_kl_is_the_closed_form():
    mu, logvar = seeded(2, 5, 3)
    expected = kl_divergence(Normal(mu, (0.5 * logvar).exp()), Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(kl_to_standard_normal(mu, logvar), expected)
    assert kl_to_standard_normal(torch.zeros(1, 3), torch.zeros(1, 3)).item() == 0


def test_kl_is_the_mean_log_ratio_of_draws():
    mu, logvar = seeded(2, 1, 3)
    q, p = Normal(mu, (0.5 * logvar).exp()), Normal(torch.zeros_like(mu), 1.0)
    z = mu + (0.5 * logvar).exp() * seeded(200_000, 3)
    ratios = (q.log_prob(z) - p.log_prob(z)).sum(1)
    error = ratios.std().item() / math.sqrt(len(ratios))
    assert kl_to_standard_normal(mu, logvar).item() == pytest.approx(ratios.mean().item(), abs=4 * error)


def test_bernoulli_nats_are_those_of_coins():
    likelihood = VAE(IMAGES, likelihood="bernoulli").likelihood
    output = seeded(5, 16).float()
    x = (seeded(5, 16) > 0).float() * 2 - 1
    expected = -Bernoulli(logits=output).log_prob((x + 1) / 2).sum(1)
    torch.testing.assert_close(likelihood.nll(output, x), expected)
    # A fair coin for each of 16 pixels.
    torch.testing.assert_close(likelihood.nll(torch.zeros(1, 16), x[:1]), torch.tensor([16 * math.log(2)]))


@pytest.mark.parametrize("spec", [IMAGES, POINTS])
def test_gaussian_nats_are_a_density_per_unit_of_the_data(spec):
    likelihood = VAE(spec, likelihood="gaussian").likelihood
    nn.init.constant_(likelihood.log_sigma, -0.7)
    output, x = seeded(2, 5, math.prod(spec.shape)).float()
    mean = output.tanh() if spec.value_range else output
    expected = -Normal(mean, math.exp(-0.7)).log_prob(x).sum(1)
    torch.testing.assert_close(likelihood.nll(output, x), expected)


def linear_gaussian_vae() -> tuple[VAE, torch.Tensor, torch.Tensor]:
    """p(x) = N(b, W W' + sigma^2 I), and the exact posterior as encoder: a VAE of which all is known."""
    sigma = 0.5
    w = torch.tensor([[1.0, 2.0], [1.0, -2.0], [0.0, 0.0]], dtype=torch.float64)  # orthogonal columns
    b = torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64)
    precision = w.square().sum(0) / sigma**2 + 1  # of the posterior, which is diagonal
    gain = (w / sigma**2 / precision).T  # (2, 3)
    model = VAE(POINTS, latent_dim=2, likelihood="gaussian").double()
    model.decoder, model.encoder = nn.Linear(2, 3).double(), nn.Linear(3, 4).double()
    model.encode = lambda x: model.encoder(x).chunk(2, dim=1)  # in double precision
    with torch.no_grad():
        model.likelihood.log_sigma.fill_(math.log(sigma))
        model.decoder.weight.copy_(w)
        model.decoder.bias.copy_(b)
        model.encoder.weight.copy_(torch.cat([gain, torch.zeros(2, 3)]))
        model.encoder.bias.copy_(torch.cat([-gain @ b, -precision.log()]))
    return model, b, w @ w.T + sigma**2 * torch.eye(3)


class DoubleRandom(BatchRandom):
    def normal(self, *shape: int) -> torch.Tensor:
        return super().normal(*shape).double()


def test_the_bound_is_exact_with_the_posterior_and_lower_by_the_kl_without():
    model, mean, covariance = linear_gaussian_vae()
    x = torch.tensor([0.9, 0.4, -0.5], dtype=torch.float64)
    exact = MultivariateNormal(mean, covariance).log_prob(x).item()
    batch = Batch({"points": x.expand(200_000, 3)}, DoubleRandom(0, stop=200_000))

    def elbo() -> tuple[float, float]:
        values = -model.evaluate(batch)["negative_elbo"]
        return values.mean().item(), values.std().item() / math.sqrt(len(values))

    with torch.no_grad():
        value, error = elbo()
        assert value == pytest.approx(exact, abs=4 * error)
        posterior = Normal(*normal_of(model, x))
        model.encoder.bias += torch.tensor([0.2, -0.1, 0.8, -0.5])
        gap = kl_divergence(Normal(*normal_of(model, x)), posterior).sum().item()
        value, error = elbo()
    assert value < exact
    assert value == pytest.approx(exact - gap, abs=4 * error)


def normal_of(model: VAE, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    mu, logvar = model.posterior(x.unsqueeze(0))
    return mu, (0.5 * logvar).exp()


def test_beta_weighs_the_loss_and_not_the_bound():
    torch.manual_seed(0)
    plain, weighted = VAE(IMAGES, width=8, latent_dim=2), VAE(IMAGES, width=8, latent_dim=2, beta=4.0)
    weighted.load_state_dict(plain.state_dict())
    batches = [Batch({"image": seeded(5, 1, 4, 4).tanh().float()}, BatchRandom(0, stop=5)) for _ in range(4)]
    loss, metrics = weighted.loss(batches[0])
    torch.testing.assert_close(loss, metrics["reconstruction"] + 4 * metrics["kl"])
    torch.testing.assert_close(plain.loss(batches[1])[0], metrics["reconstruction"] + metrics["kl"])
    torch.testing.assert_close(*(model.evaluate(b) for model, b in zip((plain, weighted), batches[2:], strict=True)))


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_samples_are_means_unless_noise_is_asked_for(likelihood):
    torch.manual_seed(0)
    model = VAE(IMAGES, width=8, latent_dim=2, likelihood=likelihood)
    mean = model.sample(SampleRandom(0, range(50)))
    drawn = model.sample(SampleRandom(0, range(50)), noise=True)
    assert mean.shape == drawn.shape == (50, 1, 4, 4)
    assert mean.abs().max() < 1 and drawn.abs().max() <= 1
    if likelihood == "bernoulli":
        assert set(drawn.unique().tolist()) == {-1.0, 1.0}
        assert abs((drawn - mean).mean().item()) < 0.1  # 800 coins


def test_data_without_a_range_are_gaussian():
    assert VAE(POINTS).likelihood.value_range is None
    assert isinstance(VAE(POINTS).likelihood, type(VAE(IMAGES, likelihood="gaussian").likelihood))
    with pytest.raises(ValueError, match=r"model.likelihood=bernoulli .* use model.likelihood=gaussian"):
        VAE(POINTS, likelihood="bernoulli")


def test_pictures_are_rows_of_data_above_their_reconstructions():
    torch.manual_seed(0)
    model = VAE(IMAGES, width=8, latent_dim=2)
    image = seeded(8, 1, 4, 4).tanh().float()
    shown = model.pictures(Batch({"image": image}, BatchRandom(0, stop=8)))["reconstruction"]
    assert shown.shape == (16, 1, 4, 4)
    torch.testing.assert_close(shown[[0, 1, 2, 3, 8, 9, 10, 11]], image)
