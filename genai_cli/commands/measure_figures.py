"""The figures that a model itself gives of held-out data, as metrics: likelihoods, bounds, errors, and baselines."""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genai_cli.config import EvaluateConfig
from genai_cli.data.base import DataError, Dataset, Split
from genai_cli.data.tokenizers import tokenizer_from_json, tokenizer_of
from genai_cli.data.windows import SlidingWindows, TokenWindows, decode_utf8, read_text
from genai_cli.engine.figures import first_batch, held_out_rows
from genai_cli.engine.progress import Progress
from genai_cli.errors import ConfigError
from genai_cli.metrics.bootstrap import REPLICATES, mean_interval, standard_error
from genai_cli.metrics.likelihood import (
    Meaning,
    bits_per_dim,
    bound_contradictions,
    loose_bounds,
    nats_to_bits,
    read_meaning,
)
from genai_cli.metrics.record import Metric
from genai_cli.models.base import GenerativeModel
from genai_cli.runs import TrainedRun

_CHUNK = 4096  # examples gathered at a time
_TOGETHER = 2000  # examples that a model's statistics are of


def measure_figures(
    trained: TrainedRun, dataset: Dataset, split: Split, config: EvaluateConfig, protocol: dict[str, Any],
    notes: list[str], device: torch.device,
) -> Iterator[Metric]:  # fmt: skip
    """The means of the model's `evaluate` over the whole split, bits per dimension, and its baselines."""
    rows, weight = _rows(trained, split, config, device)
    if not rows:
        notes.append(f"figures: model={trained.config.model['name']} has none of held-out data")
        return
    meanings = _meanings(trained, rows)
    metrics = {
        key: _figure(
            key, values, weight, meanings[key], {**protocol, "n_real": len(values), **config.options}, seed=config.seed
        )
        for key, values in rows.items()
    }
    values = {key: metric.value for key, metric in metrics.items()}
    ends = {key: metric.interval or (0.0, 0.0) for key, metric in metrics.items()}  # none where a value is not finite
    widths = {key: high - low for key, (low, high) in ends.items()}
    contradictions = bound_contradictions(values, meanings, widths)
    loose = loose_bounds(values, meanings)
    for key, metric in metrics.items():
        if key in loose:
            metric = metric.doubted(loose[key])
        for sentence in contradictions:
            if sentence.startswith(f"{key}:"):
                metric = metric.doubted(sentence)
        yield metric
        if meanings[key].is_dequantised_density and trained.spec.value_range is not None:
            yield _bits_per_dim(metric, trained)
    for key, value in _statistics(trained, split, config, device).items():
        described = {**protocol, "id": key, "kind": "figure", "n_real": min(_TOGETHER, len(split))}
        yield Metric(key, value, None, "of the first examples together", "none", described)
    for key, value in _baselines(trained, dataset, split).items():
        yield Metric(key, value, None, "as the figure's", "none", {**protocol, "id": key, "kind": "baseline"})


def _rows(
    trained: TrainedRun, split: Split, config: EvaluateConfig, device: torch.device
) -> tuple[dict[str, Tensor], Tensor]:
    progress = Progress(first=0, total=len(split), unit="examples")
    try:
        return held_out_rows(
            trained.model, split, seed=config.seed, batch_size=config.batch_size, device=device,
            options=config.options, report=progress.advance,
        )  # fmt: skip
    finally:
        progress.close()


def _meanings(trained: TrainedRun, rows: Iterable[str]) -> dict[str, Meaning]:
    words = trained.model.figures
    return {key: read_meaning(key, words.get(key), is_tokens=trained.spec.is_tokens) for key in rows}


def _figure(
    key: str, values: Tensor, weight: Tensor, meaning: Meaning, protocol: dict[str, Any], *, seed: int
) -> Metric:
    described = {
        **protocol, "id": key, "kind": "likelihood" if meaning.is_likelihood else "figure",
        "bootstrap": f"examples, {REPLICATES} times",
    }  # fmt: skip
    if meaning.bound:
        described["bound"] = meaning.bound
    value = ((weight * values).sum() / weight.sum()).item()
    interval = mean_interval(values, seed=seed, weight=weight) if math.isfinite(value) else None
    error = standard_error(values, weight=weight)
    return Metric(key, value, interval, meaning.unit, meaning.better, described, standard_error=error)


def _bits_per_dim(metric: Metric, trained: TrainedRun) -> Metric:
    dims = math.prod(trained.spec.shape)
    value, *interval = (
        bits_per_dim(nats, dims, value_range=trained.spec.value_range, levels=trained.spec.levels)
        for nats in (metric.value, *(metric.interval or ()))
    )
    protocol = {**metric.protocol, "id": f"bits_per_dim/{metric.name}", "dequantisation": "uniform", "dims": dims}
    return Metric(
        f"bits_per_dim_{metric.name}", value, tuple(interval) or None, "bits per dimension", "lower", protocol,
        standard_error=nats_to_bits(metric.standard_error / dims),
    )  # fmt: skip


@torch.no_grad()
def _statistics(trained: TrainedRun, split: Split, config: EvaluateConfig, device: torch.device) -> dict[str, float]:
    """What the model says of the first examples of the split as a whole."""
    return trained.model.statistics(first_batch(split, min(_TOGETHER, len(split)), seed=config.seed, device=device))


def _baselines(trained: TrainedRun, dataset: Dataset, split: Split) -> dict[str, float]:
    """What the model's simple reference scores, fitted on the training split."""
    if type(trained.model).baselines is GenerativeModel.baselines:
        return {}
    return trained.model.baselines(_all_data(dataset.load("train"), trained), _all_data(split, trained))


def _all_data(split: Split, trained: TrainedRun) -> Tensor:
    """(N, *spec.shape) on the CPU."""
    positions = torch.arange(len(split)).split(_CHUNK)
    return torch.cat([split.fetch(rows)[trained.spec.key].cpu() for rows in positions])


# -- text --------------------------------------------------------------------------------------------------------------


def measure_text(
    trained: TrainedRun, dataset: Dataset, split: Split, config: EvaluateConfig, protocol: dict[str, Any],
    notes: list[str], device: torch.device,
) -> Iterator[Metric]:  # fmt: skip
    """Nats and bits per character of the whole split: in windows one after the other, and in overlapping ones."""
    contexts = {"chunked": split}
    length = trained.spec.shape[0]
    if isinstance(split, TokenWindows) and length > 1:
        contexts["sliding"] = SlidingWindows(split, stride=max(1, length // 2)).to(device)
    for name, windows in contexts.items():
        rows, weight = _rows(trained, windows, config, device)
        meanings = _meanings(trained, rows)
        likelihoods = [key for key, meaning in meanings.items() if meaning.is_likelihood]
        if not likelihoods:
            notes.append(f"text: model={trained.config.model['name']} gives no likelihood")
            return
        key = min(likelihoods, key=lambda key: meanings[key].bound != "exact")
        if name == "sliding" and meanings[key].bound != "exact":
            notes.append("text: overlapping windows are for exact likelihoods, read from left to right")
            return
        described = {**protocol, "bound": meanings[key].bound, "figure": key}
        yield from _per_character(rows[key], weight, trained, dataset, split, described, name, config)


def text_windows(path: Path, trained: TrainedRun) -> TokenWindows:
    """A text file in the tokens of the run, in windows one after the other. Raises DataError, ConfigError."""
    if trained.spec.modality != "text":
        raise ConfigError(f"text={path}: the run learned {trained.spec.modality}, not text")
    if not path.expanduser().is_file():
        raise DataError(f"text={path} is not there: give a text file")
    content = decode_utf8(read_text(path.expanduser()), str(path))
    try:
        tokens = tokenizer_of(trained.spec).encode(content)
    except ValueError as error:
        raise ConfigError(f"text={path}: {error}; a model of bytes or byte pairs reads every text") from error
    if len(tokens) < 2:
        raise ConfigError(f"text={path} has {len(tokens)} tokens; the first is given, and another is to be predicted")
    length = trained.spec.shape[0]
    return TokenWindows(tokens, length=length, stride=length)


def _per_character(
    nats: Tensor, weight: Tensor, trained: TrainedRun, dataset: Dataset, split: Split, protocol: dict[str, Any],
    context: str, config: EvaluateConfig,
) -> Iterator[Metric]:  # fmt: skip
    """`nats` (N,) per token of each window, `weight` (N,) its tokens."""
    tokens, characters = weight.sum().item(), count_characters(trained, split)
    per_token = ((weight * nats).sum() / tokens).item()
    scale = tokens / characters
    interval = mean_interval(nats, seed=config.seed, weight=weight)
    error = standard_error(nats, weight=weight)
    length = trained.spec.shape[0]
    least = "from 1" if context == "chunked" else f"from {length - max(1, length // 2)}"
    described = {
        **protocol, "kind": "likelihood", "tokens": int(tokens), "characters": characters,
        "context": f"{context}: {least} to {length} tokens",
        "bootstrap": f"windows, {REPLICATES} times",
    }  # fmt: skip
    controls = {"uniform": math.log(trained.spec.vocabulary_size), "unigram": _unigram(trained, dataset, split)}
    suffix = "" if context == "chunked" else "_sliding"
    for unit, convert in (("nats", float), ("bits", nats_to_bits)):
        name = f"{unit}_per_character{suffix}"
        yield Metric(
            name, convert(per_token * scale), tuple(convert(end * scale) for end in interval), f"{unit} per character",
            "lower", {**described, "id": f"{name}/{context}"},
            {control: convert(value * scale) for control, value in controls.items()},
            standard_error=convert(error * scale),
        )  # fmt: skip


def count_characters(trained: TrainedRun, split: Split) -> int:
    """Of the text that the targets of a split spell: fewer than its tokens where these are bytes."""
    tokenizer = tokenizer_from_json(trained.spec.tokenizer)
    if isinstance(split, TokenWindows):
        return len(tokenizer.decode(split.tokens[1:].cpu()))
    return sum(len(tokenizer.decode(targets)) for targets in _targets(split))


def _unigram(trained: TrainedRun, dataset: Dataset, split: Split) -> float:
    """Nats per token of the frequencies of tokens in the training split, each counted once more than it occurs."""
    size = trained.spec.vocabulary_size
    train, test = (
        sum((torch.bincount(targets, minlength=size) for targets in _targets(part)), torch.zeros(size))
        for part in (dataset.load("train"), split)
    )
    log_share = ((train + 1) / (train + 1).sum()).log()
    return -(test @ log_share / test.sum()).item()


def _targets(split: Split) -> Iterator[Tensor]:
    """The tokens that count, 1-d, on the CPU; those of a training split, whose windows overlap, once."""
    if isinstance(split, TokenWindows):
        yield split.tokens[1:].cpu().long()
        return
    for positions in torch.arange(len(split)).split(_CHUNK):
        rows = split.fetch(positions)
        yield rows["tokens"][:, 1:][rows["mask"]].cpu()
