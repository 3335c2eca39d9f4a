"""Maximum mean discrepancy between two samples (Gretton et al. 2012), with the kernel of Wasserstein autoencoders."""

import torch
from torch import Tensor

SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


def mmd(x: Tensor, y: Tensor) -> Tensor:
    """The square of the discrepancy between samples (N, D) each, a scalar; zero in the mean if they are of one law.

    The unbiased estimate of Tolstikhin et al. 2018 (arXiv:1711.01558, Algorithm 2), with a sum of the kernels
    k(a, b) = C / (C + ||a - b||^2) of several C = 2 D s: 2 D is the mean squared distance of two draws of N(0, I).
    """
    count = len(x)
    if count < 2:
        raise ValueError("a discrepancy needs two examples at least: a larger train.batch_size")
    off_diagonal = ~torch.eye(count, dtype=torch.bool, device=x.device)
    within = (kernel(x, x) + kernel(y, y))[off_diagonal].sum() / (count * (count - 1))
    return within - 2 * kernel(x, y).mean()


def kernel(x: Tensor, y: Tensor) -> Tensor:
    """(N, D) and (M, D) to (N, M)."""
    squared = (x[:, None] - y).square().sum(2)  # exact where two are near, unlike ||a||^2 - 2 a b + ||b||^2
    total = torch.zeros_like(squared)
    for scale in SCALES:
        constant = 2 * x.shape[1] * scale
        total = total + constant / (constant + squared)
    return total
