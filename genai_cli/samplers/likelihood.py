"""The likelihood of a diffusion model, by its probability flow (Song et al. 2020, arXiv:2011.13456, Sec. 4.3 and D.2).

The flow carries data to noise by an ordinary differential equation, and ln p(x_0) is the log density of where x_0 ends
up, normal, plus the divergence that it meets on the way. In u = ln sigma of the contract of `solvers.py` it is
dx / du = x - denoise(x, sigma). What is integrated is y = x / sqrt(1 + sigma^2), which stays of the size of the data:

    dy / du = (x / (1 + sigma^2) - denoise(x, sigma)) / sqrt(1 + sigma^2),    d ln p(y) / du = - div dy / du.
"""

import math

import torch
from torch import Tensor

from genai_cli.nn.random import RowRandom
from genai_cli.samplers.solvers import Denoise

STEPS = 16  # of the classical Runge-Kutta method: 64 evaluations
EXACT_TRACE = 8  # coordinates up to which the divergence is computed exactly, one backward pass for each


def negative_log_likelihood(
    denoise: Denoise, x: Tensor, random: RowRandom, *, sigma_min: float, sigma_max: float
) -> dict[str, Tensor]:
    """`nll` (B,) in nats of data (B, ...), and how much it differs from that of half the steps, `nll_step_error`.

    That is the density of the data with noise of `sigma_min`. Beyond 8 coordinates the divergence is Hutchinson's
    estimate from one draw of signs for each row: right on average, with noise of its own.
    """
    probes = draw_probes(x, random)
    fine, coarse = (
        log_likelihood(denoise, x, probes, sigma_min=sigma_min, sigma_max=sigma_max, steps=steps)
        for steps in (STEPS, STEPS // 2)
    )
    return {"nll": -fine, "nll_step_error": (fine - coarse).abs()}


def draw_probes(x: Tensor, random: RowRandom) -> Tensor:
    """(P, B, ...): vectors p with sum_p p p^T = I, exactly for few coordinates, else on average."""
    dim = x[0].numel()
    if dim <= EXACT_TRACE:
        return torch.eye(dim, device=x.device).view(dim, 1, *x.shape[1:]).expand(-1, *x.shape)
    return 2.0 * (random.uniform(*x.shape[1:]) < 0.5)[None] - 1


def log_likelihood(
    denoise: Denoise, x: Tensor, probes: Tensor, *, sigma_min: float, sigma_max: float, steps: int
) -> Tensor:
    """ln p(x) (B,) in nats, by `steps` of the classical Runge-Kutta method, even in ln sigma; fourth order."""
    h = math.log(sigma_max / sigma_min) / steps
    y = x / math.sqrt(1 + sigma_min**2)
    divergence = x.new_zeros(len(x))
    for step in range(steps):
        u = math.log(sigma_min) + step * h
        k1, d1 = flow(denoise, y, u, probes)
        k2, d2 = flow(denoise, y + h / 2 * k1, u + h / 2, probes)
        k3, d3 = flow(denoise, y + h / 2 * k2, u + h / 2, probes)
        k4, d4 = flow(denoise, y + h * k3, u + h, probes)
        y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        divergence = divergence + h / 6 * (d1 + 2 * d2 + 2 * d3 + d4)
    std = sigma_max / math.sqrt(1 + sigma_max**2)  # of y at the end
    log_normal = -0.5 * (y.flatten(1) / std).square() - 0.5 * math.log(2 * math.pi) - math.log(std)
    return (log_normal - 0.5 * math.log(1 + sigma_min**2)).sum(1) + divergence  # the density of x, not of y


def flow(denoise: Denoise, y: Tensor, u: float, probes: Tensor) -> tuple[Tensor, Tensor]:
    """dy / du (B, ...) and its divergence sum_p p^T J p (B,) at u = ln sigma."""
    sigma = math.exp(u)
    size = math.sqrt(1 + sigma**2)
    with torch.enable_grad():
        y = y.detach().requires_grad_()
        slope = y / size**2 - denoise(size * y, sigma) / size
        divergence = y.new_zeros(len(y))
        for probe in probes:
            (along,) = torch.autograd.grad(slope, y, probe, retain_graph=True)
            divergence += (along * probe).flatten(1).sum(1)
    return slope.detach(), divergence
