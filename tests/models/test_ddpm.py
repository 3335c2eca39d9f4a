"""Facts about the diffusion model that the contract of all models does not state."""

import math

import pytest
import torch
from torch import Tensor, nn

from genai_cli.data.base import Batch, Spec
from genai_cli.models.ddpm import DDPM
from genai_cli.nn.random import BatchRandom, SampleRandom

IMAGE = Spec("image", (1, 8, 8), (-1.0, 1.0))
POINT = Spec("points", (1,))
MEAN, STD = 0.7, 0.5  # of Gaussian data


class GaussianOracle(nn.Module):
    """The best prediction for data N(MEAN, STD^2), in place of a trained network."""

    def __init__(self, model: DDPM):
        super().__init__()
        self.num_classes = 0  # and no labels
        self.model = [model]  # in a list: not a submodule
        self.times = []

    def label_of(self, batch: Batch) -> None:
        return None

    def forward(self, x_t: Tensor, time: Tensor, label: None = None) -> Tensor:
        model = self.model[0]
        self.times.append(time[0].item())
        t = (time * model.num_timesteps / 1000).round().long()
        alpha, sigma = model.alpha[t][:, None], model.sigma[t][:, None]
        x0 = MEAN + alpha * STD**2 / (alpha**2 * STD**2 + sigma**2) * (x_t - alpha * MEAN)
        eps = (x_t - alpha * x0) / sigma
        return {"x0": x0, "eps": eps, "v": alpha * eps - sigma * x0}[model.objective]


@pytest.mark.parametrize("solver", ["ddpm", "ddim", "dpmpp_2m"])
@pytest.mark.parametrize("objective", ["eps", "x0", "v"])
def test_samples_of_a_perfect_network_are_the_data(objective, solver):
    model = DDPM(POINT, objective=objective, num_timesteps=200, sampling_steps=200, solver=solver)
    model.network = GaussianOracle(model)
    samples = model.sample(BatchRandom(0, stop=10_000))
    assert model.network.times == [5.0 * t for t in range(200, 0, -1)]  # told as if T were 1000
    assert samples.mean().item() == pytest.approx(MEAN, abs=0.03)
    assert samples.std().item() == pytest.approx(STD, rel=0.04)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_loss_of_a_perfect_network_is_the_variance_that_no_network_can_explain(schedule):
    """Var[eps | x_t] = alpha^2 s^2 / (alpha^2 s^2 + sigma^2), averaged over 1..T."""
    model = DDPM(POINT, objective="eps", schedule=schedule, min_snr=None)
    model.network = GaussianOracle(model)
    signal = STD**2 * model.alpha_bar[1:]
    optimum = (signal / (signal + 1 - model.alpha_bar[1:])).mean().item()
    random = BatchRandom(0, stop=40_000)
    batch = Batch({"points": MEAN + STD * random.normal(1)}, random)
    loss, _ = model.loss(batch)
    assert loss.item() == pytest.approx(optimum, rel=0.03)
    assert model.evaluate(batch)["unweighted_loss"].mean().item() == pytest.approx(optimum, rel=0.02)


def test_training_reaches_the_known_optimum_of_a_mixture():
    """Data at -1 and 1, half each, of standard deviation 0.1: E[v | x_t] is known, its error is an integral."""
    torch.manual_seed(0)
    model = DDPM(POINT, width=16, num_timesteps=50, sampling_steps=25, min_snr=None)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)

    def batch(*key: int, size: int = 512) -> Batch:
        random = BatchRandom(*key, stop=size)
        return Batch({"points": random.integers(2, 1) * 2.0 - 1 + 0.1 * random.normal(1)}, random)

    for step in range(200):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * (1 - step / 200)
        optimizer.zero_grad()
        model.loss(batch(1, step))[0].backward()
        optimizer.step()
    with torch.no_grad():
        reached = model.evaluate(batch(2, size=20_000))["unweighted_loss"].mean().item()
    optimum = mixture_optimum(model.alpha_bar)
    assert 0.99 * optimum < reached < 1.03 * optimum
    samples = model.sample(SampleRandom(0, range(500)))
    assert (samples > 0).float().mean().item() == pytest.approx(0.5, abs=0.08)
    assert samples.abs().mean().item() == pytest.approx(1, abs=0.05)


def mixture_optimum(alpha_bar: Tensor) -> float:
    """The mean over t of E[(v - E[v | x_t])^2], by quadrature.

    Given x_t, v is eps / alpha and a constant; and E[(eps - E[eps | x_t])^2] = 1 - E[E[eps | x_t]^2].
    """
    x = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    errors = []
    for level in alpha_bar[1:].tolist():
        alpha, variance = math.sqrt(level), 0.01 * level + 1 - level  # of x_t around either centre
        density = torch.stack([torch.exp(-((x - c * alpha) ** 2) / (2 * variance)) for c in (-1, 1)])
        density /= 2 * math.sqrt(2 * math.pi * variance)  # (2, 4001), of x_t and the centre together
        of_centre = torch.stack([(x - c * alpha) * math.sqrt(1 - level) / variance for c in (-1, 1)])
        posterior_mean = (density * of_centre).sum(0) / density.sum(0).clamp(min=1e-300)
        errors.append((1 - torch.trapezoid(density.sum(0) * posterior_mean**2, x).item()) / level)
    return sum(errors) / len(errors)


@pytest.mark.parametrize(("objective", "expected"), [("eps", 1.0), ("x0", 0.25)])
def test_loss_before_training_is_the_power_of_the_target(objective, expected):
    model = DDPM(POINT, objective=objective, min_snr=None)
    random = BatchRandom(0, stop=20_000)
    loss, _ = model.loss(Batch({"points": 0.5 * random.normal(1)}, random))
    assert loss.item() == pytest.approx(expected, rel=0.05)


def test_min_snr_with_x0_caps_the_weight():
    model = DDPM(POINT, objective="x0", min_snr=5.0, num_timesteps=100)
    data = {"points": torch.ones(20_000, 1)}  # an untrained network is wrong by 1 at every timestep
    loss, metrics = model.loss(Batch(data, BatchRandom(0, stop=20_000)))
    snr = model.alpha_bar[1:] / (1 - model.alpha_bar[1:])
    assert loss.item() == pytest.approx(snr.clamp(max=5.0).mean().item(), rel=0.02)
    assert metrics["unweighted_loss"].item() == pytest.approx(1)


def test_one_name_is_one_quantity_in_training_and_held_out():
    """The loss that is trained on is weighted, the held-out figure is not: no chart may lay one over the other."""
    model = DDPM(POINT, objective="v", min_snr=1.0, num_timesteps=100)
    batch = Batch({"points": torch.full((20_000, 1), 2.0)}, BatchRandom(0, stop=20_000))
    loss, metrics = model.loss(batch)
    held_out = {key: value.mean().item() for key, value in model.evaluate(batch).items()}
    assert "loss" not in held_out and model.monitor == "unweighted_loss"
    assert held_out["unweighted_loss"] == pytest.approx(metrics["unweighted_loss"].item(), rel=0.03)
    assert loss.item() < 0.8 * held_out["unweighted_loss"]


def test_evaluation_visits_even_timesteps_and_only_depends_on_the_row():
    model = DDPM(POINT, num_timesteps=100)
    oracle = model.network = GaussianOracle(model)
    data = torch.linspace(-1, 2, 6)[:, None]
    whole = model.evaluate(Batch({"points": data}, BatchRandom(0, stop=6)))["unweighted_loss"]
    part = model.evaluate(Batch({"points": data[2:5]}, BatchRandom(0, start=2, stop=5, total=6)))["unweighted_loss"]
    torch.testing.assert_close(whole[2:5], part)
    quarters = [math.ceil(time / 250) for time in oracle.times[:4]]
    assert whole.shape == (6,) and quarters == [1, 2, 3, 4]


def trained_a_little(spec: Spec, **options) -> DDPM:
    """A model whose output is not zero: weights drawn at random."""
    torch.manual_seed(0)
    model = DDPM(spec, **{**DDPM.tiny, **options}).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    return model


@pytest.mark.parametrize("spec", [IMAGE, POINT])
@pytest.mark.parametrize("solver", ["ddpm", "ddim"])
def test_sample_i_is_a_function_of_seed_and_i(spec, solver):
    model = trained_a_little(spec)
    together = model.sample(SampleRandom(5, range(4)), solver=solver)
    torch.testing.assert_close(model.sample(SampleRandom(5, [3]), solver=solver), together[3:])
    assert together.shape == (4, *spec.shape)
    assert not torch.allclose(together[0], together[1])


def test_images_stay_within_their_range_and_points_are_not_clipped():
    images = trained_a_little(IMAGE, solver="ddpm").sample(SampleRandom(0, range(8)), steps=8)
    assert images.min() >= -1 and images.max() <= 1
    far = DDPM(POINT, objective="x0", **DDPM.tiny)
    nn.init.constant_(far.network.backbone.head.bias, 9.0)
    assert torch.equal(far.sample(SampleRandom(0, range(2))), torch.full((2, 1), 9.0))


def test_solver_options_that_cannot_be_are_refused():
    model = DDPM(POINT, **DDPM.tiny)
    with pytest.raises(ValueError, match=r"eta=1\.0 belongs to solver=ddim"):
        model.sample(SampleRandom(0, [0]), solver="ddpm", eta=1.0)
    with pytest.raises(ValueError, match="steps=9 must be between 1 and num_timesteps=8"):
        model.sample(SampleRandom(0, [0]), steps=9)


def test_likelihood_of_a_perfect_network_is_the_entropy_of_the_data():
    model = DDPM(POINT)
    model.network = GaussianOracle(model)
    random = BatchRandom(0, stop=2_000)
    x = MEAN + STD * random.normal(1)
    nll = model.evaluate(Batch({"points": x}, random))["nll"]
    exact = -torch.distributions.Normal(MEAN, STD).log_prob(x)
    assert (nll.mean() - exact.mean()).abs().item() < 2e-3


def test_schedule_is_not_in_the_checkpoint():
    assert not [name for name in DDPM(POINT, **DDPM.tiny).state_dict() if not name.startswith("network.")]


def test_heun_takes_no_stride_that_a_slope_in_sigma_does_not_bear():
    """Even timesteps begin with sigma from 20,000 to 6, over which the mean of two slopes is not one of the flow."""
    model = DDPM(POINT, objective="v", num_timesteps=1000, sampling_steps=20)
    model.network = GaussianOracle(model)
    by_default, even = (
        model.sample(BatchRandom(0, stop=4000), solver="heun", spacing=spacing) for spacing in (None, "uniform")
    )
    assert by_default.mean().item() == pytest.approx(MEAN, abs=0.03)
    assert by_default.std().item() == pytest.approx(STD, abs=0.05)
    assert even.std().item() > 2 * STD  # what the default spares its user
