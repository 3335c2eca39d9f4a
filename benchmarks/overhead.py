"""What the engine costs over a loop written by hand: the same model, losses, data in memory and fused Adam.

The two take turns within one process, which is `genai train` with all logging on; neither averages weights. "Alone" is
the engine's share by itself: the losses hand over gradients made beforehand and compute nothing, so that little is left
but the engine and the optimizer, and noise in the model's own work cannot hide the difference.
"""

import copy
import statistics
import sys
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from benchmarks import ours
from benchmarks.report import THREADS, Goal, arguments, machine, row, write
from benchmarks.turns import apart, clock
from genai_cli.data.base import Batch
from genai_cli.data.pixels import decode_images
from genai_cli.engine.step import OptimizerStep
from genai_cli.models.base import GenerativeModel, LossFunction
from genai_cli.nn.random import RowRandom

# The losses of each model, by the group of parameters that each trains, in the order of a step.
LOSSES = {
    "vae": {"model": "loss"},
    "gan": {"discriminator": "discriminator_loss", "generator": "generator_loss"},
    "dcgan": {"discriminator": "discriminator_loss", "generator": "generator_loss"},
}
STEPS = {"vae": 100, "gan": 100, "dcgan": 20}  # in a turn; the engine logs once in as many


class TorchRandom(RowRandom):
    """Numbers straight from torch's own generator."""

    def __init__(self, size: int):
        self.index = range(size)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(self.size, *shape)

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(self.size, *shape)


class HandWritten:
    """The loop without an engine. It takes what it needs to know from the engine's own step."""

    def __init__(self, losses: dict[str, LossFunction], model: GenerativeModel, step: OptimizerStep):
        self.losses = losses
        self.images = step.batches.split.tensors["image"]  # (N, 1, 28, 28) uint8
        self.order = torch.randperm(len(self.images))
        self.batch_size = step.batches.batch_size
        self.position = 0
        self.parameters = {group: list(parameters) for group, parameters in model.parameter_groups().items()}
        self.optimizers = {}
        for group, parameters in self.parameters.items():
            settings = step.players[group].settings
            self.optimizers[group] = torch.optim.Adam(parameters, lr=settings.lr, betas=settings.betas, fused=True)

    def step(self) -> None:
        rows = self.order[self.position : self.position + self.batch_size]
        self.position = (self.position + self.batch_size) % (len(self.order) - self.batch_size)
        batch = Batch(decode_images({"image": self.images[rows]}), TorchRandom(self.batch_size))
        for group, loss in self.losses.items():
            self.optimizers[group].zero_grad()
            value, _ = loss(batch)
            value.backward(inputs=self.parameters[group])
            self.optimizers[group].step()


class Given(torch.autograd.Function):
    """A loss of zero, whose backward pass hands over the gradients that it was given."""

    @staticmethod
    def forward(context: Any, gradients: list[Tensor], *parameters: Tensor) -> Tensor:
        context.gradients = gradients
        return parameters[0].new_zeros(())

    @staticmethod
    def backward(context: Any, _: Tensor) -> tuple[Tensor | None, ...]:
        return None, *context.gradients


def losses_of(name: str, model: GenerativeModel, *, alone: bool) -> dict[str, LossFunction]:
    """By group. `alone`: in place of the model's, losses with gradients of the same sizes and as many metrics."""
    losses = {group: getattr(model, method) for group, method in LOSSES[name].items()}
    if not alone:
        return losses
    batch = Batch({"image": torch.zeros(2, *model.spec.shape)}, TorchRandom(2))
    groups = model.parameter_groups()
    return {group: given(list(groups[group]), loss(batch)[1]) for group, loss in losses.items()}


def given(parameters: list[Tensor], metrics: dict[str, Tensor]) -> LossFunction:
    gradients = [torch.full_like(parameter, 1e-8) for parameter in parameters]
    metrics = {key: metric.detach() for key, metric in metrics.items()}
    return lambda batch: (Given.apply(gradients, *parameters), metrics)


class Comparison:
    """The engine and its twin in turns: whenever the engine has had its steps, the twin has as many."""

    def __init__(self, name: str, *, alone: bool, busy: bool, rounds: int):
        self.name, self.alone, self.rounds, self.clock = name, alone, rounds, clock(busy)
        self.losses: dict[str, LossFunction] = {}
        self.engine: list[float] = []  # milliseconds of a step, the mean of each turn
        self.by_hand: list[float] = []
        self.start = 0.0

    def program(self, model: GenerativeModel, step: OptimizerStep) -> None:
        """The engine's step, with the losses in question."""
        if not self.losses:
            twin = copy.deepcopy(model)
            self.twin = HandWritten(losses_of(self.name, twin, alone=self.alone), twin, step)
            self.losses = losses_of(self.name, model, alone=self.alone)
        for group, loss in self.losses.items():
            step.minimize(group, loss)

    def step_done(self, model: GenerativeModel, step: OptimizerStep) -> None:
        steps = STEPS[self.name]
        if (step.number + 1) % steps:
            return
        middle = self.clock()
        for _ in range(steps):
            self.twin.step()
        if step.number > steps:  # the first turn is for nothing
            self.engine.append(1e3 * (middle - self.start) / steps)
            self.by_hand.append(1e3 * (self.clock() - middle) / steps)
        if len(self.engine) == self.rounds:
            sys.exit()
        self.start = self.clock()


def compare(name: str, alone: bool, busy: bool, rounds: int) -> tuple[list[float], list[float]]:
    """Milliseconds of a step, turn by turn: the engine's, and those by hand."""
    comparison = Comparison(name, alone=alone, busy=busy, rounds=rounds)
    settings = (f"device.threads={THREADS[busy]}", f"train.log_every={STEPS[name]}", "train.ema=null")
    with suppress(SystemExit):
        ours.train(name, *settings, step_done=comparison.step_done, program=comparison.program)
    assert len(comparison.engine) == rounds, "the run ended before its time"
    return comparison.engine, comparison.by_hand


def main() -> None:
    options = arguments(__doc__)
    before = machine(busy=options.busy)
    rows, goals = [], []
    for name in LOSSES:
        engine, by_hand = apart(compare, name, False, options.busy, options.rounds, busy=options.busy)
        alone, alone_by_hand = apart(compare, name, True, options.busy, options.rounds, busy=options.busy)
        overhead = [mine - theirs for mine, theirs in zip(alone, alone_by_hand, strict=True)]
        rows += [
            row(f"{name}: engine", engine),
            row(f"{name}: by hand", by_hand),
            row(f"{name}: difference", [mine - theirs for mine, theirs in zip(engine, by_hand, strict=True)]),
            row(f"{name}: difference, alone", overhead),
        ]
        milliseconds = statistics.median(overhead)
        if name == "dcgan":
            share = 100 * milliseconds / statistics.median(by_hand)
            goals.append(Goal(f"{name}: engine alone, of a step by hand", share, at_most=5, unit="%"))
        else:
            goals.append(Goal(f"{name}: engine alone", milliseconds, at_most=0.3, unit="ms"))
    write("overhead", __doc__, rows, goals, before)


if __name__ == "__main__":
    main()
