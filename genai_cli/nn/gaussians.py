"""Diagonal Gaussians as variational autoencoders use them: draws, densities and divergences, in nats.

Everything takes a mean `mu` and a log variance `logvar`, and sums over the last dimension.
"""

import math

import torch
from torch import Tensor

from genai_cli.nn.random import RowRandom
from genai_cli.nn.ranks import mean_over_ranks

LOG_2PI = math.log(2 * math.pi)


def reparameterise(mu: Tensor, logvar: Tensor, noise: Tensor) -> Tensor:
    """mu + sigma * noise: a draw for standard normal `noise`, differentiable in mu and logvar."""
    return mu + torch.exp(0.5 * logvar) * noise


def log_normal(z: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    """log N(z; mu, diag(exp(logvar))), (..., D) to (...)."""
    return -0.5 * ((z - mu).square() * torch.exp(-logvar) + logvar + LOG_2PI).sum(-1)


def log_standard_normal(z: Tensor) -> Tensor:
    """log N(z; 0, I), (..., D) to (...)."""
    return -0.5 * (z.square() + LOG_2PI).sum(-1)


def kl_per_coordinate(
    mu: Tensor, logvar: Tensor, prior_mu: Tensor | float = 0.0, prior_logvar: Tensor | float = 0.0
) -> Tensor:
    """KL(N(mu, exp(logvar)) || N(prior_mu, exp(prior_logvar))) of each coordinate, in the shape of `mu`."""
    gap = logvar - prior_logvar
    scaled = (mu - prior_mu).square() * torch.exp(-torch.as_tensor(prior_logvar))
    return 0.5 * (scaled + torch.expm1(gap) - gap)


def standard_kl_per_coordinate(mu: Tensor, logvar: Tensor) -> Tensor:
    """`kl_per_coordinate` to N(0, 1), in a third of its operations (Kingma & Welling 2014, Appendix B)."""
    return 0.5 * (mu.square() + torch.expm1(logvar) - logvar)


def kl_to_standard_normal(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mu, diag(exp(logvar))) || N(0, I)), (..., D) to (...)."""
    return standard_kl_per_coordinate(mu, logvar).sum(-1)


def active_units(mu: Tensor, again: Tensor | None = None, *, least: float = 0.01) -> int:
    """How many coordinates of the posteriors' means (N, D) vary with the data: variance above `least`.

    The measure of posterior collapse of Burda et al. 2016 (arXiv:1509.00519, Section 5.2). Means that are themselves
    estimated from draws are given twice, each time from other draws: the covariance of the two is free of their noise.
    """
    if again is None:
        return int((mu.var(0, correction=0) > least).sum())
    return int((((mu - mu.mean(0)) * (again - again.mean(0))).mean(0) > least).sum())


def mutual_information(z: Tensor, mu: Tensor, logvar: Tensor) -> float:
    """E log q(z | x) / q(z) for draws z (N, D) of N posteriors whose mean is q(z), in nats: at most log N.

    What a code tells of its example, the KL term less the distance of all codes together from the prior (Hoffman &
    Johnson 2016).
    """
    log_joint = [log_normal(row, mu, logvar).logsumexp(0) for row in z]  # (N,) each time, N rows
    return (log_normal(z, mu, logvar) - torch.stack(log_joint) + math.log(len(z))).mean().item()


def code_usage(mu: Tensor, logvar: Tensor, random: RowRandom) -> dict[str, float]:
    """`active_units` and `mutual_information` of the posteriors of N examples, (N, D) each, with one draw from each."""
    z = reparameterise(mu, logvar, random.normal(mu.shape[1]))
    return {"active_units": active_units(mu), "mutual_information": mutual_information(z, mu, logvar)}


def risen(step: int, warmup: int) -> float:
    """The share of a KL term's weight that counts in step number `step`: all of it from the end of a warm-up on."""
    return min(1.0, (step + 1) / max(1, warmup))


def with_free_bits(kl: Tensor, free_bits: float) -> Tensor:
    """sum_d max(free_bits, mean over the batch of kl[:, d]), a scalar, for `kl` (B, D).

    A coordinate below the threshold is not pulled any further towards the prior: the "free bits", here in nats, of
    Kingma et al. 2016 (arXiv:1606.04934, Eq. 15), each coordinate being a subset of its own.
    """
    return mean_over_ranks(kl.mean(0)).clamp(min=free_bits).sum()
