"""The real command, observed: `genai train ...` in this process, with every step announced."""

from collections.abc import Callable

from torch import nn

from benchmarks.turns import Turns
from genai_cli import cli, registry
from genai_cli.engine.step import OptimizerStep
from genai_cli.models.base import GenerativeModel

Program = Callable[[GenerativeModel, OptimizerStep], None]  # of one optimizer step, as `train_step` is


def train(
    name: str, *overrides: str, step_done: Program, program: Program | None = None, dataset: str = "mnist"
) -> None:
    """`genai train model=NAME dataset=mnist`, or another one, until `step_done` ends it.

    `program` stands in for the model's own step.

    All logging is on. Nothing is sampled, evaluated or saved between steps, as nothing is in the loops beside it.
    """
    model_class = registry.load_model_class(name)
    program = program or model_class.train_step

    def train_step(model: GenerativeModel, step: OptimizerStep) -> None:
        program(model, step)
        step_done(model, step)

    model_class.train_step = train_step
    endless = ["train.steps=1000000000", "train.epochs=null"]
    bare = ["train.sample_every=null", "train.save_every=null", "train.evaluate_every=null"]
    raise SystemExit(cli.run(["train", f"model={name}", f"dataset={dataset}", *endless, *bare, *overrides]))


def contend(turns: Turns, name: str, *overrides: str, dataset: str = "mnist") -> None:
    """`train` as a contender."""

    def step_done(model: GenerativeModel, step: OptimizerStep) -> None:
        if step.number == 0:
            turns.ready(parameters=count_parameters(model))
        else:
            turns.step_done()

    train(name, *overrides, step_done=step_done, dataset=dataset)


def count_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
