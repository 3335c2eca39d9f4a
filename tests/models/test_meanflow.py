"""Facts about MeanFlow that the contract of all models does not state."""

import pytest
import torch
from torch import Tensor, nn

from genai_cli.data.base import Batch, Spec
from genai_cli.models.meanflow import TIME_SCALE, MeanFlow
from genai_cli.nn.random import BatchRandom

POINT = Spec("points", (1,))
IMAGE = Spec("image", (1, 8, 8), (-1.0, 1.0), classes=("a", "b"))
MEAN, STD = 0.7, 0.5  # of Gaussian data


def std_of(t: Tensor) -> Tensor:
    """Of z_t."""
    return ((1 - t) ** 2 * STD**2 + t**2).sqrt()


class GaussianOracle(nn.Module):
    """The mean velocity for data N(MEAN, STD^2): the flow keeps every quantile."""

    num_classes = 0

    def label_of(self, batch: Batch) -> None:
        return None

    def forward(self, z: Tensor, time: Tensor, length: Tensor, label: None = None) -> Tensor:
        t = time[:, None] / TIME_SCALE
        r = t - length[:, None] / TIME_SCALE
        centred = z - (1 - t) * MEAN
        velocity = -MEAN + (t - (1 - t) * STD**2) / std_of(t) ** 2 * centred
        stretch = torch.where(r < t, t - r, 1.0)
        mean = (z - (1 - r) * MEAN - std_of(r) / std_of(t) * centred) / stretch
        return torch.where(r < t, mean, velocity)


def oracle_model() -> MeanFlow:
    model = MeanFlow(POINT)
    model.network = GaussianOracle()
    return model


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_samples_of_a_perfect_network_are_the_data_in_any_number_of_steps(steps):
    random = BatchRandom(0, stop=1000)
    samples = oracle_model().sample(random, steps=steps)
    noise = BatchRandom(0, stop=1000).normal(1)
    torch.testing.assert_close(samples, MEAN + STD * noise, atol=1e-4, rtol=0)


def test_a_perfect_network_obeys_the_meanflow_identity():
    """With the true velocity in place of eps - x, the target is the mean velocity itself (Eq. 6)."""
    model = oracle_model()
    z = torch.linspace(-2, 2, 50)[:, None]
    t = torch.linspace(0.3, 0.95, 50)
    r = t * torch.linspace(0.1, 0.9, 50)
    velocity = model.mean_velocity(z, t, t, None)
    expected = model.mean_velocity(z, r, t, None)
    assert (velocity - expected).abs().max() > 0.1
    torch.testing.assert_close(model._target(z, velocity, r, t, None), expected, atol=1e-4, rtol=0)


def test_target_is_the_total_derivative_of_the_network():
    """Against finite differences along the path, in float64, with attention and classes in play."""
    torch.manual_seed(0)
    model = MeanFlow(IMAGE, condition="label", **MeanFlow.tiny).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    z, v = torch.randn(2, 3, 1, 8, 8, dtype=torch.float64)
    r, t = torch.tensor([[0.2, 0.5, 0.4], [0.7, 0.5, 0.9]], dtype=torch.float64)
    label = torch.tensor([0, 1, 0])
    small = 1e-4
    model.network.times = nn.ModuleList(Slow() for _ in range(2))
    ahead, behind = (model.mean_velocity(z + h * v, r, t + h, label) for h in (small, -small))
    derivative = (ahead - behind) / (2 * small)
    expected = v - (t - r)[:, None, None, None] * derivative
    found = model._target(z, v, r, t, label)
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=2e-3)
    assert torch.equal(found[1], v[1])  # r = t


class Slow(nn.Module):
    """An embedding of time in float64; ours is in float32 on purpose."""

    def forward(self, t: Tensor) -> Tensor:
        return torch.sin(t[:, None] / TIME_SCALE * torch.arange(1, 17, dtype=t.dtype))


def test_one_step_learns_a_mixture():
    """Two clusters from one jump: the velocity alone, taken in one step, gives their mean."""
    torch.manual_seed(0)
    model = MeanFlow(POINT, width=16)
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
    for step in range(200):
        for group in optimizer.param_groups:
            group["lr"] = 4e-3 * (1 - step / 200)
        random = BatchRandom(step, stop=128)
        batch = Batch({"points": random.integers(2, 1) * 2.0 - 1 + 0.1 * random.normal(1)}, random)
        optimizer.zero_grad()
        model.loss(batch)[0].backward()
        optimizer.step()
    samples = model.sample(BatchRandom(9, stop=1000))
    near = ((samples.abs() - 1).abs() < 0.4).float().mean().item()
    assert near > 0.85
    assert (samples > 0).float().mean().item() == pytest.approx(0.5, abs=0.1)


def test_without_stretches_it_is_flow_matching():
    model = MeanFlow(POINT, stretch_share=0.0, power=0.0)
    random = BatchRandom(0, stop=20_000)
    loss, metrics = model.loss(Batch({"points": random.normal(1)}, random))
    assert loss.item() == pytest.approx(2, rel=0.03)  # E (eps - x)^2, of an untrained network
    assert metrics["unweighted"].item() == pytest.approx(loss.item())


def test_the_held_out_error_is_not_named_as_the_loss_that_is_trained_on():
    model = MeanFlow(POINT)
    batch = Batch({"points": torch.zeros(100, 1)}, BatchRandom(0, stop=100))
    held_out = model.evaluate(batch)
    assert "loss" not in held_out and model.monitor in held_out and model.monitor in model.figures


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_so_many_examples_learn_a_stretch_and_the_others_the_velocity(share):
    model, seen = MeanFlow(POINT, stretch_share=share, **MeanFlow.tiny), []
    model._target = lambda z, v, r, t, label: seen.append((r < t).float().mean().item()) or v
    random = BatchRandom(0, stop=5000)
    model.loss(Batch({"points": random.normal(1)}, random))
    assert seen == [pytest.approx(share, abs=0.03)]


def test_a_label_without_classes_is_refused():
    with pytest.raises(ValueError, match=r"label=1 needs a model that was trained with model\.condition=label"):
        MeanFlow(IMAGE, **MeanFlow.tiny).sample(BatchRandom(0, stop=2), label=1)


def test_given_points_are_changed_by_strength():
    """The flow keeps quantiles: from x_0 with noise of time t it leads to data that forget x_0 as t rises."""
    given = torch.tensor([[1.2]])
    near, half, far = (
        oracle_model().sample(BatchRandom(0, stop=4000), steps=2, given=given, strength=strength)
        for strength in (0.05, 0.5, 1.0)
    )
    assert (near - given).abs().mean() < 0.06
    assert near.std() < half.std() < far.std()
    assert far.mean().item() == pytest.approx(MEAN, abs=0.03) and far.std().item() == pytest.approx(STD, rel=0.03)


def test_kept_pixels_are_shown_under_noise_of_their_time():
    """z_t = (1 - t) x + t eps, before each of the jumps from t = 1, 2/3 and 1/3."""
    image = Spec("image", (1, 64, 64), (-1.0, 1.0))
    model, shown = MeanFlow(image, **MeanFlow.tiny), []
    model.mean_velocity = lambda z, r, t, label: shown.append((t, z)) or torch.zeros_like(z)
    model.sample(BatchRandom(0, stop=4), steps=3, given=torch.full((4, 1, 64, 64), 0.5), keep="top_half")
    for (time, z), expected in zip(shown, (1, 2 / 3, 1 / 3), strict=True):
        assert time.tolist() == pytest.approx([expected] * 4)
        kept = z[:, :, :32]
        assert kept.mean().item() == pytest.approx(0.5 * (1 - expected), abs=0.05)
        assert kept.std().item() == pytest.approx(expected, rel=0.05)


def test_kept_pixels_stay():
    model = MeanFlow(IMAGE, **MeanFlow.tiny)
    given = torch.rand(2, 1, 8, 8)
    completed = model.sample(BatchRandom(0, stop=2), steps=2, given=given, keep="left_half")
    assert torch.equal(completed[..., :4], given[..., :4]) and not torch.equal(completed[..., 4:], given[..., 4:])
    with pytest.raises(ValueError, match="ask for one of these"):
        model.sample(BatchRandom(0, stop=2), given=given)
