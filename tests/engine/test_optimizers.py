import inspect
import math

import pytest
import torch
from torch.nn import Parameter

from genai_cli.config import ConfigError, OptimizerConfig
from genai_cli.engine.optimizers import build_optimizer, check_overrides, learning_rate, settings_of_group

NAMES = ["adam", "adamw", "sgd", "rmsprop", "adagrad"]


def test_the_constant_schedule_is_constant() -> None:
    assert {learning_rate(OptimizerConfig(lr=0.3), step, 10) for step in range(10)} == {0.3}


def test_the_linear_schedule_is_a_line_to_its_final_ratio() -> None:
    config = OptimizerConfig(lr=2.0, schedule="linear", final_lr_ratio=0.25)
    assert [learning_rate(config, step, 8) for step in range(9)] == pytest.approx(
        [2.0 - 1.5 * step / 8 for step in range(9)]
    )


def test_the_cosine_schedule_is_half_a_wave() -> None:
    config = OptimizerConfig(lr=1.0, schedule="cosine", final_lr_ratio=0.1)
    for step in range(11):
        assert learning_rate(config, step, 10) == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi * step / 10)) / 2)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_a_warm_up_climbs_to_the_rate_and_the_schedule_follows(schedule: str) -> None:
    config = OptimizerConfig(lr=1.0, schedule=schedule, warmup_steps=4)  # type: ignore[arg-type]
    assert [learning_rate(config, step, 20) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    rates = [learning_rate(config, step, 20) for step in range(4, 20)]
    assert rates == sorted(rates, reverse=True)


def test_a_warm_up_longer_than_the_run_does_not_divide_by_zero() -> None:
    config = OptimizerConfig(lr=1.0, schedule="cosine", warmup_steps=50)
    assert learning_rate(config, 9, 10) == pytest.approx(0.2)
    assert learning_rate(config, 50, 10) == 1.0


@pytest.mark.parametrize("name", NAMES)
def test_weight_decay_falls_on_matrices_alone(name: str) -> None:
    """With a zero gradient, decay alone moves a weight."""
    matrix, kernel, bias = Parameter(torch.ones(2, 2)), Parameter(torch.ones(2, 2, 1, 1)), Parameter(torch.ones(2))
    optimizer = build_optimizer([matrix, kernel, bias], OptimizerConfig(name=name, lr=0.1, weight_decay=0.5))
    for parameter in (matrix, kernel, bias):
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert (matrix < 1).all() and (kernel < 1).all()
    assert torch.equal(bias, torch.ones(2))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shapes", [[(2, 2), (2,)], [(2, 2)], [(2,)]])
def test_no_optimizer_decays_weights_unasked(name: str, shapes: list[tuple[int, ...]]) -> None:
    """torch's AdamW would, by 0.01."""
    parameters = [Parameter(torch.ones(shape)) for shape in shapes]
    optimizer = build_optimizer(parameters, OptimizerConfig(name=name, lr=0.1))
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert all(torch.equal(parameter, torch.ones_like(parameter)) for parameter in parameters)


def test_adamw_takes_its_first_step_as_published() -> None:
    """Loshchilov & Hutter 2019, Algorithm 2: the first step is lr * sign(g) and lr * decay * theta."""
    weight = Parameter(torch.tensor([[2.0, -3.0]], dtype=torch.float64))
    optimizer = build_optimizer([weight], OptimizerConfig(name="adamw", lr=0.1, weight_decay=0.5))
    weight.grad = torch.tensor([[0.7, -4.0]], dtype=torch.float64)
    optimizer.step()
    expected = torch.tensor([[2.0 * 0.95 - 0.1, -3.0 * 0.95 + 0.1]], dtype=torch.float64)
    torch.testing.assert_close(weight.detach(), expected, atol=1e-7, rtol=0)


def test_overrides_change_one_group() -> None:
    config = OptimizerConfig(lr=1e-3, overrides={"generator": {"lr": 5e-4, "name": "sgd"}})
    assert settings_of_group(config, "generator").lr == 5e-4
    assert settings_of_group(config, "generator").name == "sgd"
    assert settings_of_group(config, "discriminator").lr == 1e-3
    with pytest.raises(ConfigError, match=r"optimizer\.overrides\.generator .* it has model"):
        check_overrides(config, ["model"])


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "rmsprop", "adagrad"])
def test_updates_equal_those_of_torch(name: str) -> None:
    """Also without the decorators of torch's methods, and bit by bit."""
    config = OptimizerConfig(name=name, lr=0.1, momentum=0.5 if name in ("sgd", "rmsprop") else 0.0)
    kinds = {"adam": "Adam", "adamw": "AdamW", "sgd": "SGD", "rmsprop": "RMSprop", "adagrad": "Adagrad"}
    own, reference = (torch.nn.Parameter(torch.linspace(-1, 1, 12).view(3, 4)) for _ in range(2))
    ours = build_optimizer([own], config)
    kind = getattr(torch.optim, kinds[name])
    accepted = inspect.signature(kind).parameters.keys() - {"params", "weight_decay"}
    settings = {key: value for key, value in ours.defaults.items() if key in accepted}
    theirs = kind([reference], weight_decay=0.0, **settings)
    for _ in range(4):
        for parameter, optimizer in ((own, ours), (reference, theirs)):
            parameter.grad = parameter.detach().sin()
            optimizer.step()
    assert torch.equal(own, reference)
    assert not torch.equal(own, torch.linspace(-1, 1, 12).view(3, 4))
