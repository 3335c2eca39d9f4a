"""Facts about flow matching that the contract of all models does not state."""

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from genai_cli.data.base import Batch, Spec
from genai_cli.models import flow_matching
from genai_cli.models.flow_matching import FlowMatching, nearest_noise
from genai_cli.nn.random import BatchRandom
from genai_cli.samplers.schedules import flow_sigmas

POINT = Spec("points", (1,))
MEAN, STD = 0.7, 0.5  # of Gaussian data


class GaussianOracle(nn.Module):
    """The velocity field E[eps - x_0 | x_t] for data N(MEAN, STD^2), in place of a trained network."""

    num_classes = 0

    def label_of(self, batch: Batch) -> None:
        return None

    def forward(self, x_t: Tensor, time: Tensor, label: None = None) -> Tensor:
        t = (time / 1000)[:, None]
        variance = (1 - t) ** 2 * STD**2 + t**2
        centred = x_t - (1 - t) * MEAN
        x0 = MEAN + (1 - t) * STD**2 / variance * centred
        return t / variance * centred - x0


def oracle_model(**options) -> FlowMatching:
    model = FlowMatching(POINT, **options)
    model.network = GaussianOracle()
    return model


@pytest.mark.parametrize("spacing", ["uniform", "karras"])
@pytest.mark.parametrize("solver", ["euler", "heun", "unipc"])
def test_samples_of_a_perfect_network_are_the_data(solver, spacing):
    samples = oracle_model().sample(BatchRandom(0, stop=10_000), solver=solver, steps=60, spacing=spacing)
    assert samples.mean().item() == pytest.approx(MEAN, abs=0.03)
    assert samples.std().item() == pytest.approx(STD, rel=0.04)


def test_euler_is_the_step_of_the_paper_in_its_own_time():
    """x_(t - h) = x_t - h v(x_t, t), though the solver knows sigma alone."""
    model, steps = oracle_model(), 5
    sigmas = flow_sigmas(steps, flow_matching.SIGMA_MAX)
    times = [sigma / (1 + sigma) for sigma in sigmas]
    eps = BatchRandom(0, stop=4).normal(1)
    x_t = times[0] * eps
    for now, then in itertools.pairwise(times):
        x_t = x_t + (then - now) * model.network(x_t, torch.full((4,), 1000 * now))
    torch.testing.assert_close(model.sample(BatchRandom(0, stop=4), solver="euler", steps=steps), x_t)
    assert [now - then for now, then in itertools.pairwise(times)] == pytest.approx([times[0] / steps] * steps)


@pytest.mark.parametrize("time", ["uniform", "logit_normal"])
def test_loss_of_a_perfect_network_is_the_variance_that_no_network_can_explain(time):
    """Var[eps - x_0 | x_t] = s^2 / ((1 - t)^2 s^2 + t^2), over the times of training."""
    quantile = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    t = quantile if time == "uniform" else torch.special.ndtri(quantile).sigmoid()
    optimum = (STD**2 / ((1 - t) ** 2 * STD**2 + t**2)).mean().item()
    model = oracle_model(time=time)
    random = BatchRandom(0, stop=40_000)
    batch = Batch({"points": MEAN + STD * random.normal(1)}, random)
    assert model.loss(batch)[0].item() == pytest.approx(optimum, rel=0.03)
    if time == "uniform":
        assert model.evaluate(batch)["loss"].mean().item() == pytest.approx(optimum, rel=0.02)


@pytest.mark.parametrize(("time", "share"), [("uniform", 0.5), ("logit_normal", math.erf(math.log(3) / 2**0.5))])
def test_times_of_training_are_uniform_or_logistic_of_a_normal(time, share):
    """How many lie in the middle half of the path."""
    model, seen = oracle_model(time=time), []
    model._squared_error = lambda batch, eps, t: seen.append(t) or t
    random = BatchRandom(0, stop=40_000)
    model.loss(Batch({"points": random.normal(1)}, random))
    assert ((seen[0] - 0.5).abs() < 0.25).float().mean().item() == pytest.approx(share, abs=0.01)


def test_likelihood_of_a_perfect_network_is_the_entropy_of_the_data():
    random = BatchRandom(0, stop=2_000)
    x = MEAN + STD * random.normal(1)
    nll = oracle_model().evaluate(Batch({"points": x}, random))["nll"]
    exact = -torch.distributions.Normal(MEAN, STD).log_prob(x)
    assert (nll.mean() - exact.mean()).abs().item() < 1e-3


def test_minibatch_coupling_keeps_the_noise_and_shortens_the_paths():
    random = BatchRandom(0, stop=64)
    x0, eps = random.normal(3), random.normal(3)
    paired = nearest_noise(x0, eps)
    assert torch.equal(paired.sort(0).values, eps.sort(0).values)
    assert (paired - x0).square().sum() < 0.5 * (eps - x0).square().sum()


def test_minibatch_coupling_has_the_least_sum_of_squares_of_all():
    orders = torch.tensor(list(itertools.permutations(range(5))))  # (120, 5)
    for step in range(20):
        random = BatchRandom(step, stop=5)
        x0, eps = random.normal(2), random.normal(2)
        least = (eps[orders] - x0).square().sum((1, 2)).min()
        torch.testing.assert_close((nearest_noise(x0, eps) - x0).square().sum(), least)


def test_minibatch_coupling_straightens_the_flow():
    """The least loss is the mean variance of the velocity about the field: zero, were all paths straight."""
    losses = {}
    for coupling in ("independent", "minibatch_ot"):
        torch.manual_seed(0)
        model = FlowMatching(POINT, width=16, coupling=coupling)
        optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
        for step in range(60):
            random = BatchRandom(step, stop=64)
            batch = Batch({"points": random.integers(2, 1) * 2.0 - 1 + 0.1 * random.normal(1)}, random)
            optimizer.zero_grad()
            loss, _ = model.loss(batch)
            loss.backward()
            optimizer.step()
        losses[coupling] = loss.item()
    assert losses["minibatch_ot"] < 0.35 * losses["independent"]


def test_minibatch_coupling_on_several_ranks_is_refused(monkeypatch):
    monkeypatch.setattr(flow_matching, "has_many_ranks", lambda: True)
    with pytest.raises(ValueError, match=r"model\.coupling=minibatch_ot .*: train it in one process"):
        FlowMatching(POINT, coupling="minibatch_ot", **FlowMatching.tiny)
    FlowMatching(POINT, **FlowMatching.tiny)


def test_the_first_level_is_all_but_noise():
    sigmas = flow_sigmas(8, flow_matching.SIGMA_MAX)
    assert sigmas[0] == pytest.approx(80) and sigmas[-1] == 0 and len(sigmas) == 9
    assert math.isclose(sigmas[4] / (1 + sigmas[4]), 80 / 81 / 2)


def test_a_rectified_flow_learns_the_pairs_of_its_teacher_and_is_straighter():
    torch.manual_seed(0)
    teacher, random = oracle_model(), BatchRandom(9, stop=2000)
    model = FlowMatching(POINT, width=16, teacher="runs/first", pairs=2000)
    model.learn_from(teacher)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for step in range(120):
        for group in optimizer.param_groups:
            group["lr"] = 5e-3 * (1 - step / 120)
        optimizer.zero_grad()
        own = BatchRandom(step, stop=128)
        model.loss(Batch({"points": torch.full((128, 1), torch.nan)}, own))[0].backward()  # the data play no part
        optimizer.step()
    batch = Batch({"points": MEAN + STD * random.normal(1)}, random)
    before, after = (flow.evaluate(batch, straightness_steps=20)["straightness"].mean() for flow in (teacher, model))
    assert after < before / 3
    once, many = (model.sample(BatchRandom(3, stop=4000), solver="euler", steps=steps) for steps in (1, 30))
    assert (once - many).abs().mean() < 0.1
    assert once.mean().item() == pytest.approx(MEAN, abs=0.08) and once.std().item() == pytest.approx(STD, rel=0.15)


def test_a_rectified_flow_begins_with_the_weights_of_its_teacher_where_they_fit():
    teacher = FlowMatching(POINT, **FlowMatching.tiny)
    nn.init.normal_(teacher.network.backbone.head.weight)
    same, wider = (FlowMatching(POINT, width=width, teacher="runs/first", pairs=3) for width in (8, 12))
    for model in (same, wider):
        model.learn_from(teacher)
    assert torch.equal(same.network.backbone.head.weight, teacher.network.backbone.head.weight)
    assert wider.network.backbone.head.weight.abs().max() == 0
    assert set(same.state_dict()) == set(teacher.state_dict())  # the pairs are no part of the model
    assert same.monitor is None and "loss" not in same.evaluate(
        Batch({"points": torch.zeros(2, 1)}, BatchRandom(0, stop=2))
    )


def test_pairs_have_the_class_that_their_sample_had():
    spec = Spec("image", (1, 8, 8), (-1.0, 1.0), classes=("a", "b"))
    teacher = FlowMatching(spec, condition="label", **FlowMatching.tiny)
    teacher.sample = lambda random: (
        torch.tensor([i % 2 for i in random.index])[:, None, None, None] * random.normal(1, 8, 8)
    )
    model = FlowMatching(
        spec, condition="label", label_dropout=0.0, teacher="runs/first", pairs=10, **FlowMatching.tiny
    )
    model.learn_from(teacher)
    seen = []
    model._squared_error = lambda batch, eps, t: seen.append(batch) or t
    model.loss(Batch({}, BatchRandom(0, stop=8)))
    (batch,) = seen
    assert torch.equal(batch["label"].bool(), batch["image"].flatten(1).any(1)) and 0 < batch["label"].sum() < 8


def test_a_teacher_that_cannot_teach_is_refused():
    with pytest.raises(ValueError, match="no deterministic solver"):
        FlowMatching(POINT, teacher="runs/first").learn_from(FlowMatching(POINT, solver="ddpm"))
    spec = Spec("image", (1, 8, 8), (-1.0, 1.0), classes=("a", "b"))
    with pytest.raises(ValueError, match=r"trained with model\.condition=label: its pairs need the same"):
        FlowMatching(spec, teacher="runs/first", **FlowMatching.tiny).learn_from(
            FlowMatching(spec, condition="label", **FlowMatching.tiny)
        )
