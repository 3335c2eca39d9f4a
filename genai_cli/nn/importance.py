"""The importance-weighted bound (Burda et al. 2016, arXiv:1509.00519), which tightens towards log p(x) with k."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

AT_ONCE = 32  # draws for each example; bounds the memory


def log_mean_exp(log_weights: Tensor) -> Tensor:
    """log 1/k sum_i w_i from log w, (k, B) to (B,): its mean over draws is a bound of log p(x) (Eq. 8)."""
    return log_weights.logsumexp(0) - math.log(len(log_weights))


def bound_of_draws(log_weights: Callable[[int], Tensor], num_samples: int) -> dict[str, Tensor]:
    """The figure of `evaluate importance_samples=K`, {"negative_iw_bound_K": (B,)}; none where K is 0."""
    if not num_samples:
        return {}
    return {f"negative_iw_bound_{num_samples}": -importance_weighted_bound(log_weights, num_samples)}


def importance_weighted_bound(log_weights: Callable[[int], Tensor], num_samples: int) -> Tensor:
    """`log_mean_exp` of k = `num_samples` ratios p(x, z) / q(z | x) for each example, (B,).

    `log_weights(n)` gives the logarithms of n new ratios for each example, (n, B). It is asked for them in parts, of
    which only the running sum is kept.
    """
    parts = []
    for start in range(0, num_samples, AT_ONCE):
        parts.append(log_weights(min(AT_ONCE, num_samples - start)).logsumexp(0))  # (B,)
    return torch.stack(parts).logsumexp(0) - math.log(num_samples)


class DrawScale:
    """Multiplies what comes back through a draw by its normalised weight, which is known once all draws are weighed.

    The doubly reparameterised gradient of Tucker et al. 2019 (arXiv:1810.04152, Eq. 8): sum_i w~_i^2 d log w_i / dh_i
    dh_i / dphi. The loss log_mean_exp(log w) gives one factor w~_i; `weights` (k, B), set before the backward pass, are
    the other.
    """

    weights: Tensor

    def __call__(self, draws: Tensor) -> Tensor:
        """(k, B, D), the same numbers."""
        scaled = draws.view_as(draws)
        if scaled.requires_grad:
            scaled.register_hook(lambda gradient: gradient * self.weights.unsqueeze(-1).to(gradient))
        return scaled
