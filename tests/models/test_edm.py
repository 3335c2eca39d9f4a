"""Facts about EDM that the contract of all models does not state."""

import math

import pytest
import torch
from torch import Tensor, nn

from genai_cli.data.base import Batch, Spec
from genai_cli.models.edm import EDM
from genai_cli.nn.random import BatchRandom

POINT = Spec("points", (1,))
IMAGE = Spec("image", (1, 8, 8), (-1.0, 1.0), classes=("a", "b"))
MEAN, STD = 0.7, 0.5  # of Gaussian data


class GaussianOracle(nn.Module):
    """The best F for data N(MEAN, STD^2), in place of a trained network."""

    num_classes = 0

    def __init__(self, model: EDM):
        super().__init__()
        self.sigma_data = model.sigma_data

    def label_of(self, batch: Batch) -> None:
        return None

    def forward(self, scaled: Tensor, time: Tensor, label: None = None) -> Tensor:
        sigma = (time / 250).exp()[:, None]
        total = (sigma**2 + self.sigma_data**2).sqrt()
        x = scaled * total
        x0 = MEAN + STD**2 / (STD**2 + sigma**2) * (x - MEAN)
        return (x0 - self.sigma_data**2 / total**2 * x) / (sigma * self.sigma_data / total)


@pytest.mark.parametrize("sigma_data", [0.3, 1.0, 4.0])
def test_input_and_target_have_unit_variance_at_every_noise_level(sigma_data):
    """Of data with standard deviation sigma_data (the principle that table 1 is derived from, appendix B.6)."""
    model = EDM(POINT, sigma_data=sigma_data)
    random = BatchRandom(0, stop=40_000)
    x0 = sigma_data * random.normal(1)
    for sigma in (0.01, 0.3, 2.0, 50.0):
        skip, out, scale = model._scalings(torch.full((40_000,), sigma))
        x = x0 + sigma * random.normal(1)
        assert (scale * x).std().item() == pytest.approx(1, rel=0.02)
        assert ((x0 - skip * x) / out).std().item() == pytest.approx(1, rel=0.02)


def test_loss_before_training_is_one():
    random = BatchRandom(0, stop=20_000)
    loss, _ = EDM(POINT).loss(Batch({"points": random.normal(1)}, random))
    assert loss.item() == pytest.approx(1, rel=0.03)


def test_loss_is_the_error_of_the_denoiser_weighted_by_lambda():
    """Eq. 2 with lambda = (sigma^2 + sigma_data^2) / (sigma sigma_data)^2."""
    model = EDM(POINT)
    model.network.backbone.head.bias.data.fill_(0.3)
    x0, sigma = torch.tensor([[0.4]]), 0.8
    eps = BatchRandom(0, stop=1).normal(1)
    error = (model.denoise(x0 + sigma * eps, sigma) - x0).square()
    weight = (sigma**2 + model.sigma_data**2) / (sigma * model.sigma_data) ** 2
    found = model._squared_error(Batch({"points": x0}, BatchRandom(0, stop=1)), torch.tensor([sigma]))
    torch.testing.assert_close(found, (weight * error).squeeze(1))


def test_loss_of_a_perfect_network_is_the_variance_that_no_network_can_explain():
    """lambda Var[x_0 | x] with Var[x_0 | x] = s^2 sigma^2 / (s^2 + sigma^2), over the noise levels of training."""
    model = EDM(POINT)
    model.network = GaussianOracle(model)
    quantile = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    sigma = (model.noise_mean + model.noise_std * torch.special.ndtri(quantile)).exp()
    weight = (sigma**2 + model.sigma_data**2) / (sigma * model.sigma_data) ** 2
    optimum = (weight * STD**2 * sigma**2 / (STD**2 + sigma**2)).mean().item()
    random = BatchRandom(0, stop=40_000)
    batch = Batch({"points": MEAN + STD * random.normal(1)}, random)
    assert model.loss(batch)[0].item() == pytest.approx(optimum, rel=0.03)
    assert model.evaluate(batch)["loss"].mean().item() == pytest.approx(optimum, rel=0.02)


@pytest.mark.parametrize(("solver", "options"), [("heun", {}), ("heun", {"churn": 10.0}), ("unipc", {})])
def test_samples_of_a_perfect_network_are_the_data(solver, options):
    model = EDM(POINT)
    model.network = GaussianOracle(model)
    samples = model.sample(BatchRandom(0, stop=10_000), solver=solver, steps=40, **options)
    assert samples.mean().item() == pytest.approx(MEAN, abs=0.03)
    assert samples.std().item() == pytest.approx(STD, rel=0.04)


def test_likelihood_of_a_perfect_network_is_the_entropy_of_the_data():
    model = EDM(POINT)
    model.network = GaussianOracle(model)
    random = BatchRandom(0, stop=2_000)
    x = MEAN + STD * random.normal(1)
    nll = model.evaluate(Batch({"points": x}, random))["nll"]
    exact = -torch.distributions.Normal(MEAN, STD).log_prob(x)
    assert (nll.mean() - exact.mean()).abs().item() < 1e-3


def test_sigma_data_follows_the_range_of_the_data():
    assert EDM(IMAGE).sigma_data == 0.5 and EDM(POINT).sigma_data == 1.0
    assert EDM(IMAGE).noise_mean == pytest.approx(-1.2, abs=0.01)  # the paper's
    assert EDM(POINT).noise_mean == -0.5 and EDM(POINT, noise_mean=0.3).noise_mean == 0.3


def trained_a_little() -> EDM:
    """A conditional model whose output is not zero: weights drawn at random."""
    torch.manual_seed(0)
    model = EDM(IMAGE, condition="label", **EDM.tiny).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    return model


def test_samples_are_of_each_class_in_turn_or_of_the_one_asked_for():
    model = trained_a_little()
    in_turn = model.sample(BatchRandom(0, stop=4))
    for label in (0, 1):
        of_one = model.sample(BatchRandom(0, stop=4), label=label)
        torch.testing.assert_close(of_one[label::2], in_turn[label::2])
        assert not torch.allclose(of_one[1 - label :: 2], in_turn[1 - label :: 2])
    with pytest.raises(ValueError, match="label=2 must be below 2"):
        model.sample(BatchRandom(0, stop=4), label=2)


def test_noise_that_ends_before_it_begins_is_a_rule():
    assert "sigma_min < sigma_max" in EDM.rules
    assert math.isclose(EDM(POINT).sigma_max, 80)
