"""The figures of MOSES that hold sampled molecules against held-out ones: SNN, Frag, Scaf, filters and FCD."""

import math
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genai_cli.config import EvaluateConfig
from genai_cli.data.base import Dataset, Split
from genai_cli.errors import ConfigError
from genai_cli.media.sheets import tokens_to_texts
from genai_cli.metrics.bootstrap import REPLICATES, mean_interval
from genai_cli.metrics.frechet import frechet_distance, moments
from genai_cli.metrics.molecules import canonical_speller
from genai_cli.metrics.moses import (
    ALERTS,
    FEWEST_FOR_FCD,
    HINT,
    ChemNet,
    cosine,
    fragments,
    molecules_of,
    nearest_similarity,
    passes_filters,
    read_alerts,
    scaffolds,
)
from genai_cli.metrics.record import Metric
from genai_cli.runs import TrainedRun

STANDARD = 30_000  # samples of the benchmark: with so many, they are held against the whole split
MOST_REFERENCE = 10_000  # held-out molecules, with fewer samples


def measure_benchmark(
    trained: TrainedRun, dataset: Dataset, split: Split, samples: Tensor, config: EvaluateConfig,
    protocol: dict[str, Any], notes: list[str],
) -> Iterator[Metric]:  # fmt: skip
    """Beside each figure the same of as many other held-out molecules ("real"): those of validation or test."""
    canonical, judge = canonical_speller()
    if judge != "rdkit":
        notes.append("benchmark: needs RDKit: pip install rdkit")
        return
    most = len(split) if len(samples) >= STANDARD else min(MOST_REFERENCE, len(split))
    other = dataset.load("validation" if config.split == "test" else "test")
    reference, control = (_spelled(part, trained, count) for part, count in ((split, most), (other, len(samples))))
    ours = [word for word in map(canonical, tokens_to_texts(samples, trained.spec)) if word]
    if len(ours) < 2:
        notes.append(f"benchmark: {len(ours)} of {len(samples)} samples are molecules, too few to compare")
        return
    described = {**protocol, "kind": "sample", "n_fake": len(ours), "n_real": most, "n_control": len(control)}
    yield from _structures(ours, reference, control, config, described, notes)
    yield from _chemnet(ours, reference, control, described, notes)


def _spelled(split: Split, trained: TrainedRun, most: int) -> list[str]:
    """Molecules from all over the split: those of MOSES lie beside others of their kind."""
    count = min(most, len(split))
    positions = torch.arange(count) * len(split) // count
    tokens = [split.fetch(rows)["tokens"] for rows in positions.split(4096)]
    return [text for rows in tokens for text in tokens_to_texts(rows, trained.spec)]


def _structures(
    ours: Sequence[str], reference: Sequence[str], control: Sequence[str], config: EvaluateConfig,
    described: dict[str, Any], notes: list[str],
) -> Iterator[Metric]:  # fmt: skip
    fake, real, others = map(molecules_of, (ours, reference, control))
    nearest, of_data = nearest_similarity(fake, real), nearest_similarity(others, real).mean().item()
    protocol = {**described, "features": "Morgan fingerprints, radius 2, 1024 bits", "bootstrap": _bootstrap()}
    yield _mean("snn", nearest, "Tanimoto similarity", {**protocol, "id": "benchmark/snn"}, of_data, config.seed)
    for name, count in (("fragments", fragments), ("scaffolds", scaffolds)):
        histogram = count(real)
        of_others = cosine(count(others), histogram)  # NaN where there is no such part in one of the two sets
        yield Metric(
            name, cosine(count(fake), histogram), None, "cosine of histograms", "higher",
            {**described, "id": f"benchmark/{name}"}, {"real": of_others} if math.isfinite(of_others) else {},
        )  # fmt: skip
    folder = _alerts_folder(config)
    if folder is None:
        notes.append(
            f"filters: the lists of MOSES are not there: alerts=FOLDER with {' and '.join(ALERTS)}, or pip install "
            "--no-deps molsets, which holds them"
        )
        return
    try:
        alerts = read_alerts(folder)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"alerts={folder} cannot be read: {error}") from error
    passed, of_data = (
        torch.tensor([float(passes_filters(molecule, alerts)) for molecule in each]) for each in (fake, others)
    )
    protocol = {**described, "id": "benchmark/filters", "bootstrap": _bootstrap(), "alerts": len(alerts)}
    yield _mean("filters", passed, "share", protocol, of_data.mean().item(), config.seed)


def _mean(name: str, values: Tensor, unit: str, protocol: dict[str, Any], real: float, seed: int) -> Metric:
    interval = mean_interval(values, seed=seed)
    return Metric(name, values.double().mean().item(), interval, unit, "higher", protocol, {"real": real})


def _bootstrap() -> str:
    return f"samples, {REPLICATES} times"


def _alerts_folder(config: EvaluateConfig) -> Path | None:
    """Where the lists are: as asked for, or in the package of the benchmark, which is looked at and not imported."""
    if config.alerts is not None:
        return Path(config.alerts).expanduser()
    package = find_spec("moses")
    places = [Path(place) / "metrics" for place in (package.submodule_search_locations or ())] if package else []
    return next((place for place in places if all((place / name).is_file() for name in ALERTS)), None)


def _chemnet(
    ours: Sequence[str], reference: Sequence[str], control: Sequence[str], described: dict[str, Any], notes: list[str]
) -> Iterator[Metric]:
    """The Frechet ChemNet distance, of features that the package `fcd_torch` carries."""
    try:
        features = ChemNet()
    except ImportError as error:
        notes.append(f"fcd: {error}: {HINT}")
        return
    real = moments(features(reference))
    metric = Metric(
        "fcd", frechet_distance(moments(features(ours)), real), None, "squared feature distance", "lower",
        {**described, "id": "benchmark/fcd", "extractor": "ChemNet of fcd_torch", "features": 512},
        {"real": frechet_distance(moments(features(control)), real)},
    )  # fmt: skip
    if min(len(ours), len(reference)) < FEWEST_FOR_FCD:
        metric = metric.doubted(f"{min(len(ours), len(reference))} molecules are too few for 512 features")
    yield metric
