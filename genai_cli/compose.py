"""YAML groups and the shell's overrides, composed by Hydra into one plain mapping.

Hydra chooses and merges the YAML files; the shell's values are laid over the result here, so that a key that no YAML
has is judged by our schema (`schema.py`), together with everything else that is wrong.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from genai_cli import registry
from genai_cli.config import conf_dir
from genai_cli.errors import ConfigError
from genai_cli.overrides import RESOLVER, Typed, assign, merge, quote
from genai_cli.schema import flatten

MISSING = "???"
OUTRANKED = (
    "optimizer",
    "device",
    "logger",
    "adapter",
)  # groups that come before the model, so that its preset may set their keys
# Hydra keeps its hands off: no directory, no log file, no logging of its own.
QUIET = [
    "hydra/job_logging=none",
    "hydra/hydra_logging=none",
    "hydra.run.dir=.",
    "hydra.output_subdir=null",
    "hydra.job.chdir=false",
]


@dataclass(frozen=True)
class Composed:
    """One configuration, not yet checked."""

    values: dict[str, Any]  # as written, with references such as ${train.steps}
    resolved: dict[str, Any]
    choices: dict[str, str]  # group -> what was chosen
    typed: set[str]  # dotted keys that the shell set
    missing: list[str]  # groups that had to be chosen and were not
    hydra: DictConfig


def compose_command(command: str, overrides: list[Typed], config_dir: Path | None = None) -> Composed:
    """The configuration of a command: conf/<command>.yaml, its groups, then the shell's values."""
    config, missing = _compose_groups(command, [typed for typed in overrides if _is_for_hydra(typed)], config_dir)
    hydra = config.pop("hydra")
    _refuse_hostile(hydra)
    values = OmegaConf.to_container(config, resolve=False)
    for typed in overrides:
        if typed.key in OUTRANKED and typed.value is not None:  # typed by the user, it wins over a model's preset
            merge(values, _own_values(typed, config_dir))
    typed_values = [typed for typed in overrides if not _is_for_hydra(typed)]
    assign(values, typed_values)
    choices = {group: choice for group, choice in hydra.runtime.choices.items() if isinstance(choice, str)}
    return Composed(values, _resolve(values), choices, _typed_keys(typed_values), missing, hydra)


def compose_over(
    base: dict[str, Any], overrides: list[Typed], config_dir: Path | None = None
) -> tuple[dict[str, Any], set[str]]:
    """A run's own configuration with the shell's choices and values laid over it, and the keys that were typed.

    `base` is not to be trusted: nothing in it is resolved, so the overrides cannot refer to it either.
    """
    typed_values = []
    for typed in overrides:
        if typed.is_group and not typed.is_deletion and typed.value is not None:
            merge(base, _own_values(typed, config_dir))
        elif isinstance(typed.value, str) and "${" in typed.value:
            raise ConfigError(f"{typed}: a run that goes on takes values, no references such as ${{train.steps}}")
        else:
            typed_values.append(typed)
    assign(base, typed_values)
    return base, _typed_keys(typed_values)


def _own_values(choice: Typed, config_dir: Path | None) -> dict[str, Any]:
    """What the YAML of one choice says: {"optimizer": {"name": "sgd", ...}}."""
    with _searching(config_dir):
        chosen = _compose(f"{choice.key}/{choice.value}", config_dir, [], return_hydra_config=False)
    return OmegaConf.to_container(chosen, resolve=False)


def _is_for_hydra(typed: Typed) -> bool:
    return typed.is_group or typed.key.startswith(("hydra/", "hydra."))


def _typed_keys(overrides: list[Typed]) -> set[str]:
    nested = [flatten({typed.key: typed.value}) for typed in overrides if not typed.is_deletion]
    return {key for keys in nested for key in keys}


def _compose_groups(command: str, overrides: list[Typed], config_dir: Path | None) -> tuple[DictConfig, list[str]]:
    """Hydra's composition; a group that is required and missing is named, and any choice put in its place."""
    texts = [str(typed) for typed in overrides]
    missing: list[str] = []
    with _searching(config_dir):
        while True:
            try:
                return _compose(command, config_dir, texts, return_hydra_config=True), missing
            except _MissingGroup as error:
                missing.append(error.group)
                texts.append(f"{error.group}={next(iter(registry.presets(error.group, config_dir)))}")


class _MissingGroup(Exception):
    def __init__(self, group: str):
        super().__init__(group)
        self.group = group


@contextmanager
def _searching(config_dir: Path | None) -> Iterator[None]:
    if config_dir is not None and not config_dir.is_dir():
        raise ConfigError(f"--config-dir {config_dir} is no folder")
    with initialize_config_dir(config_dir=str(conf_dir()), version_base="1.3"):
        yield


def _compose(name: str, config_dir: Path | None, overrides: list[str], *, return_hydra_config: bool) -> DictConfig:
    search = [f"hydra.searchpath=[{quote(f'file://{config_dir.resolve()}')}]"] if config_dir else []
    try:
        config = compose(name, [*search, *QUIET, *overrides], return_hydra_config=return_hydra_config)
    except Exception as error:  # whatever it is (Hydra asserts, too), it comes of the files and words it was given
        group = re.match(r"You must specify '([^']+)'", str(error))
        if group:
            raise _MissingGroup(group[1]) from error
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ConfigError("the YAML files cannot be composed: " + " ".join(lines[:2])) from error
    OmegaConf.set_struct(config, False)
    OmegaConf.set_readonly(config, False)
    return config


def _refuse_hostile(hydra: DictConfig) -> None:
    """What a YAML file may set in Hydra's own configuration but the shell may not: code to import, variables to set."""
    plugins = (hydra.launcher.get("_target_"), hydra.sweeper.get("_target_"))
    is_known = all(str(name).startswith(("hydra_plugins.", "hydra._internal.core_plugins.")) for name in plugins)
    targets = [key for key in flatten(OmegaConf.to_container(hydra, resolve=False)) if "_target_" in key]
    allowed = {"launcher._target_", "sweeper._target_"}
    if not is_known or set(targets) - allowed or hydra.callbacks or hydra.job.env_set:
        raise ConfigError("a YAML file sets hydra's callbacks, env_set or a _target_, which could run code; remove it")
    for logging in (hydra.job_logging, hydra.hydra_logging):
        if set(logging) - {"version", "root", "disable_existing_loggers"} or logging.get("root") is not None:
            raise ConfigError("a YAML file configures Hydra's logging, which is not used here; remove it")


def _resolve(values: dict[str, Any]) -> dict[str, Any]:
    """`values` with references resolved and keys without a value left out; no resolver is run."""
    for key, value in flatten(values).items():
        if RESOLVER.search(str(value)):
            raise ConfigError(f"{key}: resolvers such as ${{oc.env:...}} are not run; give the value itself")
    try:
        resolved = OmegaConf.to_container(OmegaConf.create(values), resolve=True)
    except (OmegaConfBaseException, ValueError, RecursionError) as error:
        raise ConfigError(f"a reference cannot be resolved: {str(error).splitlines()[0]}") from error
    return _without_missing(resolved)


def _without_missing(values: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _without_missing(value) if isinstance(value, dict) else value
        for key, value in values.items()
        if value != MISSING
    }
