"""Averages of the weights whose length is chosen after training (Karras et al. 2023, EDM2, arXiv:2312.02696, Sec. 3).

An average of length sigma weighs the weights of step tau by a power, p(tau) ~ tau^gamma up to its own step t: sigma is
the standard deviation of tau under p, as a share of t. A run keeps snapshots of two such averages; any other is close
to a linear combination of these, found by least squares between the profiles p alone.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy
import torch
from torch import Tensor, nn
from torch.nn import Parameter

from genai_cli.engine import checkpoint as checkpoints
from genai_cli.engine.checkpoint import Checkpoint
from genai_cli.engine.sharding import part_of
from genai_cli.errors import ConfigError

FOLDER = "averages"  # of a run directory: snapshots, in the format of a checkpoint
LENGTHS = (0.05, 0.10)  # the two that are kept


class PowerAverages:
    """theta_hat <- beta theta_hat + (1 - beta) theta after step t, with beta = (1 - 1/t)^(gamma + 1) (Eq. 4)."""

    def __init__(self, model: nn.Module, averaged: Iterable[Parameter]):
        wanted = {id(parameter) for parameter in averaged}
        self.parameters = {name: p for name, p in model.named_parameters() if id(p) in wanted}
        self.averages = {
            length: {name: p.detach().clone() for name, p in self.parameters.items()} for length in LENGTHS
        }

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Follow the weights, `step` steps having been taken."""
        for length, average in self.averages.items():
            beta = (1 - 1 / step) ** (exponent_of(length) + 1)
            torch._foreach_lerp_(list(average.values()), list(self.parameters.values()), 1 - beta)

    def state(self) -> dict[str, Tensor]:
        """Both averages, by "LENGTH/PARAMETER"."""
        return {f"{length}/{name}": t for length, average in self.averages.items() for name, t in average.items()}

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for average in self.averages.values() for tensor in average.values())

    def restore(self, run: Path, step: int) -> None:
        """Take up the snapshot of `step`. Raises StorageError or ConfigError if it is not there."""
        saved = checkpoints.load(run / FOLDER, str(step)).ema
        for length, average in self.averages.items():
            for name, tensor in average.items():
                tensor.copy_(part_of(saved[f"{length}/{name}"], tensor))


def keep(state: dict[str, Tensor], run: Path, step: int, *, every: int | None) -> None:
    """A snapshot of `step`. Those of the period `every` stay, others as long as a checkpoint needs them."""
    folder = run / FOLDER
    checkpoints.save(Checkpoint(step, {}, state), folder, keep=step + 1)  # purges nothing
    stay = {_name(step), *(path.name for path in checkpoints.checkpoints(run / "checkpoints"))}
    is_between = [past for past in _steps(folder) if every is None or past % every]
    checkpoints.discard(folder / _name(past) for past in is_between if _name(past) not in stay)


def posthoc_average(run: Path, step: int, length: float) -> dict[str, Tensor]:
    """The average of relative length `length` at `step`, by name of the parameter (Algorithm 3 of the paper).

    Raises ConfigError if the run kept no snapshots.
    """
    folder = run / FOLDER
    steps = [past for past in _steps(folder) if past <= step and checkpoints.damage(folder / _name(past)) is None]
    if not steps:
        raise ConfigError(
            f"ema_length={length:g}: this run kept nothing to make it of; train one with train.posthoc_ema=true"
        )
    profiles = [(exponent_of(kept), past) for past in steps for kept in LENGTHS]
    shares = iter(combination(profiles, (exponent_of(length), step)))
    average: dict[str, Tensor] = {}
    for past in steps:
        saved = checkpoints.read(folder / _name(past)).ema
        for kept in LENGTHS:
            share = next(shares)
            for key, tensor in saved.items():
                of, _, name = key.partition("/")
                if of == str(kept):
                    average[name] = average.get(name, 0) + share * tensor.double()
    return {name: tensor.float() for name, tensor in average.items()}


def combination(profiles: list[tuple[float, int]], wanted: tuple[float, int]) -> list[float]:
    """How much of each profile (gamma, t), so that their sum is nearest to the profile `wanted` in the square mean."""
    gram = numpy.array([[product(one, other) for other in profiles] for one in profiles])
    right = numpy.array([product(one, wanted) for one in profiles])
    return numpy.linalg.lstsq(gram, right, rcond=1e-12)[0].tolist()


def product(one: tuple[float, int], other: tuple[float, int]) -> float:
    """The integral of p_one p_other, each (gamma + 1) tau^gamma / t^(gamma + 1) for tau in [0, t]."""
    (gamma, t), (gamma_2, t_2) = one, other
    least = min(t, t_2)
    ratios = (least / t) ** gamma * (least / t_2) ** gamma_2  # of powers that would overflow one by one
    return (gamma + 1) * (gamma_2 + 1) * ratios * least / ((gamma + gamma_2 + 1) * t * t_2)


def exponent_of(length: float) -> float:
    """gamma of a relative length, sigma = (gamma + 1)^(1/2) (gamma + 2)^-1 (gamma + 3)^-(1/2)."""
    t = length**-2
    return float(numpy.roots([1.0, 7.0, 16.0 - t, 12.0 - t]).real.max())


def _steps(folder: Path) -> list[int]:
    return [int(path.name[-8:]) for path in checkpoints.checkpoints(folder)]


def _name(step: int) -> str:
    return f"step-{step:08d}"
