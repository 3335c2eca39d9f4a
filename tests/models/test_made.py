"""Facts about MADE: no number sees a later one, probabilities sum to one, one pass draws what D passes draw."""

import dataclasses
import itertools
import math

import pytest
import torch

from genai_cli.data.base import Batch, Spec
from genai_cli.errors import ConfigError
from genai_cli.models.made import MADE
from genai_cli.nn.random import BatchRandom, SampleRandom
from tests.models.test_contract import SPECS, assert_same_run, interrupt_after, tiny_config, train
from tests.test_experiments import compose

BINARY = Spec("image", (1, 2, 3), value_range=(-1.0, 1.0), levels=2, classes=("a", "b"))
GREY = Spec("image", (1, 2, 3), value_range=(-1.0, 1.0), levels=5)
POINTS = Spec("points", (4,))
COLOUR = Spec("image", (2, 2, 3), value_range=(-1.0, 1.0), levels=5)
# Of the eight scans: whether it begins at the bottom, on the right, and goes by columns.
CORNERS = [(0, 0, 0), (1, 1, 0), (0, 0, 1), (1, 1, 1), (1, 0, 0), (0, 1, 0), (1, 0, 1), (0, 1, 1)]
ORDERS = ["natural", "random", "scans"]
EACH_ORDER = pytest.mark.parametrize("order", ORDERS)
EACH_DATA_AND_ORDER = pytest.mark.parametrize(
    "spec, order",
    [
        pytest.param(spec, order, id=f"{name}-{order}")
        for name, spec in {"binary": BINARY, "grey": GREY, "points": POINTS}.items()
        for order in ORDERS
        if order != "scans" or spec.modality == "image"
    ],
)
EACH_SHARING = pytest.mark.parametrize("shared", [True, False])


def made(spec: Spec, *, scale: float = 0.7, **options) -> MADE:
    torch.manual_seed(0)
    few = {} if spec is BINARY else {"num_components": 3}
    model = MADE(spec, **{"width": 16, "depth": 3, "num_masks": 3, **few, **options}).eval()
    for parameter in model.parameters():  # far from the beginning, where the conditionals are alike
        torch.nn.init.normal_(parameter, std=scale)
    model.mean.uniform_(-0.5, 0.5)
    return model


def batch_of(x: torch.Tensor, spec: Spec, **labels: torch.Tensor) -> Batch:
    return Batch({spec.key: x, **labels}, BatchRandom(0, stop=len(x)))


@EACH_DATA_AND_ORDER
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
    if order != "natural":
        assert len({tuple(row.tolist()) for row in model.positions}) == 3


@pytest.mark.parametrize("mask", range(8))
@EACH_SHARING
def test_each_scan_sees_all_that_it_has_passed_and_nothing_else(mask, shared):
    """By gradient, on an image that is not square: the pixels above and to the left, as seen from the scan's corner."""
    model = made(COLOUR, order="scans", num_masks=8, shared=shared)
    x = torch.randn(1, 12, requires_grad=True)
    outputs = model(x, mask).sum(2)[0]
    seen = torch.stack([torch.autograd.grad(output, x, retain_graph=True)[0][0] != 0 for output in outputs])
    from_bottom, from_right, by_columns = CORNERS[mask]
    for c, h, w in itertools.product(range(2), range(2), range(3)):
        place = (c, *line_and_pixel(h, w, from_bottom, from_right, by_columns))
        for c2, h2, w2 in itertools.product(range(2), range(2), range(3)):
            is_before = (c2, *line_and_pixel(h2, w2, from_bottom, from_right, by_columns)) < place
            assert seen[6 * c + 3 * h + w, 6 * c2 + 3 * h2 + w2] == is_before


def line_and_pixel(h: int, w: int, from_bottom: bool, from_right: bool, by_columns: bool) -> tuple[int, int]:
    row, column = (1 - h if from_bottom else h), (2 - w if from_right else w)
    return (column, row) if by_columns else (row, column)


@pytest.mark.parametrize("spec", [BINARY, GREY], ids=["binary", "grey"])
@EACH_ORDER
@EACH_SHARING
def test_probabilities_of_all_images_sum_to_one(spec, order, shared):
    model = made(spec, order=order, shared=shared)
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


@EACH_DATA_AND_ORDER
@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("direct", [True, False])
def test_one_pass_draws_what_a_pass_a_number_draws(spec, order, residual, direct):
    model = made(spec, order=order, residual=residual, direct=direct, shared=direct, scale=0.3)
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


@EACH_ORDER
@EACH_SHARING
def test_evaluate_is_the_mixture_over_masks(order, shared):
    model = made(BINARY, order=order, shared=shared)
    x = torch.randn(7, 1, 2, 3).sign()
    batch = batch_of(x, BINARY)
    each = torch.stack([model.nll_of_mask(batch, mask) for mask in range(3)])
    expected = -(-each).exp().mean(0).log()
    torch.testing.assert_close(model.evaluate(batch)["nll"], expected)
    torch.testing.assert_close(model.evaluate(batch)["bits_per_dim"], expected / (6 * math.log(2)))


def test_a_fair_coin_scores_784_ln_2():
    model = MADE(Spec("image", (1, 28, 28), value_range=(-1.0, 1.0), levels=2), width=8).eval()
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
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
    with pytest.raises(ValueError, match=r"model\.num_components=3 is of a mixture, .* told by a coin"):
        made(BINARY, num_components=3)
    with pytest.raises(ValueError, match=r"label=1 needs a model trained with model.conditional=true"):
        made(BINARY).sample(SampleRandom(0, range(2)), label=1)


def test_a_step_trains_the_weights_of_its_own_mask_alone():
    model = made(BINARY, order="scans", shared=False).train()
    x = torch.randn(5, 1, 2, 3).sign()
    alone = made(BINARY, order="scans", shared=False)
    for mask in range(3):
        model.zero_grad()
        model.train_step(Turn(mask + 3, batch_of(x, BINARY)))
        trained = {name.split(".")[1] for name, p in model.named_parameters() if p.grad is not None}
        assert trained == {str(mask)}
        parameters = alone.perceptrons[mask].state_dict()
        assert all(torch.equal(model.perceptrons[mask].state_dict()[key], parameters[key]) for key in parameters)


class Turn:
    """A `Step` that leaves the gradients of one batch."""

    def __init__(self, number: int, batch: Batch):
        self.number, self.batch = number, batch

    def minimize(self, group: str, loss, *, batch: int = 0) -> None:
        loss(self.batch)[0].backward()


def test_weights_of_each_mask_resume_bitwise(tmp_path):
    """Also where the run stopped before some of them had their first turn."""
    spec = SPECS["grey 28"]
    config = tiny_config("made", "grey 28", steps=6)
    config = dataclasses.replace(config, model={**config.model, "order": "scans", "num_masks": 3, "shared": False})
    train(config, spec, tmp_path / "whole")
    for step in range(1, 6):
        interrupt_after(step, config, spec, tmp_path / "parts")
    train(config, spec, tmp_path / "parts")
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


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


def test_scans_are_of_images_and_no_more_than_eight():
    with pytest.raises(ValueError, match=r"model\.order=scans needs images, and these are points; take"):
        made(POINTS, order="scans")
    with pytest.raises(ConfigError, match=r"an image has eight raster scans"):
        compose("model=made", "dataset=mnist", "model.order=scans", "model.num_masks=9")
