"""The real numbers of a step told one after the other: p(x_t | c) = prod_d p(x_td | x_t1 ... x_t(d-1), c), exactly.

What is told of each is how it differs from what it was a step ago, of most series the best guess at the outset, in
units of how much such differences vary. The first step is told by its difference from the mean of first steps.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai_cli.nn.conditionals import Real
from genai_cli.nn.ranges import Range, clamp_to_range
from genai_cli.nn.ranks import sum_over_ranks


class FeatureChain(nn.Module):
    """For each of D numbers a hidden layer of its own, of `width`, which sees the condition and the numbers before it.

    What it says of its number is a mixture of Gaussians, so that the whole is a density of any shape. Its units are
    measured on the first batch in training and stay as they are from then on. Draws are kept within `value_range`,
    where there is one.
    """

    is_before: Tensor  # (D, 1, D): whether number e comes before number d
    start: Tensor  # (D,): the mean of first steps
    units: Tensor  # (2, D): of the first step, and of the differences of those after it
    is_set: Tensor  # bool

    def __init__(
        self, size: int, width: int, *, condition_dim: int, num_components: int, value_range: Range | None = None
    ):
        super().__init__()
        self.size, self.value_range = size, value_range
        self.difference = Real(num_components)
        num_parameters = self.difference.num_parameters
        self.condition = nn.Linear(condition_dim, size * width)
        self.earlier = nn.Parameter(torch.randn(size, width, size) / math.sqrt(size))
        self.out = nn.Parameter(torch.randn(size, width, num_parameters) / math.sqrt(width))
        self.bias = nn.Parameter(torch.zeros(size, num_parameters))
        before = torch.ones(size, size).tril(-1).unsqueeze(1)
        self.register_buffer("is_before", before, persistent=False)
        self.register_buffer("start", torch.zeros(size))
        self.register_buffer("units", torch.ones(2, size))
        self.register_buffer("is_set", torch.tensor(False))

    def nll(self, condition: Tensor, x: Tensor) -> Tensor:
        """-log p(x) in nats of each number: (B, T, C), and series (B, T, D) from their beginning, to (B, T, D)."""
        if self.training and not self.is_set:
            self._measure(x)
        before = torch.cat([self.start.expand(len(x), 1, -1), x[:, :-1]], 1)
        units = torch.cat([self.units[:1], self.units[1:].expand(x.shape[1] - 1, -1)])  # (T, D)
        change = (x - before) / units
        told = self.condition(condition).unflatten(-1, (self.size, -1))  # (B, T, D, H)
        seen = torch.einsum("dhe,bte->btdh", self.earlier * self.is_before, change)
        parameters = torch.einsum("btdh,dhp->btdp", F.relu(told + seen), self.out) + self.bias
        return self.difference.nll(parameters, change) + units.log()

    def draw(self, condition: Tensor, before: Tensor | None, noise: Tensor, temperature: float = 1.0) -> Tensor:
        """(B, C), the step before (B, D), or None at the beginning, and uniform noise (B, D, 2) to a sample (B, D)."""
        units = self.units[0 if before is None else 1]
        before = self.start.expand(len(condition), -1) if before is None else before
        hidden = self.condition(condition).unflatten(-1, (self.size, -1))  # (B, D, H)
        x = torch.zeros_like(before)
        for d in range(self.size):
            change = (x[:, :d] - before[:, :d]) / units[:d]
            own = F.relu(hidden[:, d] + change @ self.earlier[d, :, :d].T)
            parameters = own @ self.out[d] + self.bias[d]  # (B, P)
            drawn = self.difference.draw(parameters.unsqueeze(1), noise[:, d : d + 1], temperature=temperature)
            x[:, d] = clamp_to_range(before[:, d] + units[d] * drawn.squeeze(1), self.value_range)
        return x

    @torch.no_grad()
    def _measure(self, x: Tensor) -> None:
        """The mean of first steps, and the standard deviations of these and of differences, over all ranks."""
        spread = mean_and_deviation(x.flatten(0, 1))[1]
        self.start.copy_(mean_and_deviation(x[:, 0])[0])
        least = (0.01 * spread).clamp(min=1e-3)  # of what hardly changes in this batch
        self.units[0] = spread.maximum(least)
        if x.shape[1] > 1:
            self.units[1] = mean_and_deviation(x.diff(dim=1).flatten(0, 1))[1].maximum(least)
        self.is_set.fill_(True)


def mean_and_deviation(values: Tensor) -> tuple[Tensor, Tensor]:
    """Of (N, D) on each rank, over all of them: (D,) each."""
    count, total = sum_over_ranks(torch.cat([values.new_full((1,), len(values)), values.sum(0)])).tensor_split([1])
    mean = total / count
    return mean, (sum_over_ranks((values - mean).square().sum(0)) / count).sqrt()
