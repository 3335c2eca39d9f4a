"""New examples from a model, in batches; which batch an example falls into changes nothing."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from genai_cli.engine import faults, watchdog
from genai_cli.models.base import GenerativeModel
from genai_cli.nn.paths import PathRandom
from genai_cli.nn.random import SampleRandom


@torch.no_grad()
def draw(
    model: GenerativeModel, num_samples: int, *, seed: int, batch_size: int, device: torch.device,
    options: dict[str, Any] | None = None, report: Callable[[int], None] = lambda done: None,
    num_stops: int | None = None,
) -> Tensor:  # fmt: skip
    """(num_samples, *spec.shape) on the CPU: sample i is a function of (seed, i), the weights and `options`.

    With `num_stops`, so many at a time lie on one path between two noises (nn/paths.py).
    """
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
            parts.append(model.sample(random, **(options or {})).cpu())
            if num_stops is not None and not random.has_moved:
                raise ValueError(f"interpolate={num_stops}: its samples begin with no normal noise to go along")
            report(stop)
    return torch.cat(parts)


@contextmanager
def evaluation_mode(model: GenerativeModel) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
