"""From overrides to the checked configuration of a command: what is composed, from where, and which schema judges."""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from genai_cli import registry
from genai_cli.annotations import show
from genai_cli.checks import prefer_typed
from genai_cli.compose import MISSING, Composed, compose_command, compose_over
from genai_cli.config import CompareConfig, Config, EvaluateConfig, ExamineConfig, ReportConfig, RunConfig, SampleConfig
from genai_cli.errors import ConfigError
from genai_cli.locate import describe_newest, find_run, is_run, read_config
from genai_cli.overrides import Overrides, Typed
from genai_cli.schema import (
    RUN_COMMANDS,
    changed_keys,
    check_compare,
    check_evaluate,
    check_run_command,
    check_sample,
    check_sampling,
    judge_train,
    plain,
    read_run_config,
    refused_changes,
)
from genai_cli.suggest import listing, nearest


@dataclass(frozen=True)
class Configured:
    """A configuration that passed every check."""

    config: CompareConfig | Config | SampleConfig | EvaluateConfig | ExamineConfig | ReportConfig
    folder: Path | None  # the run directory to go on with, or to work on
    values: dict[str, Any]  # what --cfg job shows
    resolved: dict[str, Any]  # the same with --resolve


def configure(command: str, job: list[Typed], overrides: Overrides) -> Configured:
    """The configuration of one job of `overrides`. Raises ConfigError with all problems."""
    if command == "compare":
        return _configure_compare(job, overrides)
    if command != "train":
        return _configure_for_run(command, job, overrides)
    resumed = [typed for typed in job if typed.key == "run" and not isinstance(typed.value, dict)]
    if resumed:
        return _configure_resumed(resumed[-1].text, [typed for typed in job if typed not in resumed], overrides)
    return _configure_train(job, overrides)


def _configure_train(job: list[Typed], overrides: Overrides) -> Configured:
    directory, base = _base_of(job)
    is_like_base = base is not None and not any(typed.key == "model" and typed.is_group for typed in job)
    if is_like_base and base["model"]["name"] in registry.presets("model", overrides.config_dir):
        job = [*job, Typed("model", base["model"]["name"], base["model"]["name"], is_group=True)]
    composed = compose_command("train", job, overrides.config_dir)
    if base is not None:
        composed = _start_from(composed, directory, base, is_like_base)
    config, problems = judge_train(
        prefer_typed(composed.resolved, composed.typed),
        choices=composed.choices,
        unjudged={*composed.missing, *overrides.guessed},
    )
    problems = [*overrides.problems, *_missing_groups(composed, job, overrides), *problems]
    if config is not None and base is not None:
        problems += _differences(config, composed, base)
    if problems:
        raise ConfigError(*problems)
    _check_directory(config)
    _check_teacher(config, "give the directory of a trained model")
    values, resolved = (prefer_typed(shown, composed.typed) for shown in (composed.values, composed.resolved))
    return Configured(config, None, values, resolved)


def _base_of(job: list[Typed]) -> tuple[Path | None, dict[str, Any] | None]:
    """The run that `init=` names, and its configuration. Raises ConfigError."""
    named = [typed for typed in job if typed.key == "init" and typed.value is not None]
    if not named:
        return None, None
    roots = [str(typed.value) for typed in job if typed.key == "run.root"]
    try:
        directory = find_run(named[-1].text, roots[-1] if roots else RunConfig().root)
    except ConfigError as error:
        raise ConfigError(*(problem.replace("run=", "init=", 1) for problem in error.problems)) from error
    _model_of(directory)
    return directory, read_config(directory)


def _start_from(composed: Composed, directory: Path, base: dict[str, Any], is_like_base: bool) -> Composed:
    """`composed` with the run's directory in `init`; and, where no model was chosen, with that of the run."""

    def start(values: dict[str, Any]) -> dict[str, Any]:
        values = {**values, "init": str(directory), "plugins": values.get("plugins") or base.get("plugins", [])}
        if is_like_base:
            typed = {key.partition(".")[2] for key in composed.typed if key.startswith("model.")}
            own = {key: value for key, value in values["model"].items() if key in typed}
            values["model"] = base["model"] | own
        return values

    return replace(composed, values=start(composed.values), resolved=start(composed.resolved))


def _differences(config: Config, composed: Composed, base: dict[str, Any]) -> list[str]:
    """One sentence where the model is another than that of the run which it starts from, in what nobody typed."""
    if config.model["name"] != base["model"]["name"]:
        there, here = base["model"]["name"], config.model["name"]
        return [
            f"init={config.init} is of model={there}, not model={here}; leave model=... out to take that of the run"
        ]
    keys = [
        key for key in {**base["model"], **config.model}
        if base["model"].get(key) != plain(config.model.get(key)) and f"model.{key}" not in composed.typed
    ]  # fmt: skip
    if not keys:
        return []
    differing = ", ".join(
        f"model.{key} ({show(base['model'].get(key))} there, {show(config.model.get(key))} here)" for key in keys
    )
    return [f"init={config.init} has another model in {differing}; leave model=... out to take that of the run"]


def _check_directory(config: Config) -> None:
    """A run that `run.dir` holds already goes on only if it is this very run."""
    if config.run.dir is not None and is_run(Path(config.run.dir)):
        changed = changed_keys(read_run_config(Path(config.run.dir)), config)
        if changed:
            advised = f"name a new directory, or go on with run={config.run.dir}"
            raise ConfigError(f"run.dir={config.run.dir} holds another run; {advised}", *changed)


def _check_teacher(config: Config, remedy: str) -> None:
    """The run that this one learns from must be there, also when it goes on: what it learns is made anew."""
    teacher = config.model.get("teacher")
    if teacher is not None and not is_run(Path(teacher)):
        raise ConfigError(f"model.teacher={teacher} is no run directory, and no training is without it: {remedy}")


def _missing_groups(composed: Composed, job: list[Typed], overrides: Overrides) -> list[str]:
    """One line for each group without a choice, unless a misspelt name of it is a problem already."""
    return [
        f"{group} is required: {group}=NAME, one of {listing(registry.presets(group, overrides.config_dir))}"
        for group in composed.missing
        if not any("." not in typed.key and nearest(typed.key, [group]) for typed in job)
    ]


def _configure_resumed(run: str, job: list[Typed], overrides: Overrides) -> Configured:
    """`genai train run=DIR`: the run's own configuration, with what was typed laid over it."""
    roots = [str(typed.value) for typed in job if typed.key == "run.root"]
    directory = find_run(run, roots[-1] if roots else RunConfig().root)
    recorded = read_config(directory)
    _refuse_another_model(directory, recorded, job, overrides)
    values, typed = compose_over(recorded, job, overrides.config_dir)
    values = prefer_typed(values, typed)
    config, problems = judge_train(values, unjudged=overrides.guessed)
    if config is not None:
        problems = refused_changes(read_run_config(directory), config)
    problems = [*overrides.problems, *problems]
    if problems:
        raise ConfigError(*problems)
    _check_teacher(config, f"bring it back there, as it was when {directory} began")
    return Configured(config, directory, values, values)


def _refuse_another_model(directory: Path, recorded: dict[str, Any], job: list[Typed], overrides: Overrides) -> None:
    """One sentence for a run that is to go on as another model or on other data. Raises ConfigError."""
    for kind in (registry.MODEL, registry.DATASET):
        for typed in job:
            old = recorded.get(kind.word)
            preset = registry.presets(kind.word, overrides.config_dir).get(str(typed.value))
            if typed.key != kind.word or not typed.is_group or preset is None or not isinstance(old, dict):
                continue
            if registry.named_by(preset, kind) != old.get("name"):
                raise ConfigError(
                    f"{typed}: run={directory} is of {kind.word}={show(old.get('name'))} and keeps it; leave "
                    f"{kind.word} out to go on, or start another run without run="
                )


def _configure_compare(job: list[Typed], overrides: Overrides) -> Configured:
    """`genai compare`: the runs must be there, and each model must be one that can be trained as is said."""
    composed = compose_command("compare", job, overrides.config_dir)
    config = check_compare(composed.resolved)
    problems, models = list(overrides.problems), []
    folders: list[Path] = []
    for run in config.runs:
        try:
            folder = find_run(run, config.root)
            if folder.resolve() in folders:
                problems.append(f"runs={show(config.runs)}: {run} is {folder}, which is among them already")
            folders.append(folder.resolve())
            model, plugins = _model_of(folder)
            models.append(registry.define(registry.MODEL, model["name"], plugins))
        except ConfigError as error:
            problems += error.problems
    for model in config.model:
        words = [f"model={model}", f"dataset={config.dataset}", *config.options]
        training = Overrides(words, is_sweep=False, config_dir=overrides.config_dir)
        try:
            trained = _configure_train(next(training.jobs()), training).config
            models.append(registry.define(registry.MODEL, trained.model["name"], trained.plugins))
        except ConfigError as error:
            problems += [problem for problem in error.problems if problem not in problems]
    if models:
        problems += check_sampling(config.sample, models)
    if problems:
        raise ConfigError(*problems)
    return Configured(config, None, composed.values, composed.resolved)


def _configure_for_run(command: str, job: list[Typed], overrides: Overrides) -> Configured:
    """`genai sample`, `genai evaluate` and others on a run directory, or (evaluate) on two folders of images."""
    composed = compose_command(command, job, overrides.config_dir)
    values = dict(composed.resolved)
    problems = list(overrides.problems)
    for group in overrides.guessed:
        values.pop(group, None)
    root = str(values.get("root", "outputs"))
    directory, model, plugins = None, None, []
    is_of_folders = values.get("real") is not None or values.get("fake") is not None
    if "run" not in values and not is_of_folders:
        problems.append(f"run is required: run=DIR or run=latest; {describe_newest(root)}")
        values["run"] = MISSING
    elif "run" in values:
        try:
            directory = find_run(str(values["run"]), root)
            values["run"] = str(directory)
            model, plugins = _model_of(directory)
        except ConfigError as error:
            problems += error.problems
            values = _without_options(command, values)  # which of them its model has cannot be told
    try:
        if command in RUN_COMMANDS:
            config = check_run_command(command, values)
        else:
            config = (check_evaluate if command == "evaluate" else check_sample)(values, model, plugins)
    except ConfigError as error:
        problems += error.problems
    if problems:
        raise ConfigError(*problems)
    return Configured(config, directory, composed.values, composed.resolved)


def _without_options(command: str, values: dict[str, Any]) -> dict[str, Any]:
    """Those of `values` whose keys are the command's own, where it has others that are its model's."""
    kind = {"sample": SampleConfig, "evaluate": EvaluateConfig}.get(command)
    own = values if kind is None else {field.name for field in fields(kind)}
    return {key: value for key, value in values.items() if key in own}


def _model_of(directory: Path) -> tuple[dict[str, Any], list[str]]:
    """The model of a run and the plugins that it may come from."""
    recorded = read_config(directory)
    model, plugins = recorded.get("model"), recorded.get("plugins") or []
    is_whole = isinstance(model, dict) and isinstance(model.get("name"), str) and isinstance(plugins, list | tuple)
    if not is_whole:
        raise ConfigError(f"{directory}/config.yaml names no model, so it is not the configuration of a run")
    plugins = [str(plugin) for plugin in plugins]
    registry.define(registry.MODEL, model["name"], plugins)
    return model, plugins
