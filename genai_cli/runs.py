"""From a run directory back to its configuration and its model: what sample, evaluate and resume start from.

Nothing in the directory is imported or executed: names in `config.yaml` are looked up in the closed set of our own
models, weights are safetensors, the rest is JSON and plain YAML.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from genai_cli import registry, schema
from genai_cli.config import Config
from genai_cli.data.base import DataError, Dataset, Spec
from genai_cli.engine import checkpoint as checkpoints
from genai_cli.engine.run import read_spec
from genai_cli.errors import ConfigError
from genai_cli.locate import is_run
from genai_cli.models.base import GenerativeModel


@dataclass(frozen=True)
class TrainedRun:
    """A run's model, with the weights asked for, ready to sample."""

    folder: Path
    config: Config
    spec: Spec
    model: GenerativeModel
    step: int
    averaged: bool  # the weights are the moving average


def build_dataset(config: Config) -> Dataset:
    options = {key: value for key, value in config.dataset.items() if key != "name"}
    return registry.load_dataset_class(config.dataset["name"], config.plugins)(**options)


def build_model(config: Config, spec: Spec) -> GenerativeModel:
    """The untrained model. Raises ConfigError where its constructor finds that it does not fit the data."""
    options = {key: value for key, value in config.model.items() if key != "name"}
    try:
        return registry.load_model_class(config.model["name"], config.plugins)(spec, **options)
    except ValueError as error:
        raise ConfigError(f"model={config.model['name']}: {error}") from error


def load_another(key: str, folder: str, spec: Spec, device: torch.device) -> GenerativeModel:
    """The model of another run, which option `key` names: a teacher, a guide. Raises ConfigError."""
    directory = Path(folder)
    if not is_run(directory):
        raise ConfigError(f"{key}={folder} is no run directory: give one of a trained model")
    config = schema.read_run_config(directory)
    trained = load_trained(directory, config, checkpoint="last", weights="auto", device=device)
    if trained.spec.modality != spec.modality or trained.spec.shape != spec.shape:
        found, wanted = ("x".join(map(str, each.shape)) + f" {each.modality}" for each in (trained.spec, spec))
        raise ConfigError(f"{key}={folder} was trained on {found}, not on {wanted}")
    return trained.model.requires_grad_(False)


def load_trained(
    folder: Path, config: Config, *, checkpoint: str, weights: Literal["auto", "ema", "raw"], device: torch.device
) -> TrainedRun:
    """The model of a run at one of its checkpoints, on `device`, in evaluation mode."""
    spec = read_spec(folder)
    model = build_model(config, spec)
    loaded = checkpoints.load(folder / "checkpoints", checkpoint)
    if weights == "ema" and not loaded.ema:
        raise ConfigError("weights=ema: this run kept no average; train it with train.ema=0.999, or take weights=raw")
    averaged = bool(loaded.ema) and weights != "raw"
    try:
        model.load_state_dict(loaded.model | loaded.ema if averaged else loaded.model)
    except RuntimeError as error:
        raise DataError(f"{folder}: the weights do not fit the model of its config.yaml: {error}") from error
    return TrainedRun(folder, config, spec, model.to(device).eval(), loaded.step, averaged)
