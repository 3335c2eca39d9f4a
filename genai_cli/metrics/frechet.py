"""The Frechet distance between two sets of features, each taken for a Gaussian (Dowson & Landau 1982).

    d^2 = |mu_1 - mu_2|^2 + tr(S_1) + tr(S_2) - 2 tr((S_1 S_2)^(1/2))

Heusel et al. 2017 (arXiv:1706.08500) apply it to features of the Inception network and call it FID. Only with those
features is it that: every other network gives another number.

The product S_1 S_2 is not symmetric: its matrix square root, taken in floating point, comes out complex where a
covariance lacks full rank. It has the eigenvalues of S_1^(1/2) S_2 S_1^(1/2), which is symmetric and positive
semi-definite: the trace is the sum of the roots of those, real and finite for any number of examples.

With N examples of D features the distance of a distribution to itself is not 0 but of the order of D / N times the
variance of the features: compare at equal N, and with the distance between two halves of the data.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from genai_cli.metrics.bootstrap import interval_around, resampling_counts


@dataclass(frozen=True)
class Moments:
    """The mean (D,) and the covariance (D, D) of `count` examples, in float64."""

    mean: Tensor
    covariance: Tensor
    count: int


def moments(features: Tensor, counts: Tensor | None = None) -> Moments:
    """Of `features` (N, D), example i counted `counts[i]` times; the covariance is the unbiased one."""
    features = features.double()
    counts = torch.ones(len(features), dtype=torch.float64) if counts is None else counts
    total = counts.sum()
    mean = counts @ features / total
    centred = features - mean
    covariance = (centred * counts[:, None]).T @ centred / (total - 1).clamp(min=1)
    return Moments(mean, covariance, int(total))


def frechet_distance(one: Moments, other: Moments) -> float:
    """The squared distance above; at least 0."""
    root = symmetric_root(one.covariance)
    product = root @ other.covariance @ root  # (D, D), symmetric up to rounding
    eigenvalues = torch.linalg.eigvalsh((product + product.T) / 2)
    overlap = drop_rounding(eigenvalues).sqrt().sum()
    distance = (one.mean - other.mean).square().sum() + one.covariance.trace() + other.covariance.trace() - 2 * overlap
    return max(0.0, distance.item())


def symmetric_root(matrix: Tensor) -> Tensor:
    """The symmetric square root of a positive semi-definite (D, D) matrix."""
    eigenvalues, axes = torch.linalg.eigh(matrix)
    return (axes * drop_rounding(eigenvalues).sqrt()) @ axes.T


def drop_rounding(eigenvalues: Tensor) -> Tensor:
    """The eigenvalues (D,) with those that are zero but for rounding, of either sign, made zero."""
    threshold = eigenvalues.abs().max() * len(eigenvalues) * torch.finfo(eigenvalues.dtype).eps
    return eigenvalues.where(eigenvalues > threshold, torch.zeros_like(eigenvalues))


def frechet_interval(
    value: float, real: Tensor, fake: Tensor, *, seed: int, num_replicates: int
) -> tuple[float, float]:
    """95 % of the distance between `real` (N, D) and `fake` (M, D), both resampled."""
    real_counts = resampling_counts(num_replicates, len(real), seed=seed)
    fake_counts = resampling_counts(num_replicates, len(fake), seed=seed + 1)
    replicates = [
        frechet_distance(moments(real, of_real), moments(fake, of_fake))
        for of_real, of_fake in zip(real_counts, fake_counts, strict=True)
    ]
    low, high = interval_around(value, torch.tensor(replicates))
    return max(0.0, low), high


def num_replicates(num_features: int) -> int:
    """As many as take seconds: an eigenvalue problem grows with the cube of the features."""
    return 200 if num_features <= 128 else 40 if num_features <= 512 else 10


def why_doubtful(num_features: int, *counts: int) -> str | None:
    """A reason not to believe a distance measured with so few examples, or None."""
    least = min(counts)
    if least >= 2 * num_features:
        return None
    rank = "below full rank" if least <= num_features else "hardly of full rank"
    return f"{least} examples are too few for {num_features} features: the covariance is {rank} and the distance biased"
