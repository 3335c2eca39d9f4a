"""From a run directory back to its configuration and its model: what sample, evaluate and resume start from.

Nothing in the directory is imported or executed: names in `config.yaml` are looked up in the closed set of our own
models, weights are safetensors, the rest is JSON and plain YAML.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from genai_cli import registry, schema
from genai_cli.config import Config
from genai_cli.data.base import DataError, Dataset, Spec
from genai_cli.data.first_stage import CodeDecoder, FirstStage
from genai_cli.engine import checkpoint as checkpoints
from genai_cli.engine.run import read_spec
from genai_cli.errors import ConfigError, StorageError
from genai_cli.locate import find_run
from genai_cli.models.base import GenerativeModel

CPU = torch.device("cpu")


@dataclass(frozen=True)
class TrainedRun:
    """A run's model, with the weights asked for, ready to sample."""

    folder: Path
    config: Config
    spec: Spec
    model: GenerativeModel
    step: int
    averaged: bool  # the weights are the moving average


def build_dataset(config: Config, device: torch.device = CPU) -> Dataset:
    """The data set. Where a trained run makes it, that run computes on `device`."""
    options = {key: value for key, value in config.dataset.items() if key != "name"}
    dataset = registry.load_dataset_class(config.dataset["name"], config.plugins)(**options)
    dataset.connect(partial(open_first_stage, device=device))
    return dataset


def check_unchanged(spec: Spec, recorded: Spec, config: Config, folder: Path) -> None:
    """Refuse data that are no longer what the run in `folder` was trained on. Raises ConfigError."""
    old, new = recorded.first_stage, spec.first_stage
    if old is not None and new is not None and old != new:
        raise ConfigError(_other_weights(config.dataset["run"], old, new["step"], new["sha256"]))
    if spec != recorded:
        raise ConfigError(f"run={folder}: the data set is no longer what the run was trained on (see its spec.json)")


def _other_weights(run: str, recorded: Mapping[str, Any], step: int, sha256: str) -> str:
    return (
        f"dataset.run={run} is at step {step} with weights {sha256[:8]}, but the codes are of step {recorded['step']} "
        f"with weights {recorded['sha256'][:8]}: bring those back, or train on the new codes in another run"
    )


def build_model(config: Config, spec: Spec) -> GenerativeModel:
    """The untrained model. Raises ConfigError where its constructor finds that it does not fit the data."""
    options = {key: value for key, value in config.model.items() if key != "name"}
    try:
        return registry.load_model_class(config.model["name"], config.plugins)(spec, **options)
    except ValueError as error:
        raise ConfigError(f"model={config.model['name']}: {error}") from error


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
    if spec.first_stage is not None:
        model.code_decoder = _open_decoder(config, spec, device)
    return TrainedRun(folder, config, spec, model.to(device).eval(), loaded.step, averaged)


def open_first_stage(run: str, checkpoint: str, *, device: torch.device) -> FirstStage:
    """The trained run that `dataset.run` names, as a source of data. Raises ConfigError, naming the key."""
    try:
        folder = find_run(run, root="outputs")
        trained = load_trained(
            folder, schema.read_run_config(folder), checkpoint=checkpoint, weights="auto", device=device
        )
    except (ConfigError, StorageError) as error:
        raise ConfigError(f"dataset.run={run} must be the run that makes the data: {error}") from error
    return FirstStage(
        folder=folder,
        name=trained.config.model["name"],
        model=trained.model.requires_grad_(False),
        data=build_dataset(trained.config, device),
        step=trained.step,
        sha256=checkpoints.weights_sum(folder / "checkpoints", trained.step),
        device=device,
    )


def _open_decoder(config: Config, spec: Spec, device: torch.device) -> CodeDecoder:
    """What turns samples back into data: the checkpoint that made the codes, and no other."""
    stage = open_first_stage(config.dataset["run"], str(spec.first_stage["step"]), device=device)
    if stage.sha256 != spec.first_stage["sha256"]:
        raise ConfigError(_other_weights(config.dataset["run"], spec.first_stage, stage.step, stage.sha256))
    return CodeDecoder(stage, spec)
