"""Samplers of diffusion: from noise to data by way of falling noise levels, as plain functions of a denoiser.

One contract for all models: `denoise(x, sigma)` is an estimate of x_0 (B, ...) given x = x_0 + sigma eps (B, ...), for
one number sigma > 0. A process that also shrinks the data, x_t = alpha_t x_0 + sigma_t eps, is this one in the
coordinates x_t / alpha_t with sigma = sigma_t / alpha_t (Karras et al. 2022, EDM, arXiv:2206.00364, Sec. 2, table 1).

Every solver takes `denoise`, x at sigmas[0], and the levels that it visits, falling, of which the last may be 0.
A deterministic one follows the probability flow dx / dsigma = (x - denoise(x, sigma)) / sigma (Eq. 3).
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from genai_cli.nn.random import RowRandom

Denoise = Callable[[Tensor, float], Tensor]
Solver = Literal["ddpm", "ddim", "euler", "heun", "dpmpp_2m", "unipc"]


def solve(
    solver: Solver, denoise: Denoise, x: Tensor, sigmas: Sequence[float], *, random: RowRandom,
    eta: float | None = None, churn: float | None = None,
) -> Tensor:  # fmt: skip
    """Run the solver of that name. Raises ValueError for an option that it does not have."""
    if eta is not None and solver != "ddim":
        own = ": solver=ddpm has its own noise, that of eta=1" if solver == "ddpm" else ""
        raise ValueError(f"eta={eta} belongs to solver=ddim, not to solver={solver}{own}")
    if churn is not None and solver not in ("euler", "heun"):
        raise ValueError(f"churn={churn} belongs to solver=euler and solver=heun, not to solver={solver}")
    match solver:
        case "ddpm":
            return ddim(denoise, x, sigmas, random=random, eta=1.0)
        case "ddim":
            return ddim(denoise, x, sigmas, random=random, eta=eta or 0.0)
        case "euler":
            return euler(denoise, x, sigmas, random=random, churn=churn or 0.0)
        case "heun":
            return heun(denoise, x, sigmas, random=random, churn=churn or 0.0)
        case "dpmpp_2m":
            return dpmpp_2m(denoise, x, sigmas)
    return unipc(denoise, x, sigmas)


def count_steps(
    solver: Solver, default: int, *, steps: int | None, evaluations: int | None, is_completed: bool = False
) -> int:
    """How many steps to take down to sigma = 0: `steps`, or the most that ask the network at most `evaluations` times.

    `heun` asks twice a step but for the last, the others once; what completes given data (`is_completed`) is no solver.
    Raises ValueError for options that exclude each other.
    """
    if evaluations is None:
        return steps or default
    if steps is not None:
        raise ValueError(f"steps={steps} and evaluations={evaluations} both say how long sampling takes: give one")
    if is_completed:
        raise ValueError(
            f"evaluations={evaluations} counts those of a solver, and what completes given data has none: give steps"
        )
    return (evaluations + 1) // 2 if solver == "heun" else evaluations


def ddim(denoise: Denoise, x: Tensor, sigmas: Sequence[float], *, random: RowRandom, eta: float = 0.0) -> Tensor:
    """Song et al. 2020 (arXiv:2010.02502, Eq. 12), of first order.

    eta = 0 is deterministic and asks `random` for nothing. eta = 1 samples the reverse chain of Ho et al. 2020
    (arXiv:2006.11239, Algorithm 2), with the variance of the posterior (Eq. 7).
    """
    for sigma, lower in pairwise(sigmas):
        x0 = denoise(x, sigma)
        fresh = eta**2 * posterior_variance(sigma, lower)
        x = x0 + math.sqrt(lower**2 - fresh) / sigma * (x - x0)
        if fresh > 0:
            x = x + math.sqrt(fresh) * random.normal(*x.shape[1:])
    return x


def posterior_variance(sigma: float, lower: float) -> float:
    """Of q(x at `lower` | x at `sigma`, x_0), whose mean lies at (lower / sigma)^2 of the way from x_0 to x."""
    return lower**2 * (1 - (lower / sigma) ** 2)


def euler(denoise: Denoise, x: Tensor, sigmas: Sequence[float], *, random: RowRandom, churn: float = 0.0) -> Tensor:
    """First order. Without churn the same as `ddim`: a step is a straight line in these coordinates."""
    for sigma, lower in pairwise(sigmas):
        x, sigma = add_noise(x, sigma, churn / (len(sigmas) - 1), random)
        x = toward(denoise(x, sigma), x, sigma, lower)
    return x


def heun(denoise: Denoise, x: Tensor, sigmas: Sequence[float], *, random: RowRandom, churn: float = 0.0) -> Tensor:
    """Second order, two evaluations a step but for one to sigma = 0 (Karras et al. 2022, Algorithms 1 and 2).

    `churn` is S_churn, with S_tmin = 0, S_tmax infinite and S_noise = 1.
    """
    for sigma, lower in pairwise(sigmas):
        x, sigma = add_noise(x, sigma, churn / (len(sigmas) - 1), random)
        x0 = denoise(x, sigma)
        ahead = toward(x0, x, sigma, lower)
        if lower > 0:
            slopes = (x - x0) / sigma + (ahead - denoise(ahead, lower)) / lower  # Eq. 3, at both ends
            ahead = x + (lower - sigma) / 2 * slopes
        x = ahead
    return x


def toward(x0: Tensor, x: Tensor, sigma: float, lower: float) -> Tensor:
    """Euler's step of Eq. 3: along the straight line to x_0, and exactly there at 0."""
    return x0 + lower / sigma * (x - x0)


def add_noise(x: Tensor, sigma: float, churn: float, random: RowRandom) -> tuple[Tensor, float]:
    """Raise the noise level by the share `churn`, at most sqrt(2) - 1, with fresh noise (Algorithm 2, lines 4 to 6)."""
    if churn == 0:
        return x, sigma
    higher = sigma * (1 + min(churn, math.sqrt(2) - 1))
    return x + math.sqrt(higher**2 - sigma**2) * random.normal(*x.shape[1:]), higher


def dpmpp_2m(denoise: Denoise, x: Tensor, sigmas: Sequence[float]) -> Tensor:
    """DPM-Solver++(2M) (Lu et al. 2022, arXiv:2211.01095, Algorithm 2): second order, one evaluation a step.

    In the time -log sigma, the denoised data are extrapolated from two steps to the middle of the next. The first
    step, and one to sigma = 0, are of first order.
    """
    before, h_before = None, 0.0
    for sigma, lower in pairwise(sigmas):
        x0 = denoise(x, sigma)
        if lower == 0:
            return x0
        h = math.log(sigma / lower)
        middle = x0 if before is None else x0 + h / (2 * h_before) * (x0 - before)
        x = lower / sigma * x - math.expm1(-h) * middle
        before, h_before = x0, h
    return x


def unipc(denoise: Denoise, x: Tensor, sigmas: Sequence[float], *, order: int = 3) -> Tensor:
    """UniPC (Zhao et al. 2023, arXiv:2302.04867): predictor of `order`, corrector of one more, one evaluation a step.

    The denoised data at the steps behind are taken for a polynomial of -log sigma, and the flow is then integrated
    exactly; after the evaluation at the end of a step, the step is corrected with it (Algorithms 1 and 2, in data
    prediction). The paper's B(h) cancels, for its linear system is solved exactly at every order.
    The order builds up over the first steps; a step to sigma = 0 is of first order, and the last is not corrected.
    """
    behind: list[tuple[float, Tensor]] = []  # (-log sigma, x_0), the latest first
    num_steps = len(sigmas) - 1
    x0 = denoise(x, sigmas[0])
    for i, (sigma, lower) in enumerate(pairwise(sigmas)):
        if lower == 0:
            return x0
        now = -math.log(sigma)
        behind = [(now, x0), *behind][:order]
        ahead = exponential_step(x, now, -math.log(lower), behind)
        if i == num_steps - 1:
            return ahead
        x0 = denoise(ahead, lower)
        x = exponential_step(x, now, -math.log(lower), [(-math.log(lower), x0), *behind])
    return x


def exponential_step(x: Tensor, now: float, then: float, nodes: Sequence[tuple[float, Tensor]]) -> Tensor:
    """The flow from time `now` to `then`, both -log sigma, if x_0 is the polynomial through `nodes` (time, x_0).

    x(then) = e^-h x + sum_j w_j x0_j with h = then - now, and w such that every power of u = (time - now) / h comes
    out as its integral I_k = int_0^1 h e^(-h (1 - u)) u^k du; by parts, I_0 = 1 - e^-h and I_k = 1 - k / h I_(k - 1).
    """
    h = then - now
    u = torch.tensor([(time - now) / h for time, _ in nodes], dtype=torch.float64)
    integrals = [-math.expm1(-h)]
    for k in range(1, len(nodes)):
        integrals.append(1 - k / h * integrals[-1])
    powers = torch.stack([u**k for k in range(len(nodes))])  # (order, order)
    weights = torch.linalg.solve(powers, torch.tensor(integrals, dtype=torch.float64)).tolist()
    return math.exp(-h) * x + sum(weight * x0 for weight, (_, x0) in zip(weights, nodes, strict=True))
