"""Sums over the processes of a run, for layers whose statistics are of the whole batch and not of one rank's share."""

import torch
import torch.distributed as dist
from torch import Tensor


def has_many_ranks() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def sum_over_ranks(x: Tensor) -> Tensor:
    """The elementwise sum of every rank's `x`, the same on each; differentiable, any number of times.

    Every rank must make the same calls in the same order, in backward too. With one process it is `x` itself.
    """
    return _SumOverRanks.apply(x) if has_many_ranks() else x


def mean_over_ranks(x: Tensor) -> Tensor:
    """The elementwise mean of every rank's `x`: of a mean over a rank's rows, the mean over the whole batch."""
    return sum_over_ranks(x) / dist.get_world_size() if has_many_ranks() else x


def gather_over_ranks(x: Tensor) -> Tensor:
    """The rows of every rank in their order, (R B, ...), for `x` (B, ...) of as many rows on each; differentiable."""
    if not has_many_ranks():
        return x
    rank, size = dist.get_rank(), dist.get_world_size()
    before, after = x.new_zeros(rank * len(x), *x.shape[1:]), x.new_zeros((size - 1 - rank) * len(x), *x.shape[1:])
    return sum_over_ranks(torch.cat([before, x, after]))


def own_rows(everyone: Tensor, count: int) -> Tensor:
    """This rank's `count` rows of what `gather_over_ranks` gave."""
    start = dist.get_rank() * count if has_many_ranks() else 0
    return everyone[start : start + count]


class _SumOverRanks(torch.autograd.Function):
    """y = sum_r x_r on every rank. If L_r is rank r's loss, then d(sum_r L_r)/dx_s = sum_r dL_r/dy: the same map."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return _SumOverRanks.apply(gradient)
