"""From a plain mapping to a checked `Config`, `SampleConfig` or `EvaluateConfig`, or to every reason why not.

The dataclasses of `config.py` are the schema of what the engine reads, constructors that of a model's and a data
set's own keys (`registry.py`). All problems are reported at once, each as key, value, rule and remedy. No torch, no
Hydra, no import of what a configuration names.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from genai_cli import registry
from genai_cli.annotations import show
from genai_cli.checks import Check
from genai_cli.config import (
    CompareConfig,
    Config,
    ConfigError,
    DeviceConfig,
    EncodeConfig,
    EvaluateConfig,
    ExamineConfig,
    ReportConfig,
    RunConfig,
    SampleConfig,
    TrainConfig,
)
from genai_cli.locate import read_config
from genai_cli.registry import DATASET, MODEL, Definition
from genai_cli.suggest import advice, listing

# What a run that goes on may change: its length, rhythm and safety. No number computed so far depends on them.
MAY_CHANGE = (
    "train.steps",
    "train.epochs",
    "train.log_every",
    "train.sample_every",
    "train.save_every",
    "train.evaluate_every",
    "train.evaluate_examples",
    "train.score_samples",
    "train.num_samples",
    "train.keep",
    "train.nonfinite",
    "train.nonfinite_limit",
)
MAY_CHANGE_GROUPS = ("device.", "logger.", "doctor.")


def check_train(values: Mapping[str, Any], **circumstances: Any) -> Config:
    """The checked configuration of a training run. Raises ConfigError with all problems; see `judge_train`."""
    config, problems = judge_train(values, **circumstances)
    if config is None:
        raise ConfigError(*problems)
    return config


def judge_train(
    values: Mapping[str, Any],
    *,
    choices: Mapping[str, str] = MappingProxyType({}),
    unjudged: Iterable[str] = (),
) -> tuple[Config | None, list[str]]:
    """The configuration of a training run, or None and everything that is wrong with it.

    `choices` are the presets by group, such as {"model": "gan"}, where they are known. `unjudged` groups have been
    refused already: the rest is checked without them, and there is no configuration.
    """
    unjudged = set(unjudged)
    check = Check()
    judged = {key: value for key, value in values.items() if key not in unjudged}
    known = check.record(Config, judged, optional=unjudged)
    plugins = known.get("plugins", ())
    model = check.named(MODEL, known.get("model"), plugins, choices.get("model"))
    dataset = check.named(DATASET, known.get("dataset"), plugins, choices.get("dataset"))
    if model and dataset:
        check.combination(model, dataset, plugins)
    check.optimizer(known.get("optimizer"))
    if "model" not in unjudged:  # whose YAML says how long
        check.length(known.get("train", TrainConfig()))
    check.batch(known.get("train"))
    check.doctor(known.get("doctor"), known.get("train", TrainConfig()))
    check.start(known)
    if check.problems or unjudged:
        return None, check.problems
    name = "_".join(choices.get(word) or known[word]["name"] for word in ("model", "dataset"))
    run = known.get("run", RunConfig())
    known |= {"model": model.options, "dataset": dataset.options}
    return Config(**{**known, "run": dataclasses.replace(run, name=run.name or name)}), []


def config_from_mapping(values: Mapping[str, Any]) -> Config:
    """A `Config` from a mapping that nobody vouches for, such as a run directory's `config.yaml`.

    Keys outside the schema (`_target_` among them) are refused and `${...}` stays the text it is.
    """
    return check_train(values)


def read_run_config(directory: Path) -> Config:
    """The configuration that a run directory holds, checked like any other. Raises ConfigError."""
    return config_from_mapping(read_config(directory))


def changed_keys(old: Config, new: Config) -> list[str]:
    """`optimizer.lr: 0.001 in the run, 0.002 asked for`, for each key that differs; `run.*` may, it says only where."""
    return [f"{key}: {show(was)} in the run, {show(now)} asked for" for key, (was, now) in _changes(old, new).items()]


def refused_changes(old: Config, new: Config) -> list[str]:
    """The lines of `changed_keys` for what a run that goes on must keep."""
    return [
        f"{key}: {show(was)} in the run, {show(now)} asked for; a run keeps it: start another one for the new value"
        for key, (was, now) in _changes(old, new).items()
        if key not in MAY_CHANGE and not key.startswith(MAY_CHANGE_GROUPS)
    ]


def _changes(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    olds, news = flatten(dataclasses.asdict(old)), flatten(dataclasses.asdict(new))
    keys = [key for key in {**olds, **news} if not key.startswith("run.")]
    return {key: (olds.get(key), news.get(key)) for key in keys if olds.get(key) != news.get(key)}


def check_sample(
    values: Mapping[str, Any], model: Mapping[str, Any] | None, plugins: Iterable[str] = ()
) -> SampleConfig:
    """The checked configuration of `genai sample`; `model` is the run's, whose `sample` has options of its own."""
    return _check_for_run(SampleConfig, "sample", values, model, plugins)


def check_evaluate(
    values: Mapping[str, Any], model: Mapping[str, Any] | None = None, plugins: Iterable[str] = ()
) -> EvaluateConfig:
    """The checked configuration of `genai evaluate`; `model` is the run's, whose methods have options of their own."""
    return _check_for_run(EvaluateConfig, "evaluate", values, model, plugins)


def _check_for_run(
    kind: type, command: str, values: Mapping[str, Any], model: Mapping[str, Any] | None, plugins: Iterable[str]
) -> Any:
    """A `kind` whose `options` are the keyword arguments of the methods of the model that `command` calls."""
    check = Check()
    fields = {field.name for field in dataclasses.fields(kind)} - {"options", "sampling"}
    own = {key: value for key, value in values.items() if key in fields}
    others = {key: value for key, value in values.items() if key not in fields}
    known = check.record(kind, own)
    if model is None:
        for key in others:
            check.problem(f"{key} is no key of genai {command}; {advice(key, fields)}")
    else:
        definition = registry.define(MODEL, model["name"], plugins)
        own = definition.sample_options if command == "sample" else definition.evaluate_options
        owner = f"genai {command} or of model={model['name']}"
        of_others = {key: names for key in others if (names := _models_that_take(key, definition, command))}
        for key, names in of_others.items():
            why = definition.without.get(key, f"it is one of model={listing(names)}")
            check.problem(f"{key} is no key of {owner}; {why}")
        others = {key: value for key, value in others.items() if key not in of_others}
        given = check.options({**definition.sample_options, **own}, others, "", owner, also=fields, fill=False)
        known["options"] = {key: value for key, value in given.items() if key in own}
        if kind is EvaluateConfig:
            known["sampling"] = {key: value for key, value in given.items() if key not in own}
    if known.get("interpolate") is not None and (known["interpolate"] < 2 or known.get("stream")):
        check.problem(f"interpolate={known['interpolate']} must be at least 2, and without stream=true")
    if kind is EvaluateConfig:
        _check_folders(check, known)
        if known.get("inception") is not None and known.get("extractor", "auto") != "auto":
            check.problem(f"inception={known['inception']} and extractor={known['extractor']}: give one of the two")
    _refuse_training_keys(check, known, f"genai {command}")
    check.raise_problems()
    return kind(**known)


def _models_that_take(key: str, definition: Definition, command: str) -> list[str]:
    """Choices of a model with an option `key` of samples (or of `evaluate`), where that at hand has no such option."""

    def takes(model: Definition) -> bool:
        return key in model.sample_options or (command == "evaluate" and key in model.evaluate_options)

    if takes(definition):
        return []
    built_in = registry.names(MODEL)
    named = {name: registry.named_by(preset, MODEL) for name, preset in registry.presets("model").items()}
    return [name for name, model in named.items() if model in built_in and takes(registry.define(MODEL, model))]


def _check_folders(check: Check, known: Mapping[str, Any]) -> None:
    """`real` and `fake` come together, and in place of a run."""
    folders = {key: known[key] for key in ("real", "fake") if known.get(key) is not None}
    if folders and known.get("run") is not None:
        check.problem(f"run={known['run']} and {' and '.join(folders)}: evaluate a run, or two folders, not both")
    if folders and known.get("text") is not None:
        check.problem(f"text={known['text']} and {' and '.join(folders)}: a text is evaluated by a run, with run=DIR")
    if len(folders) == 1:
        (missing,) = {"real", "fake"} - folders.keys()
        check.problem(f"{missing} is required: a folder of images, as {' '.join(folders)} has one")
    for key, folder in folders.items():
        if not Path(folder).expanduser().is_dir():
            check.problem(f"{key}={folder} is not a folder: give one that holds images")


# Those that work on a run and have no keys but their own.
RUN_COMMANDS = {"doctor": ExamineConfig, "report": ReportConfig, "encode": EncodeConfig}


def check_run_command(command: str, values: Mapping[str, Any]) -> ExamineConfig | ReportConfig | EncodeConfig:
    """The checked configuration of a command of `RUN_COMMANDS`."""
    check = Check()
    known = check.record(RUN_COMMANDS[command], values)
    _refuse_training_keys(check, known, f"genai {command}")
    check.raise_problems()
    return RUN_COMMANDS[command](**known)


SET_BY_COMPARE = (
    "model", "dataset", "device", "seed", "experiment", "train.steps", "train.epochs", "train.log_every", "run",
    "run.dir", "run.root",
)  # fmt: skip


def check_compare(values: Mapping[str, Any]) -> CompareConfig:
    """The checked configuration of `genai compare`: runs, or models with a data set and a budget."""
    check = Check()
    known = check.record(CompareConfig, values)
    own = {key: known.get(key) for key in ("dataset", "budget", "options") if known.get(key)}
    if known.get("runs") and (known.get("model") or own):
        check.problem(f"runs are compared as they are: leave out {', '.join(own) or 'model'}, or leave out runs")
    elif known.get("runs") is not None and not known["runs"] and not known.get("model"):
        check.problem("compare what? Give runs=[DIR,DIR], or model=[NAME,NAME] dataset=NAME budget=10min")
    elif known.get("model"):
        for key in ("dataset", "budget"):
            if values.get(key) is None:
                check.problem(f"{key} is required with model=[...]: dataset=NAME budget=10min")
    if known.get("inception") is not None and known.get("extractor", "auto") != "auto":
        check.problem(f"inception={known['inception']} and extractor={known['extractor']}: give one of the two")
    for option in known.get("options", ()):
        key = option.partition("=")[0]
        if key in SET_BY_COMPARE:
            check.problem(f"options: genai compare itself sets {key} of the runs that it trains; leave it out")
    for key in ("runs", "model"):
        if len(set(known.get(key, ()))) < len(known.get(key, ())):
            check.problem(f"{key}={show(known[key])} names one of them twice")
    _refuse_training_keys(check, known, "genai compare")
    check.raise_problems()
    return CompareConfig(**known)


MOST_POINTS = 100  # ways of sampling one run


def check_sampling(sample: Mapping[str, Any], models: Iterable[Definition]) -> list[str]:
    """What is wrong with the `sample` of `genai compare`: each key must be an option of one model at least."""
    check, models = Check(), list(models)
    options = {key: option for model in models for key, option in model.sample_options.items()}
    owner = " or ".join(dict.fromkeys(f"model={model.name}" for model in models))
    for key in sample:
        if key not in options:
            check.problem(f"sample.{key} is no option of samples of {owner}; {advice(key, options, before='sample.')}")
    for model in models:
        grid = sampling_grid(sample, model.sample_options)
        if len(grid) > MOST_POINTS:
            check.problem(f"sample.* are {len(grid):,} ways of sampling model={model.name}; {MOST_POINTS} are the most")
            continue
        for point in grid or ():
            check.options(model.sample_options, point, "sample.", f"model={model.name}", fill=False)
        if not grid:
            check.problem("sample.*: an empty list is no value; leave the key out")
    return check.problems


def sampling_grid(sample: Mapping[str, Any], options: Iterable[str]) -> list[dict[str, Any]]:
    """Every combination of the values that `sample` gives of those keys that are among `options`."""
    values = {
        key: list(value) if isinstance(value, list | tuple) else [value]
        for key, value in sample.items()
        if key in set(options)
    }
    return [dict(zip(values, point, strict=True)) for point in itertools.product(*values.values())]


def _refuse_training_keys(check: Check, known: Mapping[str, Any], command: str) -> None:
    """Keys of `device` that training alone reads: anything but their default would be accepted and ignored."""
    device = known.get("device")
    for key in ("precision", "compile", "workers"):
        value, default = getattr(device, key, None), getattr(DeviceConfig, key)
        if device is not None and value != default:
            check.problem(f"device.{key}={show(value)} is read by genai train alone; {command} takes no device.{key}")


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"train": {"steps": 5}} -> {"train.steps": 5}; an empty mapping is a value."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def plain(value: Any) -> Any:
    """`value` as YAML and JSON have it: mappings, lists, numbers, texts."""
    if isinstance(value, Mapping):
        return {key: plain(entry) for key, entry in value.items()}
    return [plain(entry) for entry in value] if isinstance(value, list | tuple) else value
