"""p(x | z): what a decoder's numbers mean, as nats of data, their mean, and draws.

All is flat: a decoder gives (B, num_outputs), an example is (B, D) in the range of the data.

- `bernoulli`: a coin for each coordinate. Black and white pixels.
- `gaussian`: one sigma for all coordinates: given, learned, or the optimal one (Rybkin et al. 2021, arXiv:2006.13202).
- `logistic`: a mixture of ten discretised logistics for each pixel (`logistic_mixture.py`): nats of whole levels.
- `categorical`: a logit for each level of each coordinate (van den Oord et al. 2016), which knows no order of them.

`logistic` and `categorical` are probabilities of the levels of the data, so their nats divided by D log 2 are bits per
dimension; `gaussian` is a density per unit of the data as they are fed.
"""

import math
from abc import ABC, abstractmethod
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai_cli.data.base import Spec
from genai_cli.nn import logistic_mixture as logistics
from genai_cli.nn.random import RowRandom
from genai_cli.nn.ranges import Range, clamp_to_range, from_unit, tanh_to_range, to_unit
from genai_cli.nn.ranks import mean_over_ranks

LikelihoodName = Literal["auto", "bernoulli", "gaussian", "logistic", "categorical"]
Sigma = float | Literal["learned", "optimal"]
NUM_COMPONENTS = 10  # of a logistic mixture: PixelCNN++ has 10, too


class Likelihood(nn.Module, ABC):
    """p(x | z) given a decoder's output."""

    num_outputs: int  # numbers that a decoder gives for an example
    is_of_levels = False  # whether nats are of whole levels, so that they count bits

    @abstractmethod
    def nll(self, output: Tensor, x: Tensor) -> Tensor:
        """-log p(x) in nats: (B, num_outputs) and (B, D) to (B,)."""

    def in_bits(self, nats: Tensor, spec: Spec) -> dict[str, Tensor]:
        """{"bits_per_dim": nats of an example as bits for each of its numbers}, where that means something; else {}."""
        return {"bits_per_dim": nats / (math.prod(spec.shape) * math.log(2))} if self.is_of_levels else {}

    @abstractmethod
    def mean(self, output: Tensor) -> Tensor:
        """(B, D), in the range of the data."""

    @abstractmethod
    def draw(self, output: Tensor, random: RowRandom) -> Tensor:
        """A sample, (B, D), in the range of the data."""


class Bernoulli(Likelihood):
    """Each coordinate a coin of probability sigmoid(output), for data scaled to [0, 1].

    Exact for black and white pixels. For grey ones it is the customary cross-entropy: a bound in nats that compares
    only with others of its kind, for it is no density over [0, 1] (Loaiza-Ganem & Cunningham 2019).
    With `from_mean` outputs are relative to the log odds of the first batch in training: a decoder at rest says what
    is always dark, which it would otherwise spend thousands of steps to learn.
    """

    log_odds: Tensor  # (D,)
    is_set: Tensor  # bool

    def __init__(self, num_outputs: int, value_range: Range, *, from_mean: bool = False):
        super().__init__()
        self.num_outputs, self.value_range, self.from_mean = num_outputs, value_range, from_mean
        if from_mean:
            self.register_buffer("log_odds", torch.zeros(num_outputs))
            self.register_buffer("is_set", torch.tensor(False))

    def nll(self, output: Tensor, x: Tensor) -> Tensor:
        unit = to_unit(x, self.value_range)
        if self.from_mean and self.training and not self.is_set:
            self._measure(unit)
        logits = self._logits(output).float()
        return F.binary_cross_entropy_with_logits(logits, unit, reduction="none").sum(1)

    def mean(self, output: Tensor) -> Tensor:
        return from_unit(self._logits(output).sigmoid(), self.value_range)

    def draw(self, output: Tensor, random: RowRandom) -> Tensor:
        is_one = random.uniform(output.shape[1]) < self._logits(output).sigmoid()
        return from_unit(is_one.to(output.dtype), self.value_range)

    def _logits(self, output: Tensor) -> Tensor:
        return output + self.log_odds if self.from_mean else output

    @torch.no_grad()
    def _measure(self, unit: Tensor) -> None:
        """Of each coordinate in the rows of all ranks, none of which is taken for certain."""
        mean = mean_over_ranks(unit.mean(0))
        self.log_odds.copy_((0.02 + 0.96 * mean).logit())
        self.is_set.fill_(True)


class Gaussian(Likelihood):
    """N(mean, sigma^2) for each coordinate, with one sigma; a density per unit of the data as they are fed.

    Where the data are bounded, a tanh keeps the mean within their range; with `is_cut` it is free, and cut off there
    when it is shown. `sigma=optimal` is in training the root mean squared error of the batch, where its likelihood is
    largest; evaluation uses the running mean of its logarithm.
    """

    log_sigma: Tensor  # ()

    def __init__(
        self, num_outputs: int, value_range: Range | None, sigma: Sigma = "learned", *, is_cut: bool = False,
        momentum: float = 0.05,
    ):  # fmt: skip
        super().__init__()
        self.num_outputs, self.value_range, self.momentum = num_outputs, value_range, momentum
        self.is_cut = is_cut
        self.is_optimal = sigma == "optimal"
        # Begins small beside the data: from sigma = 1 the decoder of points learns to do without z.
        start = torch.tensor(-1.0 if isinstance(sigma, str) else math.log(sigma))
        if sigma == "learned":
            self.log_sigma = nn.Parameter(start)
        else:
            self.register_buffer("log_sigma", start)

    def nll(self, output: Tensor, x: Tensor) -> Tensor:
        output = output.float()
        error = x - (output if self.is_cut else self.mean(output))
        log_sigma = self._optimal(error.detach()) if self.is_optimal and self.training else self.log_sigma
        return (0.5 * (error / log_sigma.exp()).square() + log_sigma + 0.5 * math.log(2 * math.pi)).sum(1)

    @torch.no_grad()
    def _optimal(self, error: Tensor) -> Tensor:
        """Its gradient is not missed: the likelihood is flat in sigma where sigma is the best."""
        best = 0.5 * mean_over_ranks(error.square().mean()).clamp(min=1e-12).log()
        self.log_sigma.lerp_(best.to(self.log_sigma), self.momentum)
        return best

    def mean(self, output: Tensor) -> Tensor:
        return (clamp_to_range if self.is_cut else tanh_to_range)(output, self.value_range)

    def draw(self, output: Tensor, random: RowRandom) -> Tensor:
        x = self.mean(output) + self.log_sigma.exp() * random.normal(output.shape[1])
        return x if self.value_range is None else x.clamp(*self.value_range)


class LogisticMixture(Likelihood):
    """Pixels of `levels` levels, each from a mixture of discretised logistics; channels of a pixel depend."""

    is_of_levels = True

    def __init__(self, shape: tuple[int, int, int], value_range: Range, levels: int):
        super().__init__()
        self.shape, self.value_range, self.levels = shape, value_range, levels
        self.num_outputs = logistics.num_parameters(shape[0], NUM_COMPONENTS) * shape[1] * shape[2]

    def nll(self, output: Tensor, x: Tensor) -> Tensor:
        pixels = (2 * to_unit(x, self.value_range) - 1).unflatten(1, self.shape)
        return -logistics.log_probability(self._mixture(output), pixels, levels=self.levels).flatten(1).sum(1)

    def mean(self, output: Tensor) -> Tensor:
        return self._in_range(logistics.mean(self._mixture(output)))

    def draw(self, output: Tensor, random: RowRandom) -> Tensor:
        return self._in_range(logistics.draw(self._mixture(output), random, levels=self.levels))

    def _mixture(self, output: Tensor) -> logistics.LogisticMixture:
        return logistics.logistic_mixture(output.unflatten(1, (-1, *self.shape[1:])), self.shape[0])

    def _in_range(self, pixels: Tensor) -> Tensor:
        return from_unit((pixels.flatten(1) + 1) / 2, self.value_range)


class Categorical(Likelihood):
    """Each coordinate one of `levels` evenly spaced values, with a logit for each."""

    is_of_levels = True

    values: Tensor  # (levels,), from 0 to 1

    def __init__(self, data_dim: int, value_range: Range, levels: int):
        super().__init__()
        self.num_outputs, self.value_range, self.levels = data_dim * levels, value_range, levels
        self.register_buffer("values", torch.linspace(0, 1, levels), persistent=False)

    def nll(self, output: Tensor, x: Tensor) -> Tensor:
        level = (to_unit(x, self.value_range) * (self.levels - 1)).round().long()  # (B, D)
        return F.cross_entropy(self._logits(output).float(), level, reduction="none").sum(1)

    def mean(self, output: Tensor) -> Tensor:
        unit = torch.einsum("bvd,v->bd", self._logits(output).softmax(1), self.values)
        return from_unit(unit.clamp(0, 1), self.value_range)

    def draw(self, output: Tensor, random: RowRandom) -> Tensor:
        cumulative = self._logits(output).softmax(1).cumsum(1)  # (B, V, D)
        threshold = random.uniform(1, cumulative.shape[2]) * cumulative[:, -1:]
        level = (cumulative <= threshold).sum(1).clamp(max=self.levels - 1)
        return from_unit(self.values[level], self.value_range)

    def _logits(self, output: Tensor) -> Tensor:
        """(B, V D) to (B, V, D)."""
        return output.unflatten(1, (self.levels, -1))


def build_likelihood(
    name: LikelihoodName, spec: Spec, *, sigma: Sigma = "learned", levels: int | None = None, from_mean: bool = False
) -> Likelihood:
    """`auto` is bernoulli of pixels, gaussian of real numbers.

    `levels` is that of the data or left out: over any other number of levels the probabilities would not sum to one.
    `from_mean` is for bernoulli alone (see there), the others go without.
    Raises ValueError where the data have no range or no levels and the likelihood needs them, or where `sigma` or
    `levels` would not be read.
    """
    if name == "auto":
        name = "bernoulli" if spec.has_levels else "gaussian"
    if name != "gaussian" and sigma != "learned":
        raise ValueError(f"model.sigma={sigma} is read by model.likelihood=gaussian alone, and it is {name}")
    if name in ("bernoulli", "gaussian") and levels not in (None, 256):  # 256: in runs from when it was the default
        raise ValueError(f"model.levels={levels} is read by likelihood=logistic and categorical, and it is {name}")
    data_dim = math.prod(spec.shape)
    if name == "gaussian":
        return Gaussian(data_dim, spec.value_range, sigma, is_cut=not spec.has_levels)
    if spec.value_range is None:
        raise ValueError(
            f"model.likelihood={name} needs data with a range, which {spec.modality} do not have: "
            "use model.likelihood=gaussian"
        )
    if not spec.has_levels:
        raise ValueError(f"model.likelihood={name} is of levels, and {spec.modality} are real numbers: use gaussian")
    if name == "bernoulli":
        return Bernoulli(data_dim, spec.value_range, from_mean=from_mean)
    if levels not in (None, spec.levels):
        raise ValueError(f"model.levels={levels}, but these data have {spec.levels} levels: leave it out")
    if name == "categorical":
        return Categorical(data_dim, spec.value_range, spec.levels)
    if len(spec.shape) != 3:
        raise ValueError(f"model.likelihood=logistic is of pixels, and {spec.modality} have none: use gaussian")
    return LogisticMixture(spec.shape, spec.value_range, spec.levels)
