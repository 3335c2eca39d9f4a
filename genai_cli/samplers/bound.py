"""The variational bound of a discrete diffusion, in bits per dimension (Ho et al. 2020, arXiv:2006.11239, Eq. 5).

In the coordinates x = x_0 + sigma eps of `solvers.py` its terms are (Kingma et al. 2021, arXiv:2107.00630, Sec. 4)

    L_T = KL(q(x_T | x_0) || the noise that sampling starts from),    L_0 = - ln p(x_0 | x_1),
    L_(t - 1) = (1 / sigma_(t - 1)^2 - 1 / sigma_t^2) / 2 ||x_0 - estimate(x_t)||^2.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from genai_cli.nn.random import RowRandom

DRAWS = 4  # of t for each example, one in each quarter of ln sigma

Estimate = Callable[[Tensor, Tensor], Tensor]  # x (B, ...) and t (B,) to an estimate of x_0 (B, ...)


def bits_per_dim(estimate: Estimate, x0: Tensor, random: RowRandom, levels: Tensor, *, bin_width: float) -> Tensor:
    """(B,) an unbiased estimate of the bound, for data (B, ...) in [-1, 1] on a grid of `bin_width`.

    `levels` (T + 1,) are sigma_0 = 0 to sigma_T. The sum over t is estimated from draws even in ln sigma, where its
    terms are alike. p(x_0 | x_1) is a Gaussian of standard deviation sigma_1 around the estimate, integrated over the
    bin of each value; the outermost bins reach to infinity.
    """
    levels = levels.to(x0)

    def noisy_estimate(t: Tensor) -> Tensor:
        sigma = levels[t].view(-1, *(1 for _ in x0.shape[1:]))
        return estimate(x0 + sigma * random.normal(*x0.shape[1:]), t)

    first = torch.ones(len(x0), dtype=torch.long, device=x0.device)
    nats = nats_of_start(x0, levels[-1]) + nats_of_bins(x0, noisy_estimate(first), levels[1], bin_width)
    if len(levels) > 2:
        offset = random.uniform()  # (B,)
        for draw in range(DRAWS):
            t, probability = draw_timestep((draw + offset) / DRAWS, levels)
            error = (x0 - noisy_estimate(t)).square().flatten(1).sum(1)
            gain = (levels[t - 1] ** -2 - levels[t] ** -2) / 2
            nats = nats + gain * error / probability / DRAWS
    return nats / (math.log(2) * x0[0].numel())


def draw_timestep(quantile: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
    """t in 2..T of each quantile (B,) in [0, 1), and its probability: the share of ln sigma that it spans."""
    logs = levels[1:].double().log()  # (T,), of t = 1..T
    place = logs[0] + quantile.double() * (logs[-1] - logs[0])
    t = torch.searchsorted(logs, place, right=True).clamp(1, len(logs) - 1) + 1
    share = (logs[t - 1] - logs[t - 2]) / (logs[-1] - logs[0])
    return t, share.to(levels)


def nats_of_start(x0: Tensor, sigma: Tensor) -> Tensor:
    """L_T (B,): both are of variance sigma^2, around x_0 and around 0."""
    return x0.flatten(1).square().sum(1) / (2 * sigma**2)


def nats_of_bins(x0: Tensor, mean: Tensor, std: Tensor, bin_width: float) -> Tensor:
    """L_0 (B,): - ln of the probability that a Gaussian gives to the bin of every value."""
    upper = torch.where(x0 > 1 - bin_width / 2, torch.inf, (x0 - mean + bin_width / 2) / std)
    lower = torch.where(x0 < -1 + bin_width / 2, -torch.inf, (x0 - mean - bin_width / 2) / std)
    # On the side of the mean where the distribution function is small, differences keep their digits.
    is_above = lower > 0
    upper, lower = torch.where(is_above, -lower, upper), torch.where(is_above, -upper, lower)
    mass = torch.special.ndtr(upper.double()) - torch.special.ndtr(lower.double())
    return -mass.clamp(min=1e-30).log().flatten(1).sum(1).to(x0)
