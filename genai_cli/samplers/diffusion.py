"""Gaussian diffusion in discrete time: noise schedules, what a network may predict, and samplers.

Notation of Salimans & Ho 2022 (arXiv:2202.00512): x_t = alpha_t x_0 + sigma_t eps with alpha_t^2 + sigma_t^2 = 1, and
t runs from 0 (clean data) to T. A schedule is the tensor `alpha_bar` (T + 1,) in float64, alpha_bar[t] = alpha_t^2, the
quantity that Ho et al. 2020 (arXiv:2006.11239) write with a bar.

A sampler is a plain function of `denoise(x_t, t)`, an estimate of x_0 of the shape of `x_t` (B, ...) for an integer t.
"""

import itertools
import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from genai_cli.nn.random import RowRandom

Denoise = Callable[[Tensor, int], Tensor]
Objective = Literal["eps", "x0", "v"]


# Schedules


def linear_schedule(num_timesteps: int) -> Tensor:
    """beta from 1e-4 to 0.02 in 1000 steps (Ho et al. 2020, Sec. 4); another T walks the same curve in T strides."""
    log_alpha_bar = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64).neg().log1p().cumsum(0)  # (1000,)
    log_alpha_bar = torch.cat([log_alpha_bar.new_zeros(1), log_alpha_bar])  # (1001,)
    position = torch.linspace(0, 1000, num_timesteps + 1, dtype=torch.float64)
    before = position.long().clamp(max=999)
    return log_alpha_bar[before].lerp(log_alpha_bar[before + 1], position - before).exp()


def cosine_schedule(num_timesteps: int) -> Tensor:
    """alpha_bar a squared cosine (Nichol & Dhariwal 2021, arXiv:2102.09672, Eq. 17), with no beta above 0.999."""
    t = torch.arange(num_timesteps + 1, dtype=torch.float64) / num_timesteps
    f = torch.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2
    beta = (1 - f[1:] / f[:-1]).clamp(max=0.999)
    return torch.cat([beta.new_ones(1), (1 - beta).cumprod(0)])


SCHEDULES: dict[str, Callable[[int], Tensor]] = {"linear": linear_schedule, "cosine": cosine_schedule}


# What a network predicts


def prediction_target(objective: Objective, x0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """What the network should have said. The velocity is v = alpha eps - sigma x_0 (Salimans & Ho 2022, Sec. 4)."""
    if objective == "eps":
        return eps
    return x0 if objective == "x0" else alpha * eps - sigma * x0


def prediction_to_x0(objective: Objective, prediction: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """What a prediction about x_t says of x_0."""
    if objective == "eps":
        return (x_t - sigma * prediction) / alpha
    return prediction if objective == "x0" else alpha * x_t - sigma * prediction


def min_snr_weight(objective: Objective, alpha: Tensor, sigma: Tensor, *, gamma: float) -> Tensor:
    """The weight of a squared error that counts as min(SNR, gamma) on x_0 (Hang et al. 2023, arXiv:2303.09556).

    An error of eps is one of x_0 times SNR = alpha^2 / sigma^2, an error of v one times SNR + 1.
    """
    snr = (alpha / sigma) ** 2
    on_x0 = snr.clamp(max=gamma)
    return {"x0": on_x0, "eps": on_x0 / snr, "v": on_x0 / (snr + 1)}[objective]


# Samplers


def ancestral(denoise: Denoise, noise: Tensor, alpha_bar: Tensor, *, steps: int, random: RowRandom) -> Tensor:
    """Sample the reverse chain (Ho et al. 2020, Algorithm 2, with the variance of the posterior), in `steps` of T.

    `noise` is (B, ...) standard normal. `random` is asked for one normal of the same shape a step, but for the last.
    """
    x = noise
    for t, s in spaced_timesteps(len(alpha_bar) - 1, steps):
        mean, variance = posterior(denoise(x, t), x, float(alpha_bar[t]), float(alpha_bar[s]))
        x = mean if s == 0 else mean + math.sqrt(variance) * random.normal(*x.shape[1:])
    return x


def posterior(x0: Tensor, x_t: Tensor, alpha_bar_t: float, alpha_bar_s: float) -> tuple[Tensor, float]:
    """Mean and variance of q(x_s | x_t, x_0) for s < t (Ho et al. 2020, Eqs. 6 and 7, where s = t - 1)."""
    step = alpha_bar_t / alpha_bar_s  # what is left of the signal's power between s and t: the paper's alpha_t
    of_x0 = math.sqrt(alpha_bar_s) * (1 - step) / (1 - alpha_bar_t)
    of_x_t = math.sqrt(step) * (1 - alpha_bar_s) / (1 - alpha_bar_t)
    variance = (1 - alpha_bar_s) / (1 - alpha_bar_t) * (1 - step)
    return of_x0 * x0 + of_x_t * x_t, variance


def ddim(
    denoise: Denoise, noise: Tensor, alpha_bar: Tensor, *, steps: int, random: RowRandom, eta: float = 0.0
) -> Tensor:
    """Implicit sampler (Song et al. 2020, arXiv:2010.02502, Eq. 12), in `steps` of T.

    eta = 0 is deterministic and asks `random` for nothing; eta = 1 has the noise of `ancestral` (Eq. 16).
    The noise in x_t is read off the estimate of x_0, so that an estimate clipped to the data's range stays consistent.
    """
    x = noise
    for t, s in spaced_timesteps(len(alpha_bar) - 1, steps):
        alpha_bar_t, alpha_bar_s = float(alpha_bar[t]), float(alpha_bar[s])
        x0 = denoise(x, t)
        eps = (x - math.sqrt(alpha_bar_t) * x0) / math.sqrt(1 - alpha_bar_t)
        _, variance = posterior(x0, x, alpha_bar_t, alpha_bar_s)
        fresh = eta * math.sqrt(variance)  # Eq. 16
        x = math.sqrt(alpha_bar_s) * x0 + math.sqrt(1 - alpha_bar_s - fresh**2) * eps
        if fresh > 0:
            x = x + fresh * random.normal(*x.shape[1:])
    return x


def spaced_timesteps(num_timesteps: int, steps: int) -> list[tuple[int, int]]:
    """The moves (t, s) of a walk from T to 0 in `steps` even strides. Raises ValueError if T has fewer than that."""
    if not 1 <= steps <= num_timesteps:
        raise ValueError(f"steps={steps} must be between 1 and num_timesteps={num_timesteps}")
    visited = [round(num_timesteps * i / steps) for i in range(steps, -1, -1)]
    return list(itertools.pairwise(visited))
