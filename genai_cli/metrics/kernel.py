"""Distances between two sets of features from the means of a kernel: KID, and the energy distance.

Neither assumes a Gaussian, and KID has no bias: its expectation is 0 for two samples of one distribution, at any size
(so that it may come out negative).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from genai_cli.metrics.bootstrap import REPLICATES, interval_around, resampling_counts

_ROWS = 1024  # of a kernel matrix held at a time
Kernel = Callable[[Tensor, Tensor], Tensor]  # (N, D), (M, D) -> (N, M)


def polynomial_kernel(x: Tensor, y: Tensor) -> Tensor:
    """k(x, y) = (x . y / D + 1)^3, the kernel of KID."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def negative_distance(x: Tensor, y: Tensor) -> Tensor:
    """k(x, y) = -|x - y|: conditionally positive definite, so that its discrepancy is the energy distance."""
    return -torch.cdist(x, y)


def kernel_distance(real: Tensor, fake: Tensor) -> float:
    """KID (Binkowski et al. 2018, arXiv:1801.01401, Eq. 4): the unbiased squared MMD with the polynomial kernel.

        mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{i, j} k(x_i, y_j)

    Over all pairs of the (N, D) and (M, D) features at once: no blocks, whose choice would be one more parameter.
    """
    return discrepancy(polynomial_kernel, real, fake)


def energy_distance(real: Tensor, fake: Tensor) -> float:
    """2 E|x - y| - E|x - x'| - E|y - y'| (Szekely & Rizzo 2013), without bias: 0 in the mean only if the two agree.

    Unlike KID and the Frechet distance, which compare three and two moments, it sees every difference between two
    distributions; meant for few dimensions.
    """
    return discrepancy(negative_distance, real, fake)


def discrepancy(kernel: Kernel, real: Tensor, fake: Tensor) -> float:
    """The unbiased squared maximum mean discrepancy of `kernel` (Gretton et al. 2012, Eq. 3)."""
    ones = torch.ones(1, len(real), dtype=torch.float64), torch.ones(1, len(fake), dtype=torch.float64)
    return _weighted(kernel, real, fake, *ones).item()


def discrepancy_interval(kernel: Kernel, value: float, real: Tensor, fake: Tensor, *, seed: int) -> tuple[float, float]:
    """95 % of `discrepancy`, both sets resampled; an example that is drawn twice makes no pair with itself."""
    real_counts = resampling_counts(REPLICATES, len(real), seed=seed)
    fake_counts = resampling_counts(REPLICATES, len(fake), seed=seed + 1)
    return interval_around(value, _weighted(kernel, real, fake, real_counts, fake_counts))


def _weighted(kernel: Kernel, real: Tensor, fake: Tensor, real_counts: Tensor, fake_counts: Tensor) -> Tensor:
    """(B,): the discrepancy with example i of each set counted `counts[b, i]` times."""
    real, fake = real.double(), fake.double()
    cross = _pair_sums(kernel, real, fake, real_counts, fake_counts)
    cross /= real_counts.sum(1) * fake_counts.sum(1)
    return _within(kernel, real, real_counts) + _within(kernel, fake, fake_counts) - 2 * cross


def _within(kernel: Kernel, x: Tensor, counts: Tensor) -> Tensor:
    """(B,): the mean of k over pairs of different examples."""
    same = counts.square()  # (B, N), pairs of an example with itself
    total = counts.sum(1).square() - same.sum(1)
    return (_pair_sums(kernel, x, x, counts, counts) - same @ _diagonal(kernel, x)) / total


def _diagonal(kernel: Kernel, x: Tensor) -> Tensor:
    """(N,): k(x_i, x_i)."""
    return torch.cat([kernel(block, block).diagonal() for block in x.split(_ROWS)])


def _pair_sums(kernel: Kernel, x: Tensor, y: Tensor, x_counts: Tensor, y_counts: Tensor) -> Tensor:
    """(B,): sum over i and j of x_counts[b, i] k(x_i, y_j) y_counts[b, j]."""
    sums = torch.zeros(len(x_counts), dtype=torch.float64)
    for start in range(0, len(x), _ROWS):
        block = slice(start, start + _ROWS)
        sums += (x_counts[:, block] @ kernel(x[block], y) * y_counts).sum(1)
    return sums
