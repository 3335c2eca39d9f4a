"""Completion in the shell. Hydra's script asks, the schema answers: a model's own keys and their choices included."""

import ast
import dataclasses
import os
import types
import typing
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from genai_cli import registry
from genai_cli.annotations import read_annotation, show
from genai_cli.config import CompareConfig, Config, EvaluateConfig, SampleConfig
from genai_cli.errors import ConfigError, ExitCode
from genai_cli.locate import find_run, list_runs, read_config, runs_at_hand
from genai_cli.registry import DATASET, MODEL
from genai_cli.schema import RUN_COMMANDS

SCHEMAS = {
    "train": Config,
    "sample": SampleConfig,
    "evaluate": EvaluateConfig,
    "compare": CompareConfig,
    **RUN_COMMANDS,
}
KINDS = ("models", "datasets", "optimizers", "experiments")
FLAGS = ("--cfg", "--config-dir", "--help", "--info", "--multirun", "--package", "--resolve")


def run(words: list[str]) -> ExitCode:
    """`-sc install=bash` prints the script to evaluate; that script asks `-sc query=bash` with COMP_LINE set."""
    verb, _, shell = words[0].partition("=") if len(words) == 1 else ("", "", "")
    if verb == "query" and shell:
        print(" ".join(complete(os.environ.get("COMP_LINE", ""))))
    elif verb in ("install", "uninstall") and shell in ("bash", "zsh", "fish"):
        from genai_cli.cli import run_hydra

        run_hydra("train", ["-sc", *words], lambda _: None)
    else:
        raise ConfigError('completion is set up by: eval "$(genai -sc install=bash)", or zsh, or fish')
    return ExitCode.DONE


def complete(line: str) -> list[str]:
    """What the last word of a command line may become."""
    from genai_cli.cli import COMMANDS

    *before, word = line.split()[1:] + ([""] if line.endswith(" ") else []) or [""]
    command = next((typed for typed in before if typed in COMMANDS), None)
    if command is None:
        found: Iterator[str] = iter(COMMANDS)
    elif command == "list":
        found = iter(KINDS)
    elif word.startswith("-"):
        found = iter(FLAGS)
    else:
        found = _overrides(command, before, word)
    return sorted({candidate for candidate in found if candidate.startswith(word)})


def _overrides(command: str, before: list[str], word: str) -> Iterator[str]:
    """Whole words: `model=gan`, `train.batch_size=`; a group of keys as `train.` until its dot is typed."""
    config_dir = _config_dir(before)
    groups = registry.GROUPS[command]
    keys = dict(_keys(command, before))
    typed_key, equals, _ = word.partition("=")
    if equals and typed_key in groups:
        yield from (f"{typed_key}={name}" for name in registry.presets(typed_key, config_dir))
    elif equals and typed_key in ("run", "init"):
        runs = map(str, ("latest", *list_runs("outputs"), *runs_at_hand()))
        yield from (f"{typed_key}={run}" for run in runs if not any(map(str.isspace, run)))  # which would be two words
    elif equals:
        yield from (f"{typed_key}={value}" for value in _values(keys.get(typed_key)))
    else:
        yield from (f"{group}=" for group in groups)
        for key in keys:
            head, dot, _ = key.partition(".")
            yield f"{key}=" if not dot or word.startswith(f"{head}.") else f"{head}."


def _config_dir(before: list[str]) -> Path | None:
    for flag, value in pairwise(before):
        if flag in ("--config-dir", "-cd") and Path(value).is_dir():
            return Path(value)
    return None


def _keys(command: str, before: list[str]) -> Iterator[tuple[str, Any]]:
    """Dotted key -> its type: the command's own, then those of the model and the data set that were typed."""
    for key, kind in typing.get_type_hints(SCHEMAS[command], include_extras=True).items():
        if dataclasses.is_dataclass(kind):
            inner = typing.get_type_hints(kind, include_extras=True)
            yield from ((f"{key}.{name}", inner_kind) for name, inner_kind in inner.items())
        elif key not in ("model", "dataset", "options"):
            yield key, kind
    for kind in (MODEL, DATASET) if command == "train" else ():
        for name in (word.partition("=")[2] for word in before if word.startswith(f"{kind.word}=")):
            yield from _option_keys(kind, name, _config_dir(before))
    for run in (word.partition("=")[2] for word in before if word.startswith("run=")):
        yield from _keys_of_run(command, run)


def _keys_of_run(command: str, run: str) -> Iterator[tuple[str, Any]]:
    """What the samples of a run's model, and its evaluation, can be asked for."""
    try:
        name = (read_config(find_run(run, "outputs")).get("model") or {}).get("name")
        definition = registry.define(MODEL, name)
    except ConfigError:
        return
    methods = {"sample": ["sample_options"], "evaluate": ["sample_options", "evaluate_options"]}
    for method in methods.get(command, ()):
        yield from ((option.name, _kind_of(option.annotation)) for option in getattr(definition, method).values())


def _option_keys(kind: registry.Kind, choice: str, config_dir: Path | None) -> Iterator[tuple[str, Any]]:
    preset = registry.presets(kind.word, config_dir).get(choice)
    name = registry.named_by(preset, kind) if preset else None
    if name in registry.names(kind):
        for option in registry.define(kind, name).options.values():
            yield f"{kind.word}.{option.name}", _kind_of(option.annotation)


def _kind_of(annotation: ast.expr | None) -> Any:
    try:
        return read_annotation(annotation) if annotation is not None else Any
    except ValueError:
        return Any


def _values(kind: Any) -> Iterator[str]:
    """What can be listed of a type: choices, true and false, null."""
    if get_origin(kind) is Literal:
        yield from map(show, get_args(kind))
    elif get_origin(kind) in (typing.Union, types.UnionType):
        for member in get_args(kind):
            yield from _values(member)
    elif kind is bool:
        yield from ("true", "false")
    elif kind is types.NoneType:
        yield "null"
