"""New examples from a model, in batches; which batch an example falls into changes nothing."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from genai_cli.data.base import Split
from genai_cli.engine import faults, watchdog
from genai_cli.models.base import GenerativeModel
from genai_cli.nn.paths import PathRandom
from genai_cli.nn.random import SampleRandom, mix


@torch.no_grad()
def draw(
    model: GenerativeModel, num_samples: int, *, seed: int, batch_size: int, device: torch.device,
    options: dict[str, Any] | None = None, sources: Split | None = None,
    report: Callable[[int], None] = lambda done: None, num_stops: int | None = None,
) -> Tensor:  # fmt: skip
    """(num_samples, *spec.shape) on the CPU: sample i is a function of (seed, i), the weights and `options`.

    A model that translates is given examples of `sources`, where `options` give it nothing. With `num_stops`, so many
    samples at a time lie on one path between two noises (nn/paths.py).
    """
    options = with_given(model, options or {}, sources, num_samples, seed=seed)
    parts = []
    with evaluation_mode(model):
        for start in range(0, num_samples, batch_size):
            faults.point("sample")
            watchdog.beat()
            stop = min(start + batch_size, num_samples)
            rows = range(start, stop)
            if num_stops is None:
                random = SampleRandom(seed, rows, device=device)
            else:
                random = PathRandom(seed, rows, num_stops, device=device)
            parts.append(model.sample(random, **options).cpu())
            if num_stops is not None and not random.has_moved:
                raise ValueError(f"interpolate={num_stops}: its samples begin with no normal noise to go along")
            report(stop)
    return torch.cat(parts)


def with_given(
    model: GenerativeModel, options: dict[str, Any], sources: Split | None, count: int, *, seed: int
) -> dict[str, Any]:
    """`options`, with what a model that translates is `given` if they do not say it.

    Raises ValueError if there are no `sources` to take it from.
    """
    if model.translates is None or options.get("given") is not None:
        return options
    if sources is None:
        raise ValueError("it makes one thing from another: say from what, given=FOLDER")
    given, _ = model.sides(**options)
    return {**options, "given": sources.fetch(source_positions(len(sources), count, seed=seed))[given]}


def source_positions(length: int, count: int, *, seed: int) -> Tensor:
    """Which examples of a split samples are made from: `count` of them, or all, from a place that the seed chooses."""
    return (mix(seed) % length + torch.arange(min(count, length))) % length


@contextmanager
def evaluation_mode(model: GenerativeModel) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
