"""Norms of Jacobians, for penalties on how much an output moves with its input."""

import torch
from torch import Tensor


def jacobian_norm(output: Tensor, x: Tensor, noise: Tensor) -> Tensor:
    """An unbiased estimate of the squared Frobenius norm of d output / d x for each example, (B,); differentiable.

    `output` (B, M) is a function of `x` (B, ...) row by row, and `noise` (B, M) is standard normal. With J the Jacobian
    and v the noise, E |J^T v|^2 = trace(J^T J) (Hutchinson 1990).
    """
    (gradient,) = torch.autograd.grad((output * noise).sum(), x, create_graph=True)
    return gradient.flatten(1).square().sum(1)
