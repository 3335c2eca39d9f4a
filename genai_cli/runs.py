"""From a run directory back to its configuration and its model: what sample, evaluate and resume start from.

Nothing in the directory is imported or executed: names in `config.yaml` are looked up in the closed set of our own
models, weights are safetensors, the rest is JSON and plain YAML.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from genai_cli import registry, schema
from genai_cli.annotations import show
from genai_cli.config import Config
from genai_cli.data.base import DataError, Dataset, Spec
from genai_cli.data.first_stage import CodeDecoder, FirstStage
from genai_cli.engine import checkpoint as checkpoints
from genai_cli.engine.adaptation import Adaptation
from genai_cli.engine.checkpoint import Checkpoint
from genai_cli.engine.posthoc_ema import posthoc_average
from genai_cli.engine.run import read_spec
from genai_cli.engine.storage import replace_durably, to_json
from genai_cli.errors import ConfigError, StorageError
from genai_cli.locate import find_run, is_run
from genai_cli.models.base import GenerativeModel
from genai_cli.nn.lora import adaptable_places, add_adapters, merge_adapters
from genai_cli.suggest import advice

TEACHER_FILE = "teacher.json"  # in the directory of a run that learns from another: which of its weights
BASE = "base"  # in the directory of a run that starts from another: its weights as they were

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Teacher:
    """Which weights a run learns from: a checkpoint of another run."""

    step: int
    sha256: str


@dataclass(frozen=True)
class TrainedRun:
    """A run's model, with the weights asked for, ready to sample."""

    folder: Path
    config: Config
    spec: Spec
    model: GenerativeModel
    step: int
    averaged: bool  # the weights are the moving average


def build_dataset(config: Config, spec: Spec | None = None, *, device: torch.device = CPU) -> Dataset:
    """The data set; of tokens, with the tokenizer of `spec`, a run's, where there is one. Raises DataError.

    Where a trained run makes the data, that run computes on `device`.
    """
    options = {key: value for key, value in config.dataset.items() if key != "name"}
    dataset = registry.load_dataset_class(config.dataset["name"], config.plugins)(**options)
    dataset.connect(partial(open_first_stage, device=device))
    if spec is not None and spec.tokenizer is not None and to_json(spec.tokenizer) != to_json(dataset.spec.tokenizer):
        if spec.modality != dataset.spec.modality:
            raise DataError(f"dataset={config.dataset['name']} is {dataset.spec.modality}, init is of {spec.modality}")
        dataset.adopt(spec.tokenizer)
    return dataset


def name_of_data(config: Config, chosen: str | None = None) -> str:
    """What the data of a run are called where figures stand beside it: "mnist", "binary_mnist (static)".

    `chosen` is what the user typed, where that is a preset with a name of its own.
    """
    name = config.dataset["name"]
    variant = registry.define(registry.DATASET, name, config.plugins).variant
    return (chosen or name) + (f" ({config.dataset[variant]})" if variant else "")


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
        name = f"model={config.model['name']}"
        raise ConfigError(f"{name}: {str(error).removeprefix(f'{name} ')}") from error


def load_another(key: str, folder: str, spec: Spec, device: torch.device, *, checkpoint: str = "last") -> TrainedRun:
    """Another run, which option `key` names: a teacher, a guide. Raises ConfigError."""
    directory = Path(folder)
    if not is_run(directory):
        raise ConfigError(f"{key}={folder} is no run directory: give one of a trained model")
    config = schema.read_run_config(directory)
    trained = load_trained(directory, config, checkpoint=checkpoint, weights="auto", device=device)
    if trained.spec.modality != spec.modality or trained.spec.shape != spec.shape:
        found, wanted = ("x".join(map(str, each.shape)) + f" {each.modality}" for each in (trained.spec, spec))
        raise ConfigError(f"{key}={folder} was trained on {found}, not on {wanted}")
    if config.model.get("condition") == "label" and len(trained.spec.classes) != len(spec.classes):
        found, wanted = len(trained.spec.classes), len(spec.classes)
        raise ConfigError(
            f"{key}={folder} was told which of {found} classes it saw, but these data have {wanted}: give a run of "
            "data with the same classes, or one trained with model.condition=null"
        )
    trained.model.requires_grad_(False)
    return trained


def teach(model: GenerativeModel, config: Config, device: torch.device, run: Path | None) -> Teacher | None:
    """Give `model` the teacher that `config` names, if any: of a run that goes on, with the weights that it began with.

    Raises ConfigError where the teacher cannot teach this model, or those weights are there no more.
    """
    folder = config.model.get("teacher")
    if folder is None:
        return None
    begun = _recorded_teacher(run)
    which = "last" if begun is None else str(begun.step)
    if begun is not None and not checkpoints.is_there(Path(folder) / "checkpoints", begun.step):
        raise ConfigError(
            f"model.teacher={folder} no longer keeps its step {begun.step}, from which {run} learns: bring it back, or "
            "begin another run"
        )
    trained = load_another("model.teacher", folder, model.spec, device, checkpoint=which)
    now = Teacher(trained.step, checkpoints.weights_sum(Path(folder) / "checkpoints", trained.step))
    if begun is not None and now != begun:
        raise ConfigError(
            f"model.teacher={folder} has other weights at step {now.step} ({now.sha256[:8]}) than those from which "
            f"{run} learns ({begun.sha256[:8]}): bring those back, or begin another run"
        )
    try:
        model.learn_from(trained.model)
    except ValueError as error:
        raise ConfigError(f"model.teacher={folder} {error}") from error
    return now


def keep_teacher(teacher: Teacher, folder: Path) -> None:
    replace_durably(folder / TEACHER_FILE, to_json(asdict(teacher)))


def _recorded_teacher(run: Path | None) -> Teacher | None:
    if run is None or not is_run(run) or not (run / TEACHER_FILE).is_file():
        return None
    try:
        record = json.loads((run / TEACHER_FILE).read_text(encoding="utf-8"))
        return Teacher(int(record["step"]), str(record["sha256"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        words = "bring back the file that the run was made with"
        raise DataError(f"{run / TEACHER_FILE} does not say which weights the run learns from: {words}") from error


def load_trained(
    folder: Path, config: Config, *, checkpoint: str, weights: Literal["auto", "ema", "raw"], device: torch.device,
    ema_length: float | None = None,
) -> TrainedRun:  # fmt: skip
    """The model of a run at one of its checkpoints, on `device`, in evaluation mode.

    `ema_length` puts an average of that length, made afterwards, in the place of the one that the run kept.
    """
    spec = read_spec(folder)
    model = build_model(config, spec)
    loaded = checkpoints.load(folder / "checkpoints", checkpoint)
    if weights == "ema" and not loaded.ema and ema_length is None:
        raise ConfigError("weights=ema: this run kept no average; train it with train.ema=0.999, or take weights=raw")
    if ema_length is not None:
        if weights == "raw":
            raise ConfigError(f"weights=raw and ema_length={ema_length:g} are different weights: give one of the two")
        loaded.ema = posthoc_average(folder, loaded.step, ema_length)
    averaged = bool(loaded.ema) and weights != "raw"
    adaptation = adapt(model, config, load_base(config, folder))
    try:
        adaptation.take_up(loaded.model | loaded.ema if averaged else loaded.model)
    except RuntimeError as error:
        first = str(error).strip().splitlines()[-1].strip()
        words = "bring back the file that the run was made with"
        raise DataError(f"{folder}: the weights do not fit the model of its config.yaml: {words} ({first})") from error
    merge_adapters(model)
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
        data=build_dataset(trained.config, trained.spec, device=device),
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


def load_base(config: Config, folder: Path | None) -> Checkpoint | None:
    """The weights that a run of `config` starts from, and in its state what they are of; None where it has no `init`.

    A run keeps its own copy, in `folder`: what becomes of the other run changes nothing for it.
    """
    if config.init is None:
        return None
    if folder is not None and is_run(folder):
        return checkpoints.load(folder / BASE, "last")
    source = Path(config.init)
    trained = load_trained(
        source, schema.read_run_config(source), checkpoint="last", weights="auto", device=torch.device("cpu")
    )
    state = {"run": str(source), "averaged": trained.averaged, "model": schema.plain(trained.config.model)}
    return Checkpoint(trained.step, trained.model.state_dict(), state=state | {"spec": trained.spec.to_json()})


def keep_base(base: Checkpoint, folder: Path) -> None:
    checkpoints.save(base, folder / BASE, keep=1)


def base_spec(base: Checkpoint | None) -> Spec | None:
    """What the data of the run that `base` is of look like."""
    return None if base is None else Spec.from_json(base.state["spec"])


def adapt(model: GenerativeModel, config: Config, base: Checkpoint | None) -> Adaptation:
    """Give `model` the weights of `base`, freeze what `config.freeze` names, or add adapters and freeze the rest.

    Raises ConfigError where the weights are of another architecture, or a pattern matches nothing.
    """
    if base is None:
        return Adaptation(model)
    try:
        model.load_state_dict(base.model)
    except RuntimeError as error:
        raise ConfigError(_misfit(model, config, base, error)) from error
    if config.adapter.name == "lora":
        places = adaptable_places(model)
        chosen = matching(places, config.adapter.targets, "adapter.targets")
        adapters = add_adapters(
            model, [places[name] for name in chosen], rank=config.adapter.rank, alpha=config.adapter.alpha
        )
        kept = {name for name, _ in model.named_parameters()} - adapters
        words = f"adapter.targets={show(config.adapter.targets)}"
    else:
        kept = matching(model.state_dict(), config.freeze, "freeze")
        words = f"freeze={show(config.freeze)}"
    adaptation = Adaptation(model, kept)
    adaptation.check_groups(words)
    return adaptation


def matching(names: Iterable[str], patterns: Iterable[str], key: str) -> list[str]:
    """Those of dotted `names` that a pattern matches, whole or up to a dot: "enc*" matches encoder.0.weight.

    Raises ConfigError, with the nearest name, for a pattern that matches none.
    """
    beginnings = {name: [name, *(name[: dot.start()] for dot in re.finditer(r"\.", name))] for name in names}
    found: dict[str, None] = {}
    for pattern in patterns:
        matched = [name for name, parts in beginnings.items() if any(fnmatchcase(part, pattern) for part in parts)]
        if not matched:
            known = sorted({part for parts in beginnings.values() for part in parts})
            raise ConfigError(f"{key}: {pattern!r} matches nothing; {advice(pattern, known)}")
        found |= dict.fromkeys(matched)
    return list(found)


def _misfit(model: GenerativeModel, config: Config, base: Checkpoint, error: RuntimeError) -> str:
    """One sentence: in what the model that weights are for differs from the one that they are of."""
    theirs = {"model": base.state["model"], "data": _sizes(base_spec(base))}
    mine = {"model": schema.plain(config.model), "data": _sizes(model.spec)}
    olds, news = schema.flatten(theirs), schema.flatten(mine)
    different = [
        f"{key} is {show(olds.get(key))} there and {show(news.get(key))} here"
        for key in {**olds, **news}
        if olds.get(key) != news.get(key)
    ]
    found = "; ".join(different) or str(error).strip().splitlines()[-1].strip()
    return f"the weights of init={config.init} are of another architecture: {found}"


def _sizes(spec: Spec) -> dict[str, Any]:
    return {
        "modality": spec.modality, "shape": list(spec.shape), "classes": len(spec.classes),
        "vocabulary_size": spec.vocabulary_size,
    }  # fmt: skip
