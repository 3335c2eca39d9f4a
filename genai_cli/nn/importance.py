"""The importance-weighted bound (Burda et al. 2016, arXiv:1509.00519), which tightens towards log p(x) with k."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

AT_ONCE = 32  # draws for each example; bounds the memory


def log_mean_exp(log_weights: Tensor) -> Tensor:
    """log 1/k sum_i w_i from log w, (k, B) to (B,): its mean over draws is a bound of log p(x) (Eq. 8)."""
    return log_weights.logsumexp(0) - math.log(len(log_weights))


def importance_weighted_bound(log_weights: Callable[[int], Tensor], num_samples: int) -> Tensor:
    """`log_mean_exp` of k = `num_samples` ratios p(x, z) / q(z | x) for each example, (B,).

    `log_weights(n)` gives the logarithms of n new ratios for each example, (n, B). It is asked for them in parts, of
    which only the running sum is kept.
    """
    parts = []
    for start in range(0, num_samples, AT_ONCE):
        parts.append(log_weights(min(AT_ONCE, num_samples - start)).logsumexp(0))  # (B,)
    return torch.stack(parts).logsumexp(0) - math.log(num_samples)
