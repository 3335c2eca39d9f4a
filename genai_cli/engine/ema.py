"""The exponential moving average of the weights that a run samples and evaluates with."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import Parameter


class MovingAverage:
    """theta_bar <- d theta_bar + (1 - d) theta after every step, with d = min(decay, (1 + t) / (10 + t)).

    The ramp lets the average forget the initial weights in a short run.
    """

    def __init__(self, model: nn.Module, averaged: Iterable[Parameter], *, decay: float):
        wanted = {id(parameter) for parameter in averaged}
        self.parameters = {name: p for name, p in model.named_parameters() if id(p) in wanted}
        self.average = {name: p.detach().clone() for name, p in self.parameters.items()}
        self.decay = decay

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Follow the weights, `step` steps having been taken."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.average.values()), list(self.parameters.values()), 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within, the model's parameters are the average; the raw weights are back afterwards, whatever happens."""
        raw = {name: parameter.data for name, parameter in self.parameters.items()}
        try:
            for name, parameter in self.parameters.items():
                parameter.data = self.average[name]
            yield
        finally:
            for name, parameter in self.parameters.items():
                parameter.data = raw[name]

    def state(self) -> dict[str, Tensor]:
        return self.average

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        for name, tensor in self.average.items():
            tensor.copy_(state[name])
