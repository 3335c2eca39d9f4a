"""Two sets of features compared every way that applies, each number with its interval and its controls."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from genai_cli.metrics.bootstrap import OF_SHARES, REPLICATES, mean_interval, share_interval
from genai_cli.metrics.frechet import frechet_distance, frechet_interval, moments, num_replicates, why_doubtful
from genai_cli.metrics.kernel import (
    Kernel,
    discrepancy,
    discrepancy_interval,
    negative_distance,
    polynomial_kernel,
)
from genai_cli.metrics.manifold import NEIGHBOURS, Manifold, compare_manifolds
from genai_cli.metrics.record import Metric

NUM_CELLS = 20  # modes of data without classes


@dataclass(frozen=True)
class Sets:
    """Features (N, D) of the data, of the samples, and of what the controls put in place of the samples."""

    real: Tensor
    fake: Tensor
    controls: Mapping[str, Tensor]  # "real", "noise", "one_mode_removed"
    halved: Tensor  # a control of recall alone: "half_removed"

    def matched(self) -> "Sets":
        """Each cut to the size of the samples or of the data, whichever are fewer."""
        size = min(len(self.real), len(self.fake))
        controls = {name: features[:size] for name, features in self.controls.items()}
        return Sets(self.real[:size], self.fake[:size], controls, self.halved[:size])


def distances(sets: Sets, names: tuple[str, ...], protocol: Mapping[str, Any], *, seed: int) -> Iterator[Metric]:
    """The Frechet distance from all data, kernel distances from as many data as samples."""
    if "frechet" in names:
        yield _frechet(sets, protocol, seed=seed)
    kernels = {"kid": ("squared MMD", polynomial_kernel), "energy": ("energy distance", negative_distance)}
    for name in kernels.keys() & set(names):
        unit, kernel = kernels[name]
        yield _kernel(name, unit, kernel, sets.matched(), protocol, seed=seed)


def _frechet(sets: Sets, protocol: Mapping[str, Any], *, seed: int) -> Metric:
    reference, (count, dim) = moments(sets.real), sets.fake.shape
    value = frechet_distance(reference, moments(sets.fake))
    replicates = num_replicates(dim)
    name = "fid" if protocol.get("is_fid") else "frechet"
    return Metric(
        name=name,
        value=value,
        interval=frechet_interval(value, sets.real, sets.fake, seed=seed, num_replicates=replicates),
        unit="squared feature distance",
        better="lower",
        protocol=_described(protocol, name, sets, f"both sets, {replicates} times"),
        controls={name: frechet_distance(reference, moments(features)) for name, features in sets.controls.items()},
        why_not=why_doubtful(dim, len(sets.real), count),
    )


def _kernel(name: str, unit: str, kernel: Kernel, sets: Sets, protocol: Mapping[str, Any], *, seed: int) -> Metric:
    value = discrepancy(kernel, sets.real, sets.fake)
    return Metric(
        name=name,
        value=value,
        interval=discrepancy_interval(kernel, value, sets.real, sets.fake, seed=seed),
        unit=unit,
        better="lower",
        protocol=_described(protocol, name, sets, f"both sets, {REPLICATES} times"),
        controls={key: discrepancy(kernel, sets.real, features) for key, features in sets.controls.items()},
    )


def manifolds(sets: Sets, protocol: Mapping[str, Any], *, seed: int) -> Iterator[Metric]:
    """Precision, recall, density and coverage of as many samples as data."""
    sets = sets.matched()
    if min(map(len, (sets.real, sets.fake, sets.halved, *sets.controls.values()))) <= NEIGHBOURS:
        return
    found = compare_manifolds(sets.real, sets.fake)
    compared = {name: compare_manifolds(sets.real, features) for name, features in sets.controls.items()}
    halved = compare_manifolds(sets.real, sets.halved)
    units = {"precision": "share of samples", "density": "samples in balls / k", "recall": "share of data"}
    for name, column in vars(found).items():
        is_share = name != "density"
        interval = share_interval(column) if is_share else mean_interval(column, seed=seed)
        controls = {control: _mean(manifold, name) for control, manifold in compared.items()}
        if name == "recall":  # whose large balls hide one lost mode: what it must see is the loss of half of them
            controls["half_removed"] = _mean(halved, name)
        resampled = OF_SHARES if is_share else f"samples, the balls held fixed, {REPLICATES} times"
        yield Metric(
            name=name,
            value=column.mean().item(),
            interval=(max(0.0, interval[0]), interval[1]),
            unit=units.get(name, "share of data"),
            better="higher",
            protocol={**_described(protocol, name, sets, resampled), "neighbours": NEIGHBOURS},
            controls=controls,
            why_not=None if len(sets.fake) >= 200 else f"{len(sets.fake)} samples are too few for balls around each",
        )


def _mean(manifold: Manifold, name: str) -> float:
    return getattr(manifold, name).mean().item()


def _described(protocol: Mapping[str, Any], name: str, sets: Sets, resampled: str) -> dict[str, Any]:
    extractor = protocol.get("extractor", "coordinates")
    sizes = {"n_real": len(sets.real), "n_fake": len(sets.fake), "n_control": len(sets.controls["real"])}
    return {**protocol, "id": f"{name}/{extractor}", "kind": "sample", **sizes, "bootstrap": resampled}


def without_modes(control: Tensor, modes: Tensor, *, share: float = 0.1) -> Tensor:
    """`control` (N, ...) without the most frequent of its `modes` (N,) int64: a `share` of them, rounded up."""
    counts = torch.bincount(modes)
    lost = counts.topk(math.ceil(share * int((counts > 0).sum()))).indices
    return control[~torch.isin(modes, lost)]


def uniform_like(data: Tensor, bounds: tuple[Tensor | float, Tensor | float], *, seed: int) -> Tensor:
    """Noise of the shape of `data`, every number uniform between the bounds."""
    low, high = bounds
    return low + (high - low) * torch.rand(data.shape, generator=torch.Generator().manual_seed(seed))
