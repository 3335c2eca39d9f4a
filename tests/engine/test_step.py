import pytest
import torch
from torch import Tensor, nn

from genai_cli.config import OptimizerConfig, TrainConfig
from genai_cli.data.base import Batch
from genai_cli.engine.batches import Batches
from genai_cli.engine.distributed import World
from genai_cli.engine.step import MOST_KEPT, Averages, OptimizerStep
from genai_cli.models.base import GenerativeModel, Metrics
from genai_cli.nn.random import BatchRandom, RowRandom, mix
from tests.engine.duel import CPU, SPEC, Duel, points

SGD = OptimizerConfig(name="sgd", lr=0.5)


class Line(GenerativeModel):
    """y = A x + b towards noise: a loss that draws random numbers, in float64."""

    modalities = ("points",)

    def __init__(self) -> None:
        super().__init__(SPEC)
        self.layer = nn.Linear(2, 2).double()
        self.other = nn.Parameter(torch.ones(3))

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        error = self.layer(batch["points"].double()) - batch.random.normal(2)
        return error.square().mean(), {"bias": self.layer.bias.mean()}

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {"model": list(self.layer.parameters()), "other": [self.other]}

    def sample(self, random: RowRandom) -> Tensor:
        return random.normal(2)


def make_step(model: GenerativeModel, *, optimizer: OptimizerConfig = SGD, **train: object) -> OptimizerStep:
    config = TrainConfig(batch_size=12, **train)  # type: ignore[arg-type]
    batches = Batches(
        points(30, 1), seed=7, batch_size=12, accumulate=config.accumulate, batches_per_step=model.batches_per_step
    )
    return OptimizerStep(model, batches, config, optimizer, seed=7, total_steps=10, world=World(), device=CPU)


def line() -> Line:
    torch.manual_seed(1)
    return Line()


def test_minimize_is_one_step_of_plain_autograd() -> None:
    model, twin = line(), line()
    make_step(model).run(3)
    rows = Batches(points(30, 1), seed=7, batch_size=12).fetch(3, 0, 0)
    loss, _ = twin.loss(Batch(rows, BatchRandom(7, 2, 3, 0, stop=12)))
    gradients = torch.autograd.grad(loss, list(twin.layer.parameters()))
    for parameter, before, gradient in zip(model.layer.parameters(), twin.layer.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter, before - 0.5 * gradient, atol=1e-12, rtol=0)


@pytest.mark.parametrize("accumulate", [2, 3, 4, 12])
def test_accumulation_is_the_whole_batch(accumulate: int) -> None:
    whole, parts = line(), line()
    one, many = make_step(whole), make_step(parts, accumulate=accumulate)
    for number in range(5):
        one.run(number)
        many.run(number)
    for name, parameter in whole.named_parameters():
        torch.testing.assert_close(dict(parts.named_parameters())[name], parameter, atol=1e-6, rtol=0)
    assert many.averages.means() == pytest.approx(one.averages.means(), abs=1e-6)


def test_only_the_group_gets_gradients_and_moves() -> None:
    torch.manual_seed(0)
    model = Duel(SPEC)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    step = make_step(model)
    step.number, step._calls = 0, 0
    step.minimize("generator", model.generator_loss)  # whose graph runs through the critic
    for name, parameter in model.named_parameters():
        is_generator = name.startswith("generator")
        assert (parameter.grad is not None) == is_generator
        assert torch.equal(parameter, before[name]) != is_generator


def test_the_two_batches_of_a_step_differ() -> None:
    torch.manual_seed(0)
    batches = make_step(Duel(SPEC)).batches
    assert not torch.equal(batches.fetch(0, 0, 0)["points"], batches.fetch(0, 1, 0)["points"])


def test_a_gradient_is_clipped_to_the_norm_and_logged_before_it() -> None:
    free, clipped = line(), line()
    steps = make_step(free), make_step(clipped, clip_norm=0.01)
    for step in steps:
        step.run(0)
    norm = steps[0].averages.means()["model/gradient_norm"]
    assert norm > 0.01
    assert steps[1].averages.means()["model/gradient_norm"] == norm
    start = line()
    moves = [
        torch.cat([(p - q).flatten() for p, q in zip(m.layer.parameters(), start.layer.parameters(), strict=True)])
        for m in (free, clipped)
    ]
    torch.testing.assert_close(moves[1], moves[0] * 0.01 / norm, atol=1e-6, rtol=1e-4)
    assert moves[1].norm().item() == pytest.approx(0.5 * 0.01, rel=1e-3)


def test_dropout_is_a_function_of_the_step() -> None:
    """Whatever the global generator was used for in between."""
    results = []
    for disturbance in (0, 5):
        torch.manual_seed(0)
        model = Duel(SPEC).train()
        step = make_step(model, optimizer=OptimizerConfig(lr=1e-2))
        for number in range(3):
            torch.rand(disturbance)
            step.run(number)
        results.append(torch.cat([parameter.flatten() for parameter in model.parameters()]))
    assert torch.equal(results[0], results[1])


def test_the_random_numbers_of_the_updates_of_a_step_differ() -> None:
    assert mix(7, 2, 3, 0) != mix(7, 2, 3, 1) != mix(7, 2, 4, 0)


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "rmsprop", "adagrad"])
def test_the_state_of_every_optimizer_is_taken_up_bitwise(name: str) -> None:
    momentum = 0.9 if name in ("sgd", "rmsprop") else 0.0
    config = OptimizerConfig(name=name, lr=0.05, momentum=momentum, schedule="cosine", warmup_steps=2)
    model = line()
    step = make_step(model, optimizer=config)
    for number in range(3):
        step.run(number)
    twin = line()
    twin.load_state_dict(model.state_dict())
    other = make_step(twin, optimizer=config)
    other.load_optimizer_state({key: tensor.clone() for key, tensor in step.optimizer_state().items()})
    for number in range(3, 6):
        step.run(number)
        other.run(number)
    for key, tensor in step.optimizer_state().items():
        assert torch.equal(other.optimizer_state()[key], tensor)
    for key, tensor in model.state_dict().items():
        assert torch.equal(twin.state_dict()[key], tensor)


def test_averages_are_of_the_values_at_the_time_whenever_they_are_read() -> None:
    changing = torch.zeros(())  # such as a buffer of the model
    often, seldom = Averages(), Averages()
    for number in range(2 * MOST_KEPT + 3):
        changing.fill_(0.1 * number)
        for averages in (often, seldom):
            averages.add({"changing": changing, "exact": torch.tensor(0.1, dtype=torch.float64)})
            if number % 7 == 0:
                averages.add({"rare": torch.tensor(1.0)})
        often.state()  # as a checkpoint does
        assert len(seldom._kept) <= MOST_KEPT  # however seldom
    assert often.state() == seldom.state()
    assert seldom.means()["changing"] == pytest.approx(0.1 * (MOST_KEPT + 1))
    assert seldom.counts == {"changing": 2 * MOST_KEPT + 3, "exact": 2 * MOST_KEPT + 3, "rare": 74}
    seldom.clear()
    assert seldom.means() == {}


def test_averages_go_through_json_exactly() -> None:
    import json

    averages, twin = Averages(), Averages()
    for number in range(1, 8):
        odd = torch.tensor(float("inf") if number == 3 else 0.1)
        averages.add({"loss": torch.tensor(1 / number), "odd": odd, "none": torch.tensor(float("nan"))})
    twin.load_state(json.loads(json.dumps(averages.state(), allow_nan=False)))
    assert (
        twin.means()["loss"]
        == averages.means()["loss"]
        == sum(map(float, torch.tensor([1 / n for n in range(1, 8)]))) / 7
    )
    assert twin.means()["odd"] == float("inf")
    assert twin.means()["none"] != twin.means()["none"]
    assert twin.state() == averages.state()


class Listener(Line):
    """Notes the numbers that the calls of `minimize` in a step are given."""

    batches_per_step = 2

    def __init__(self) -> None:
        super().__init__()
        self.heard: dict[str, list[Tensor]] = {"random": [], "shared": []}

    def train_step(self, step: OptimizerStep) -> None:
        for batch in (0, 1, 0):
            step.minimize("model", self.loss, batch=batch)

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        for name, heard in self.heard.items():
            heard.append(getattr(batch, name).normal(3))
        return super().loss(batch)


def test_shared_numbers_are_those_of_the_step_and_the_batch_whoever_asks_and_in_how_many_parts():
    model, in_parts = Listener(), Listener()
    step = make_step(model)
    step.run(3)
    first, other, again = model.heard["shared"]
    assert torch.equal(first, again) and not torch.equal(first, other)
    once, _, twice = model.heard["random"]
    assert not torch.equal(once, twice)
    step.run(4)
    assert not torch.equal(model.heard["shared"][3], first)
    make_step(in_parts, accumulate=2).run(3)
    assert torch.equal(torch.cat(in_parts.heard["shared"][:2]), first)
