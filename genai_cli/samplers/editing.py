"""Images and series from given ones: what is kept stays and the rest is drawn around it, or all is changed by so much.

`genai sample run=latest given=FOLDER keep=top_half` draws the lower half of each image anew, `strength=0.6` all of it
from six tenths of the way to noise. `given=FILE` draws what follows a series, or what it leaves open.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from genai_cli.nn.random import RowRandom
from genai_cli.samplers.keep import given_rows, known_part
from genai_cli.samplers.solvers import Denoise, Solver, posterior_variance, solve

RESAMPLE = 5


def draw(
    solver: Solver | None, default: Solver, denoise: Denoise, sigmas: Sequence[float], random: RowRandom,
    shape: tuple[int, ...], *, eta: float | None = None, churn: float | None = None, given: Tensor | None = None,
    keep: str | int | None = None, strength: float | None = None, resample: int | None = None,
) -> Tensor:  # fmt: skip
    """Samples of `shape` by `solver`, else `default`; from `given` images (N, C, H, W) or series (N, P, C), if any.

    Raises ValueError for options that do not go together.
    """
    check_editing(
        shape, given=given, keep=keep, strength=strength, resample=resample, solver=solver, eta=eta, churn=churn
    )
    if given is None:
        x = sigmas[0] * random.normal(*shape)
        return solve(solver or default, denoise, x, sigmas, random=random, eta=eta, churn=churn)
    rows = given_rows(given, random)
    if strength is None:
        rows, known = known_part(rows, keep, shape)
        return repaint(denoise, rows, known, sigmas, random, resample=resample or RESAMPLE)
    left = start_of_given(sigmas, strength)
    x = rows + left[0] * random.normal(*shape)
    return solve(solver or default, denoise, x, left, random=random, eta=eta, churn=churn)


def repaint(
    denoise: Denoise, given: Tensor, known: Tensor, sigmas: Sequence[float], random: RowRandom, *, resample: int
) -> Tensor:
    """RePaint (Lugmayr et al. 2022, arXiv:2201.09865, Algorithm 1): the numbers of `given` that are `known` stay.

    `given` is (B, ...) and `known`, bool, of a shape that extends to it. They are shown to the denoiser under fresh
    noise of its level. Every step of the reverse chain is taken `resample` times, with a step back between, so that
    what is drawn and what is kept come to fit; more of it comes closer to the true conditional distribution, at the
    price of so many evaluations.
    """
    x = sigmas[0] * random.normal(*given.shape[1:])
    for sigma, lower in pairwise(sigmas):
        for turn in range(resample if lower > 0 else 1):
            if turn > 0:
                x = x + math.sqrt(sigma**2 - lower**2) * random.normal(*given.shape[1:])
            x = torch.where(known, given + sigma * random.normal(*given.shape[1:]), x)
            x0 = torch.where(known, given, denoise(x, sigma))
            x = x0 + (lower / sigma) ** 2 * (x - x0)
            if lower > 0:
                x = x + math.sqrt(posterior_variance(sigma, lower)) * random.normal(*given.shape[1:])
    return x


def start_of_given(sigmas: Sequence[float], strength: float) -> Sequence[float]:
    """The last `strength` of the steps, at least one: where given images are joined (Meng et al. 2021, SDEdit,
    arXiv:2108.01073)."""
    steps = len(sigmas) - 1
    return sigmas[steps - max(1, round(strength * steps)) :]


def check_editing(
    shape: tuple[int, ...], *, given: Tensor | None, keep: str | int | None, strength: float | None,
    resample: int | None = None, solver: Solver | None = None, eta: float | None = None, churn: float | None = None,
) -> None:  # fmt: skip
    """Raise ValueError for options that do not go together, or not with samples of `shape`."""
    if given is None and strength is not None:
        raise ValueError(f"strength={strength} says how far to noise given data: say which, given=FOLDER")
    if strength == 0:
        raise ValueError("strength=0 leaves what is given as it is: give more, such as strength=0.6")
    is_series = given is not None and given.dim() == 3  # of which all stays, where `keep` does not say what
    is_unsaid = keep is None and strength is None and not is_series
    if given is not None and (is_unsaid or (keep is not None and strength is not None)):
        raise ValueError("what is given is completed (keep=top_half) or changed (strength=0.6): ask for one of these")
    is_completed = given is not None and strength is None
    if resample is not None and not is_completed:
        raise ValueError(f"resample={resample} is for what is drawn around what stays: give keep=top_half, say")
    if is_completed:
        what = "what completes a series" if keep is None else f"keep={keep}"
        for name, value in {"solver": solver, "eta": eta, "churn": churn}.items():
            if value is not None and value != "ddpm":
                raise ValueError(f"{name}={value} has no part in {what}, which is drawn by the chain of ddpm")
    if is_series and strength is not None and given.shape[1] != shape[0]:
        steps = f"{given.shape[1]} steps are given"
        raise ValueError(f"strength={strength:g} changes a whole window of {shape[0]} steps, and {steps}: give as many")
    if is_series and strength is not None and not given.isfinite().all():
        raise ValueError(f"strength={strength:g} changes a whole window, and this one has gaps: fill its empty cells")
