"""Every number about a set of points that applies: the points are their own features."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from genai_cli.metrics.comparison import NUM_CELLS, Sets, distances, manifolds, uniform_like, without_modes
from genai_cli.metrics.modes import (
    assign,
    divergence_floor,
    divergence_interval,
    histogram,
    histogram_divergence,
    partition,
)
from genai_cli.metrics.record import Metric


@dataclass(frozen=True)
class Points:
    """(N, D) each: the samples, the split that the report is on, and held-out data of another one."""

    fake: Tensor
    real: Tensor
    control: Tensor


def measure_points(
    points: Points, groups: tuple[str, ...], protocol: Mapping[str, Any], *, seed: int
) -> Iterator[Metric]:
    """The metrics of `groups` that apply. Noise is uniform in the box that the data fill.

    `protocol` says under "preprocessing" what the coordinates are.
    """
    real = points.real
    centres = partition(real, min(NUM_CELLS, len(real)), seed=seed)
    cells = assign(points.control, centres)
    controls = {
        "real": points.control,
        "noise": uniform_like(points.control, (real.min(0).values, real.max(0).values), seed=seed + 1),
        "one_mode_removed": without_modes(points.control, cells),
    }
    sets = Sets(real, points.fake, controls, without_modes(points.control, cells, share=0.5))
    names = tuple(groups) + (("energy",) if "kid" in groups else ())
    yield from distances(sets, names, protocol, seed=seed)
    if "manifold" in groups:
        yield from manifolds(sets, protocol, seed=seed)
    if "modes" in groups:
        yield from _cell_modes(sets, centres, protocol, seed=seed)


def _cell_modes(sets: Sets, centres: Tensor, protocol: Mapping[str, Any], *, seed: int) -> Iterator[Metric]:
    """How many cells of the data hold a sample, and the divergence of the two histograms over cells."""
    num_cells = len(centres)
    data = histogram(assign(sets.real, centres), num_cells)
    fake = assign(sets.fake, centres)
    cells = {name: assign(x, centres) for name, x in sets.controls.items() if name != "noise"}
    described = {
        **protocol, "id": "modes/cells", "kind": "sample", "n_real": len(sets.real), "n_fake": len(fake),
        "modes": num_cells, "bootstrap": "none: a count",
    }  # fmt: skip
    count = float((histogram(fake, num_cells) > 0).sum())
    counted = {name: float((histogram(labels, num_cells) > 0).sum()) for name, labels in cells.items()}
    yield Metric("modes", count, (count, count), f"of {num_cells} cells of the data", "higher", described, counted)
    divergence = {name: histogram_divergence(histogram(labels, num_cells), data) for name, labels in cells.items()}
    divergence["floor"] = divergence_floor(len(fake), data, seed=seed + 2)
    yield Metric(
        "mode_divergence", histogram_divergence(histogram(fake, num_cells), data),
        divergence_interval(fake, data, seed=seed), "nats", "lower",
        described | {"id": "mode_divergence/cells", "bootstrap": "samples, 200 times"}, divergence,
    )  # fmt: skip
