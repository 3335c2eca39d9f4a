"""What an autoregressive model says of one number given those before it: a distribution from P parameters.

`black_or_white` is a coin, `pixel` a mixture of discretised logistics, exact at every level (nn/logistic_mixture.py),
`real` a mixture of Gaussians, a density per unit of the data.
"""

import math
from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from genai_cli.data.base import Spec
from genai_cli.nn.logistic_mixture import log_probability, logistic_mixture, quantise
from genai_cli.nn.ranges import Range, clamp_to_range, from_unit, to_unit

NUM_COMPONENTS = 10
SMALLEST_LOG_SIGMA = -7.0
_MARGIN = 1e-6  # of uniform noise from 0 and 1, where its quantiles are infinite


class Conditional(ABC):
    """A distribution of one number x, from (..., P) parameters."""

    num_parameters: int  # P

    @abstractmethod
    def nll(self, parameters: Tensor, x: Tensor) -> Tensor:
        """-log p(x) in nats: (B, D, P) and (B, D) to (B, D)."""

    @abstractmethod
    def draw(self, parameters: Tensor, noise: Tensor) -> Tensor:
        """A sample, (B, D), from uniform noise (B, D, 2)."""

    def at_rest(self, mean: Tensor) -> Tensor:
        """(D, P), what a network's output is relative to where the mean of the data is `mean` (D,)."""
        return mean.new_zeros(len(mean), self.num_parameters)


class Coin(Conditional):
    """Black or white: the end of the range with probability sigmoid(parameter)."""

    num_parameters = 1

    def __init__(self, value_range: tuple[float, float]):
        self.value_range = value_range

    def nll(self, parameters: Tensor, x: Tensor) -> Tensor:
        bit = to_unit(x, self.value_range).round()
        return F.binary_cross_entropy_with_logits(parameters.squeeze(-1).float(), bit, reduction="none")

    def draw(self, parameters: Tensor, noise: Tensor) -> Tensor:
        bit = noise[..., 0] < parameters.squeeze(-1).float().sigmoid()
        return from_unit(bit.float(), self.value_range)

    def at_rest(self, mean: Tensor) -> Tensor:
        """The log odds of each coin, none of which is taken for certain."""
        return (0.02 + 0.96 * to_unit(mean, self.value_range)).logit().unsqueeze(1)


class Level(Conditional):
    """One of `levels` evenly spaced values in [-1, 1]: a mixture of K discretised logistics."""

    def __init__(self, num_components: int, levels: int):
        self.num_parameters = 3 * num_components
        self.levels = levels

    def nll(self, parameters: Tensor, x: Tensor) -> Tensor:
        mixture = logistic_mixture(parameters.transpose(1, 2).unsqueeze(-1), 1)  # over "images" of D x 1 pixels
        return -log_probability(mixture, x[:, None, :, None], levels=self.levels).squeeze(-1)

    def draw(self, parameters: Tensor, noise: Tensor) -> Tensor:
        mixture = logistic_mixture(parameters.transpose(1, 2).unsqueeze(-1), 1)
        mean, log_scale = (part[:, :, 0, :, 0].transpose(1, 2) for part in (mixture.mean, mixture.log_scale))
        mean, log_scale = pick(mixture.logits.squeeze(-1).transpose(1, 2), noise[..., 0], mean, log_scale)
        value = mean + log_scale.exp() * noise[..., 1].clamp(_MARGIN, 1 - _MARGIN).logit()
        return quantise(value.clamp(-1, 1), self.levels)


class Real(Conditional):
    """A real number: a mixture of K Gaussians, whose draws are kept within `value_range` where there is one."""

    def __init__(self, num_components: int, value_range: Range | None = None):
        self.num_parameters = 3 * num_components
        self.value_range = value_range

    def nll(self, parameters: Tensor, x: Tensor) -> Tensor:
        logits, mean, log_sigma = split_gaussians(parameters)  # each (B, D, K)
        standard = (x.unsqueeze(-1) - mean) * torch.exp(-log_sigma)
        log_density = -0.5 * standard.square() - log_sigma - 0.5 * math.log(2 * math.pi)
        return -(logits.log_softmax(-1) + log_density).logsumexp(-1)

    def draw(self, parameters: Tensor, noise: Tensor, *, temperature: float = 1.0) -> Tensor:
        """`temperature` scales each sigma and divides the logits of the components; 0 is the likeliest one's mean."""
        logits, mean, log_sigma = split_gaussians(parameters)
        mean, log_sigma = pick(logits / max(temperature, _MARGIN), noise[..., 0], mean, log_sigma)
        value = mean + temperature * log_sigma.exp() * torch.special.ndtri(noise[..., 1].clamp(_MARGIN, 1 - _MARGIN))
        return clamp_to_range(value, self.value_range)


def split_gaussians(parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(..., 3 K) to logits, means and log sigmas, (..., K) each."""
    logits, mean, log_sigma = parameters.float().chunk(3, -1)
    return logits, mean, log_sigma.clamp(min=SMALLEST_LOG_SIGMA)


def pick(logits: Tensor, uniform: Tensor, *parts: Tensor) -> tuple[Tensor, ...]:
    """Of each of `parts` (B, D, K) the component that `uniform` (B, D) draws from softmax(logits), (B, D)."""
    cumulative = logits.softmax(-1).cumsum(-1)
    k = (cumulative <= uniform.unsqueeze(-1) * cumulative[..., -1:]).sum(-1, keepdim=True)
    k = k.clamp_(max=logits.shape[-1] - 1)
    return tuple(part.gather(-1, k).squeeze(-1) for part in parts)


def conditional_of(spec: Spec, num_components: int | None = None) -> Conditional:
    """The distribution of one number of the data of `spec`; a mixture is of NUM_COMPONENTS by default.

    Raises ValueError for components of a coin.
    """
    if spec.has_levels and spec.levels == 2:
        if num_components is not None:
            raise ValueError(
                f"model.num_components={num_components} is of a mixture, and black and white pixels are told by a "
                "coin: leave it out, or give model.num_components=null"
            )
        return Coin(spec.value_range)
    num_components = num_components or NUM_COMPONENTS
    return Level(num_components, spec.levels) if spec.has_levels else Real(num_components, spec.value_range)
