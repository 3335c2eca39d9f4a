"""How well draws of what comes next foretell it: a proper score of all of them, and the error of their median."""

import torch
from torch import Tensor


def crps(draws: Tensor, truth: Tensor) -> Tensor:
    """(S, ...), at least two, and (...) to (...): the continuous ranked probability score, lowest for the true spread.

    E|x - y| - E|x - x'| / 2 (Gneiting & Raftery 2007, Eq. 21), the second mean over pairs of different draws, so that
    few draws are not judged worse (Ferro 2014). Of a single forecast it is the absolute error.
    """
    count = len(draws)
    ordered = draws.double().sort(0).values
    rank = torch.arange(count, dtype=torch.float64, device=draws.device).view(-1, *(1 for _ in truth.shape))
    between = (2 * (2 * rank - count + 1) * ordered).sum(0) / (count * (count - 1))  # E|x - x'| of different draws
    return (draws.double() - truth).abs().mean(0) - between / 2


def median_error(draws: Tensor, truth: Tensor) -> Tensor:
    """(S, ...) and (...) to (...): how far the median of the draws is from the truth."""
    return (draws.double().quantile(0.5, dim=0) - truth).abs()
