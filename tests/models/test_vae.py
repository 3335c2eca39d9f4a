"""Facts about the variational autoencoder: its terms are those of torch.distributions, its bound is one."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from genai_cli.data.base import Batch, Spec
from genai_cli.models.vae import VAE
from genai_cli.nn.random import BatchRandom, SampleRandom

IMAGES = Spec("image", (1, 4, 4), value_range=(-1.0, 1.0))
POINTS = Spec("points", (3,))


def seeded(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


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


def test_the_importance_weighted_bound_is_exact_with_the_posterior_and_tightens_without():
    """With the exact posterior every ratio is p(x), so that one draw is enough; else more draws close the gap."""
    model, mean, covariance = linear_gaussian_vae()
    x = seeded(2000, 3)
    exact = MultivariateNormal(mean, covariance).log_prob(x)
    batch = Batch({"points": x}, DoubleRandom(0, stop=2000))
    with torch.no_grad():
        torch.testing.assert_close(-model.evaluate(batch, importance_samples=3)["negative_iw_bound_3"], exact)
        model.encoder.bias += torch.tensor([0.2, -0.1, 0.8, -0.5])
        gaps = []
        for k in (1, 8, 70):
            figures = model.evaluate(Batch({"points": x}, DoubleRandom(1, stop=2000)), importance_samples=k)
            gaps.append((exact + figures[f"negative_iw_bound_{k}"]).mean().item())
        elbo_gap = (exact + figures["negative_elbo"]).mean().item()
    assert gaps[0] == pytest.approx(elbo_gap, rel=0.2)  # k = 1 estimates the ELBO
    assert gaps[0] > 3 * gaps[1] > 9 * gaps[2] > -0.05
    assert gaps[2] == pytest.approx(0, abs=0.03)


def test_warm_up_of_beta_follows_the_step():
    model = VAE(IMAGES, width=8, latent_dim=2, beta=4.0, beta_warmup=10)
    used = []

    class Recorder:
        number = 0

        def minimize(self, group, loss):
            used.append(loss.keywords["beta"])

    for Recorder.number in (0, 4, 9, 500):
        model.train_step(Recorder())
    assert used == pytest.approx([0.4, 2.0, 4.0, 4.0])


def test_free_bits_leave_the_encoder_alone_below_the_threshold():
    torch.manual_seed(0)
    model = VAE(IMAGES, width=8, latent_dim=2, free_bits=100.0)
    batches = [Batch({"image": seeded(5, 1, 4, 4).tanh().float()}, BatchRandom(0, stop=5)) for _ in range(2)]
    free, metrics = model.loss(batches[0], beta=1.0)
    torch.testing.assert_close(free, metrics["reconstruction"] + 2 * 100)
    plain, _ = model.loss(batches[1], beta=0.0)
    gradients = [torch.autograd.grad(value, list(model.encoder.parameters())) for value in (free, plain)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian", "logistic", "categorical"])
def test_samples_are_means_unless_noise_is_asked_for(likelihood):
    torch.manual_seed(0)
    model = VAE(IMAGES, width=8, latent_dim=2, likelihood=likelihood)
    mean = model.sample(SampleRandom(0, range(50)))
    drawn = model.sample(SampleRandom(0, range(50)), noise=True)
    assert mean.shape == drawn.shape == (50, 1, 4, 4)
    assert mean.abs().max() <= 1 and drawn.abs().max() <= 1
    if likelihood == "bernoulli":
        assert set(drawn.unique().tolist()) == {-1.0, 1.0}
        assert abs((drawn - mean).mean().item()) < 0.1  # 800 coins


def test_convolutions_are_a_backbone_of_images():
    image = Spec("image", (3, 32, 32), value_range=(-1.0, 1.0))
    model = VAE(image, width=4, latent_dim=2, backbone="conv", likelihood="logistic")
    assert model.sample(SampleRandom(0, range(3)), noise=True).shape == (3, 3, 32, 32)
    with pytest.raises(ValueError, match=r"model.backbone=conv needs images.*use model.backbone=mlp"):
        VAE(POINTS, backbone="conv")


def test_pictures_are_rows_of_data_above_their_reconstructions():
    torch.manual_seed(0)
    model = VAE(IMAGES, width=8, latent_dim=2)
    image = seeded(8, 1, 4, 4).tanh().float()
    shown = model.pictures(Batch({"image": image}, BatchRandom(0, stop=8)))["reconstruction"]
    assert shown.shape == (16, 1, 4, 4)
    torch.testing.assert_close(shown[[0, 1, 2, 3, 8, 9, 10, 11]], image)
