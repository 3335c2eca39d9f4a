"""The options of `nn/game.py` in a real run: those with state resume bitwise, and two ranks equal one."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from genai_cli.config import Config, OptimizerConfig
from genai_cli.engine.batches import Batches
from genai_cli.engine.distributed import World
from genai_cli.engine.step import OptimizerStep
from tests.models.ranks import run_on_two_ranks
from tests.models.test_contract import (
    BATCH_SIZE,
    CPU,
    SPECS,
    assert_same_run,
    build,
    interrupt_after,
    tiny_config,
    tiny_split,
    train,
)

SPEC = SPECS["grey 28"]
OPTIONS: dict[str, dict[str, object]] = {
    "ada": {"augment": "ada", "regularizer": "lecam", "loss": "hinge"},
    "diffaug": {"augment": "diffaug", "regularizer": "gp", "loss": "wgan", "critic_steps": 2},
    "spectral": {"regularizer": "spectral", "loss": "relativistic"},
    "lazy": {"regularizer": "r1r2", "regularizer_every": 2},
    "consistency": {"regularizer": "consistency"},
    "fakes made once": {"fresh_fakes": False},
}
every_option = pytest.mark.parametrize("name", OPTIONS)


def config_with(name: str, **train_keys: object) -> Config:
    config = tiny_config("dcgan", "grey 28", **train_keys)
    return dataclasses.replace(config, model={**config.model, **OPTIONS[name]})


@every_option
def test_a_run_with_the_option_resumes_bitwise(name: str, tmp_path: Path) -> None:
    config = config_with(name, accumulate=2, steps=6)
    train(config, SPEC, tmp_path / "whole")
    interrupt_after(3, config, SPEC, tmp_path / "parts")
    train(config, SPEC, tmp_path / "parts")
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_the_controller_of_ada_and_the_means_of_lecam_are_saved() -> None:
    """In so short a run they have hardly moved, so that their loss would not show."""
    game = build(config_with("ada"), SPEC).game
    buffers = {name for name, _ in game.named_buffers()}
    assert {"augment.p", "augment.signs"} < buffers and any(name.startswith("lecam.") for name in buffers)
    assert buffers <= set(game.state_dict())


@every_option
def test_two_ranks_with_the_option_equal_one(name: str) -> None:
    alone, together = sgd_steps(name, World()), run_on_two_ranks(sgd_steps, name)
    for key, tensor in alone.items():
        torch.testing.assert_close(together[key], tensor, atol=1e-5, rtol=1e-4)


def sgd_steps(name: str, world: World) -> dict[str, Tensor]:
    """Weights, buffers and mean metrics after six steps of SGD, in which the controller of ADA moves once."""
    config = dataclasses.replace(config_with(name), optimizer=OptimizerConfig(name="sgd", lr=2e-3))
    model = build(config, SPEC)
    batches = Batches(
        tiny_split(SPEC), seed=0, batch_size=BATCH_SIZE, batches_per_step=model.batches_per_step,
        rank=world.rank, world_size=world.size,
    )  # fmt: skip
    step = OptimizerStep(model, batches, config.train, config.optimizer, seed=0, total_steps=6, world=world, device=CPU)
    for number in range(6):
        step.run(number)
    metrics = {key: torch.tensor(value, dtype=torch.float32) for key, value in step.averages.means().items()}
    return {**{key: tensor.clone() for key, tensor in model.state_dict().items()}, **metrics}
