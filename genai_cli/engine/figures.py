"""Held-out figures: the mean of a model's per-example quantities over a split, with its standard error."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from genai_cli.data.base import Batch, Split
from genai_cli.engine import faults, watchdog
from genai_cli.models.base import GenerativeModel
from genai_cli.nn.random import SampleRandom, mix

_EVALUATION = 4  # tag of this use of the seed


@dataclass(frozen=True)
class Figure:
    """A mean over `count` examples and the standard error of that mean."""

    mean: float
    standard_error: float
    count: int


@torch.no_grad()
def held_out_figures(
    model: GenerativeModel, split: Split, *, seed: int, batch_size: int, device: torch.device,
    limit: int | None = None, options: dict[str, Any] | None = None,
) -> dict[str, Figure]:  # fmt: skip
    """What `model.evaluate` says, given `options`, of the first `limit` examples of `split` (null: all).

    The model is in evaluation mode. Example i gets the same random numbers whatever the batch size. Where the model
    returns "weight" (targets in a window of text), means are weighted by it.
    """
    rows, weight = held_out_rows(
        model, split, seed=seed, batch_size=batch_size, device=device, limit=limit, options=options
    )
    return {key: _weighted_mean(values, weight) for key, values in rows.items()}


@torch.no_grad()
def held_out_rows(
    model: GenerativeModel, split: Split, *, seed: int, batch_size: int, device: torch.device,
    limit: int | None = None, options: dict[str, Any] | None = None,
    report: Callable[[int], None] = lambda done: None,
) -> tuple[dict[str, Tensor], Tensor]:  # fmt: skip
    """What the means of `held_out_figures` are of: every example's value, (N,) each, and its weight (N,)."""
    columns: dict[str, list[Tensor]] = {}
    for batch in _in_order(split, seed=seed, batch_size=batch_size, device=device, limit=limit):
        faults.point("evaluate")
        watchdog.beat()
        for key, values in model.evaluate(batch, **(options or {})).items():
            columns.setdefault(key, []).append(values.double().cpu())
        report(batch.random.index[-1] + 1)
    rows = {key: torch.cat(parts) for key, parts in columns.items()}  # each (N,)
    if not rows:
        return {}, torch.empty(0)
    weight = rows.pop("weight", torch.ones_like(next(iter(rows.values()))))
    return rows, weight


def _weighted_mean(values: Tensor, weight: Tensor) -> Figure:
    share = weight / weight.sum()
    mean = (share * values).sum()
    standard_error = (share * (values - mean)).square().sum().sqrt()
    return Figure(mean.item(), standard_error.item(), len(values))


def _in_order(split: Split, *, seed: int, batch_size: int, device: torch.device, limit: int | None) -> Iterator[Batch]:
    count = len(split) if limit is None else min(limit, len(split))
    for start in range(0, count, batch_size):
        positions = torch.arange(start, min(start + batch_size, count))
        rows = {name: tensor.to(device) for name, tensor in split.fetch(positions).items()}
        yield Batch(rows, SampleRandom(mix(seed, _EVALUATION), positions.tolist(), device=device))


def first_batch(split: Split, count: int, *, seed: int, device: torch.device) -> Batch:
    """The first `count` examples of a split: what reconstructions are shown of."""
    return next(_in_order(split, seed=seed, batch_size=count, device=device, limit=count))
