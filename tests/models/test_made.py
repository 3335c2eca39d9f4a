"""Facts about MADE: no number sees a later one, probabilities sum to one, one pass draws what D passes draw."""

import itertools
import math

import pytest
import torch

from genai_cli.data.base import Batch, Spec
from genai_cli.models.made import MADE
from genai_cli.nn.random import BatchRandom, SampleRandom

BINARY = Spec("image", (1, 2, 3), value_range=(-1.0, 1.0), levels=2, classes=("a", "b"))
GREY = Spec("image", (1, 2, 3), value_range=(-1.0, 1.0), levels=5)
POINTS = Spec("points", (4,))
EACH_DATA = pytest.mark.parametrize("spec", [BINARY, GREY, POINTS], ids=["binary", "grey", "points"])
EACH_ORDER = pytest.mark.parametrize("order", ["natural", "random"])


def made(spec: Spec, *, scale: float = 0.7, **options) -> MADE:
    torch.manual_seed(0)
    model = MADE(spec, **{"width": 16, "depth": 3, "num_components": 3, "num_masks": 3, **options}).eval()
    for parameter in model.parameters():  # far from the beginning, where the conditionals are alike
        torch.nn.init.normal_(parameter, std=scale)
    model.mean.uniform_(-0.5, 0.5)
    return model


def batch_of(x: torch.Tensor, spec: Spec, **labels: torch.Tensor) -> Batch:
    return Batch({spec.key: x, **labels}, BatchRandom(0, stop=len(x)))


@EACH_DATA
@EACH_ORDER
@pytest.mark.parametrize("direct", [True, False])
def test_no_number_sees_itself_or_a_later_one(spec, order, direct):
    model = made(spec, order=order, direct=direct)
    num_dims = math.prod(spec.shape)
    seen = torch.zeros(3, num_dims, num_dims, dtype=torch.bool)
    for mask in range(3):
        x = torch.randn(1, num_dims, requires_grad=True)
        outputs = model(x, mask).sum(2)[0]
        for i in range(num_dims):
            seen[mask, i] = torch.autograd.grad(outputs[i], x, retain_graph=True)[0][0] != 0
        earlier = model.positions[mask] < model.positions[mask].unsqueeze(1)
        assert not (seen[mask] & ~earlier).any()
        assert seen[mask].sum() >= num_dims - 1  # the masks are not empty
        assert not direct or torch.equal(seen[mask], earlier)
    if order == "random":
        assert len({tuple(row.tolist()) for row in model.positions}) == 3


@pytest.mark.parametrize("spec", [BINARY, GREY], ids=["binary", "grey"])
@EACH_ORDER
def test_probabilities_of_all_images_sum_to_one(spec, order):
    model = made(spec, order=order)
    values = torch.linspace(-1, 1, spec.levels).tolist()
    images = torch.tensor(list(itertools.product(values, repeat=6))).view(-1, 1, 2, 3)
    nll = model.evaluate(batch_of(images, spec))["nll"].double()
    assert (-nll).exp().sum().item() == pytest.approx(1, abs=1e-4)


def test_density_of_points_integrates_to_one():
    model = made(Spec("points", (2,)), depth=2, num_masks=2, scale=0.3)
    axis = torch.linspace(-12, 12, 1201)
    grid = torch.cartesian_prod(axis, axis)
    density = torch.cat([(-model.evaluate(batch_of(part, POINTS))["nll"]).exp() for part in grid.split(100_000)])
    assert density.double().sum().item() * (axis[1] - axis[0]).item() ** 2 == pytest.approx(1, abs=0.02)


@EACH_DATA
@EACH_ORDER
@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("direct", [True, False])
def test_one_pass_draws_what_a_pass_a_number_draws(spec, order, residual, direct):
    model = made(spec, order=order, residual=residual, direct=direct, scale=0.3)
    num_dims = math.prod(spec.shape)
    random = SampleRandom(5, range(40))
    mask, noise = random.integers(3), random.uniform(num_dims, 2)
    x = torch.zeros(40, num_dims)
    for row in range(40):
        for i in model.positions[mask[row]].argsort().tolist():
            parameters = model(x[row : row + 1], int(mask[row]))
            x[row, i] = model.conditional.draw(parameters, noise[row : row + 1])[0, i]
    drawn = model.sample(SampleRandom(5, range(40))).flatten(1)
    torch.testing.assert_close(drawn, x, atol=1e-4, rtol=1e-4)


def test_evaluate_is_the_mixture_over_masks():
    model = made(BINARY)
    x = torch.randn(7, 1, 2, 3).sign()
    batch = batch_of(x, BINARY)
    each = torch.stack([model.nll_of_mask(batch, mask) for mask in range(3)])
    expected = -(-each).exp().mean(0).log()
    torch.testing.assert_close(model.evaluate(batch)["nll"], expected)
    torch.testing.assert_close(model.evaluate(batch)["bits_per_dim"], expected / (6 * math.log(2)))


def test_a_fair_coin_scores_784_ln_2():
    model = MADE(Spec("image", (1, 28, 28), value_range=(-1.0, 1.0), levels=2), width=8).eval()
    torch.nn.init.zeros_(model.out.weight)
    torch.nn.init.zeros_(model.out.bias)
    torch.nn.init.zeros_(model.direct.weight)
    batch = batch_of(torch.randn(3, 1, 28, 28).sign(), BINARY)
    torch.testing.assert_close(model.evaluate(batch)["nll"], torch.full((3,), 784 * math.log(2)))


def test_labels_condition_every_number():
    model = made(BINARY, conditional=True, num_masks=1)
    images = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=6))).view(-1, 1, 2, 3)
    sums = []
    for label in (0, 1):
        nll = model.evaluate(batch_of(images, BINARY, label=torch.full((64,), label)))["nll"]
        sums.append((-nll.double()).exp())
        assert sums[-1].sum().item() == pytest.approx(1, abs=1e-4)
    assert not torch.allclose(*sums)
    drawn = model.sample(SampleRandom(0, range(6)))
    assert torch.equal(drawn[1::2], model.sample(SampleRandom(0, range(6)), label=1)[1::2])
    with pytest.raises(ValueError, match=r"needs data with labels"):
        made(GREY, conditional=True)
    with pytest.raises(ValueError, match=r"label=1 needs a model trained with model.conditional=true"):
        made(BINARY).sample(SampleRandom(0, range(2)), label=1)


def test_an_untrained_coin_says_the_mean_of_the_first_batch_and_what_is_held_out_is_not_learned():
    model = MADE(BINARY, width=4, num_masks=2)
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    x = torch.tensor([[1.0, 1, 1, -1, -1, -1], [1, -1, 1, -1, 1, -1]]).view(2, 1, 2, 3)
    fair = torch.full((2,), 6 * math.log(2))
    torch.testing.assert_close(model.eval().evaluate(batch_of(x, BINARY))["nll"], fair)
    model.train().loss_of_mask(batch_of(x, BINARY), mask=0)
    model.loss_of_mask(batch_of(-x, BINARY), mask=1)  # the first batch it stays
    p = torch.tensor([0.98, 0.5, 0.98, 0.02, 0.5, 0.02])
    expected = -torch.where(x.flatten(1) > 0, p, 1 - p).log().sum(1)
    torch.testing.assert_close(model.eval().evaluate(batch_of(x, BINARY))["nll"], expected)
