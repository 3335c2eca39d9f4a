"""`genai evaluate`: a trained run's figures on held-out data, each with its standard error and protocol."""

import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genai_cli import runs, schema
from genai_cli.config import EvaluateConfig
from genai_cli.data.base import Dataset, Split
from genai_cli.engine.device import choose_device
from genai_cli.engine.figures import Figure, first_batch, held_out_figures
from genai_cli.errors import ConfigError, ExitCode
from genai_cli.models.base import GenerativeModel
from genai_cli.runs import TrainedRun

_CHUNK = 4096  # examples gathered at a time
_TOGETHER = 2000  # examples that a model's statistics are of


def run(config: EvaluateConfig, *, folder: Path) -> ExitCode:
    """Evaluate the run in `folder` on the whole of `config.split`."""
    device = choose_device(config.device)
    trained = runs.load_trained(
        folder, schema.read_run_config(folder), checkpoint=config.checkpoint, weights=config.weights, device=device
    )
    dataset = runs.build_dataset(trained.config)
    if dataset.spec != trained.spec:
        raise ConfigError(f"run={folder}: the data set is no longer what the run was trained on (see its spec.json)")
    split = dataset.load(config.split).to(device)
    figures = held_out_figures(
        trained.model, split, seed=config.seed, batch_size=config.batch_size, device=device, options=config.options
    )
    if not figures:
        raise ConfigError(f"run={folder}: model={trained.config.model['name']} has no held-out figures to evaluate")
    baselines = _baselines(trained, dataset, split)
    record = _record(config, trained, split, figures, baselines)
    record["statistics"] = _statistics(config, trained, split, device)
    out = folder / "evaluation"
    out.mkdir(exist_ok=True)
    path = out / f"{time.strftime('%Y-%m-%dT%H-%M-%S', time.gmtime())}.json"
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    _print_table(record)
    print(f"\nwritten to {path}")
    return ExitCode.DONE


def _baselines(trained: TrainedRun, dataset: Dataset, split: Split) -> dict[str, float]:
    """What the model's simple reference scores, fitted on the training split."""
    if type(trained.model).baselines is GenerativeModel.baselines:
        return {}
    return trained.model.baselines(_all_data(dataset.load("train"), trained), _all_data(split, trained))


def _statistics(config: EvaluateConfig, trained: TrainedRun, split: Split, device: torch.device) -> dict[str, float]:
    """What the model says of the first examples of the split as a whole."""
    with torch.no_grad():
        return trained.model.statistics(first_batch(split, min(_TOGETHER, len(split)), seed=config.seed, device=device))


def _all_data(split: Split, trained: TrainedRun) -> Tensor:
    """(N, *spec.shape) on the CPU."""
    key = trained.spec.key
    parts = [
        split.fetch(torch.arange(start, min(start + _CHUNK, len(split))))[key].cpu()
        for start in range(0, len(split), _CHUNK)
    ]
    return torch.cat(parts)


def _record(
    config: EvaluateConfig, trained: TrainedRun, split: Split, figures: dict[str, Figure], baselines: dict[str, float]
) -> dict[str, Any]:
    return {
        "figures": {
            key: {"mean": figure.mean, "standard_error": figure.standard_error, "count": figure.count}
            for key, figure in figures.items()
        },
        "baselines": baselines,
        "protocol": {
            "run": str(trained.folder),
            "model": trained.config.model["name"],
            "dataset": trained.config.dataset["name"],
            "step": trained.step,
            "weights": "averaged" if trained.averaged else "raw",
            "split": config.split,
            "split_sha256": split.content_hash(),
            "examples": len(split),
            "seed": config.seed,
            **config.options,
        },
    }


def _print_table(record: dict[str, Any]) -> None:
    protocol = record["protocol"]
    print(
        f"{protocol['model']} on {protocol['dataset']}, {protocol['weights']} weights of step {protocol['step']}, "
        f"{protocol['split']} split: {protocol['examples']} examples, sha256 {protocol['split_sha256'][:12]}, "
        f"seed {protocol['seed']}\n"
    )
    width = max(map(len, [*record["figures"], *record["baselines"], *record["statistics"]]))
    for key, figure in record["figures"].items():
        print(f"  {key:<{width}}  {figure['mean']:.5g} +- {figure['standard_error']:.2g}")
    for key, value in record["baselines"].items():
        print(f"  {key:<{width}}  {value:.5g}  (baseline)")
    for key, value in record["statistics"].items():
        print(f"  {key:<{width}}  {value:.5g}  (of the first {min(_TOGETHER, protocol['examples'])} together)")
