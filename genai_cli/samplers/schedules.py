"""Noise levels: those of a discrete diffusion, and those that a sampler visits.

The levels of Ho et al. 2020 (arXiv:2006.11239) are the tensor `alpha_bar` (T + 1,) in float64: x_t = sqrt(alpha_bar)
x_0 + sqrt(1 - alpha_bar) eps for t from 0 (clean data) to T. A sampler knows x_t / sqrt(alpha_bar) = x_0 + sigma eps:
to it a level is the one number sigma (`solvers.py`), and its schedule a list of them that falls to 0.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor


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


def sigma_of_alpha_bar(alpha_bar: Tensor) -> Tensor:
    """The noise level per unit of signal, sqrt(1 - alpha_bar) / sqrt(alpha_bar)."""
    return ((1 - alpha_bar) / alpha_bar).sqrt()


def spaced_timesteps(num_timesteps: int, steps: int) -> list[int]:
    """T = t_0 > t_1 > ... > t_steps = 0 in even strides. Raises ValueError if T has fewer than `steps`."""
    if not 1 <= steps <= num_timesteps:
        raise ValueError(f"steps={steps} must be between 1 and num_timesteps={num_timesteps}")
    return [round(num_timesteps * i / steps) for i in range(steps, -1, -1)]


def karras_sigmas(steps: int, sigma_min: float, sigma_max: float, *, rho: float = 7.0) -> list[float]:
    """`steps` levels from sigma_max to sigma_min, even in sigma^(1 / rho), then 0 (Karras et al. 2022, Eq. 5).

    One step goes from sigma_max to 0.
    """
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return [(high + i / max(steps - 1, 1) * (low - high)) ** rho for i in range(steps)] + [0.0]


def flow_sigmas(steps: int, sigma_max: float) -> list[float]:
    """`steps` levels from sigma_max, even in t = sigma / (1 + sigma), the time of a straight path to noise; then 0."""
    latest = sigma_max / (1 + sigma_max)
    times = [latest * (1 - i / steps) for i in range(steps)]
    return [t / (1 - t) for t in times] + [0.0]
