"""The exponential moving average of the weights that a run samples and evaluates with."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from genai_cli.engine.sharding import part_of


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

    def state(self) -> dict[str, Tensor]:
        return self.average

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        for name, tensor in self.average.items():
            tensor.copy_(part_of(state[name], tensor))
