"""How far a number would move on other data of the same kind: 95 % intervals by resampling (Efron 1979).

A statistic is given as a function of counts: row b of `counts` (B, N) says how often each of the N examples is drawn
in replicate b. So nothing is copied, and a statistic over pairs can leave out the pairs of an example with itself.

Of a share the resampled values are binomial: Wilson's interval (1927) needs no draws, stays within 0 and 1, and is not
empty where all examples agree.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

REPLICATES = 200
OF_SHARES = "none: Wilson's interval of a share"  # what a protocol says of `share_interval`
COVERAGE = 0.95
_BLOCK = 1 << 24  # numbers of a block of counts


def resampling_counts(num_replicates: int, size: int, *, seed: int) -> Tensor:
    """(B, N) float64: how often each of `size` examples is among `size` draws with replacement; rows sum to N."""
    generator = torch.Generator().manual_seed(seed)
    counts = torch.empty(num_replicates, size, dtype=torch.float64)
    for row in counts:
        drawn = torch.randint(size, (size,), generator=generator)
        row.copy_(torch.bincount(drawn, minlength=size))
    return counts


def interval_around(value: float, replicates: Tensor) -> tuple[float, float]:
    """The 95 % spread of `replicates` (B,) about their own mean, laid around `value`.

    About their own mean: a replicate repeats examples, which biases distances upward by about as much as the value
    itself is biased. The interval is for the same figure at the same number of examples.
    """
    tail = (1 - COVERAGE) / 2
    low, high = torch.quantile(replicates.double(), torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    mean = replicates.double().mean().item()
    return value + (low - mean), value + (high - mean)


def resampled_interval(
    value: float, statistic: Callable[[Tensor], float], size: int, *, seed: int, num_replicates: int = REPLICATES
) -> tuple[float, float]:
    """95 % of `statistic(rows)`, which is `value` of all rows and is asked for rows (N,) drawn with replacement."""
    generator = torch.Generator().manual_seed(seed)
    draws = (torch.randint(size, (size,), generator=generator) for _ in range(num_replicates))
    return interval_around(value, torch.tensor([statistic(rows) for rows in draws]))


def share_interval(values: Tensor) -> tuple[float, float]:
    """95 % of a share, by Wilson's score, of `values` (N,) that are 0, 1 or (a tie) between."""
    count, share = len(values), values.double().mean().item()
    z = 1.959964
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    reach = z / (1 + z**2 / count) * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return min(share, max(0.0, centre - reach)), max(share, min(1.0, centre + reach))


def standard_error(values: Tensor, *, weight: Tensor | None = None) -> float:
    """Of the mean of `values` (N,), weighted by `weight` (N,): s / sqrt(N) where all weights are the same.

    Else that of a ratio of sums (Cochran 1977, chapter 6): sqrt(N / (N - 1) sum w^2 (x - mean)^2) / sum w. NaN of one.
    """
    values = values.double().cpu()
    weight = torch.ones_like(values) if weight is None else weight.double().cpu()
    if len(values) < 2:
        return math.nan
    mean = (weight * values).sum() / weight.sum()
    spread = (weight * (values - mean)).square().sum() * len(values) / (len(values) - 1)
    return (spread.sqrt() / weight.sum()).item()


def mean_interval(
    values: Tensor, *, seed: int, weight: Tensor | None = None, num_replicates: int = REPLICATES
) -> tuple[float, float]:
    """Of the mean of `values` (N,), weighted by `weight` (N,): windows of text count by their targets."""
    values = values.double().cpu()
    weight = torch.ones_like(values) if weight is None else weight.double().cpu()
    mean = ((weight * values).sum() / weight.sum()).item()
    replicates = []
    rows = max(1, _BLOCK // len(values))
    for start in range(0, num_replicates, rows):
        counts = resampling_counts(min(rows, num_replicates - start), len(values), seed=seed + start)  # (b, N)
        replicates.append((counts @ (weight * values)) / (counts @ weight))
    return interval_around(mean, torch.cat(replicates))
