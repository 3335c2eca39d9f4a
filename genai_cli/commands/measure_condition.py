"""Whether molecules have the property that they are asked for."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from genai_cli.commands.sampling import sampling_options
from genai_cli.config import EvaluateConfig
from genai_cli.data.base import DataError, Split
from genai_cli.data.properties import values_of
from genai_cli.data.smiles_tokens import SmilesTokenizer
from genai_cli.data.tokenizers import tokenizer_of
from genai_cli.engine.sampling import draw
from genai_cli.metrics.bootstrap import REPLICATES, mean_interval
from genai_cli.metrics.record import Metric
from genai_cli.nn.random import mix
from genai_cli.runs import TrainedRun

MOST = 2_000  # molecules that are asked for
_SAMPLES, _SHUFFLE = 26, 27  # uses of the seed


def measure_condition(
    trained: TrainedRun, split: Split, config: EvaluateConfig, protocol: dict[str, Any], notes: list[str],
    device: torch.device,
) -> Iterator[Metric]:  # fmt: skip
    """What held-out molecules have is asked for, one sample each; beside it "real", those molecules themselves, and
    "shuffled_labels", the samples beside what others were asked for."""
    tokenizer = tokenizer_of(trained.spec)
    if not isinstance(tokenizer, SmilesTokenizer) or tokenizer.asked is None:
        notes.append("condition: the run learned no property (dataset.condition=logp)")
        return
    name = tokenizer.asked.name
    rows = split.fetch(torch.arange(min(config.num_samples, MOST, len(split))))["tokens"].cpu()
    rows = rows[rows[:, 0] > 0]
    asked = torch.tensor([tokenizer.asked.centre(int(token) - 1 - len(tokenizer.tokens)) for token in rows[:, 0]])
    samples = draw(
        trained.model, len(rows), seed=mix(config.seed, _SAMPLES), batch_size=config.batch_size, device=device,
        options={**sampling_options(config.sampling, trained), "prompts": list(rows[:, :1])},
    )  # fmt: skip
    try:
        ours, theirs = (_property(name, drawn, tokenizer) for drawn in (samples, rows))
    except DataError as error:
        notes.append(f"condition: {error}")
        return
    is_one = ours.isfinite()
    if is_one.sum() < 2:
        notes.append(f"condition: {int(is_one.sum())} of {len(ours)} samples are molecules")
        return
    order = torch.randperm(len(asked), generator=torch.Generator().manual_seed(mix(config.seed, _SHUFFLE) % 2**62))
    described = {
        **protocol, "kind": "sample", "n_fake": int(is_one.sum()), "property": f"{name} of RDKit",
        "asked": f"{len(asked)} values of the split, in bins",
    }  # fmt: skip
    error = (ours - asked).abs()[is_one]
    controls = {
        "real": (theirs - asked).abs().mean().item(),
        "shuffled_labels": (ours - asked[order]).abs()[is_one].mean().item(),
    }
    protocol = {**described, "id": f"condition/{name}_error", "bootstrap": f"samples, {REPLICATES} times"}
    interval = mean_interval(error, seed=config.seed)
    yield Metric(
        f"{name}_error", error.mean().item(), interval, f"mean absolute error of {name}", "lower", protocol, controls
    )
    controls = {"real": correlation(theirs, asked), "shuffled_labels": correlation(ours[is_one], asked[order][is_one])}
    protocol = {**described, "id": f"condition/{name}_correlation"}
    value = correlation(ours[is_one], asked[is_one])
    yield Metric(f"{name}_correlation", value, None, "correlation with what was asked", "higher", protocol, controls)


def _property(name: str, rows: Tensor, tokenizer: SmilesTokenizer) -> Tensor:
    """(N,), NaN of what is no molecule."""
    values = values_of(name, [tokenizer.decode(row[row >= 0]) for row in rows])
    return torch.tensor([float("nan") if value is None else value for value in values])


def correlation(one: Tensor, other: Tensor) -> float:
    """Pearson's, of two (N,)."""
    return torch.corrcoef(torch.stack([one, other]))[0, 1].item()
