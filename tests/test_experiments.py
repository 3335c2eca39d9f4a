"""Every preset and every recipe of conf/ composes and passes the checks of the command line, as if it were typed."""

import functools
import itertools
import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest

from genai_cli import registry
from genai_cli.cli import COMMANDS
from genai_cli.config import Config, conf_dir
from genai_cli.configure import configure
from genai_cli.errors import ConfigError
from genai_cli.overrides import Overrides
from genai_cli.registry import DATASET, MODEL

REQUIRED = {  # what a data set cannot guess
    "folder": ["dataset.path=photos"],
    "midi": ["dataset.path=songs"],
    "csv": ["dataset.path=sales.csv"],
    "wav": ["dataset.path=sounds"],
    "smiles": ["dataset.path=molecules.smi"],
    "jsonl": ["dataset.path=pairs.jsonl"],
    "codes": ["dataset.run=outputs/vqvae_mnist"],
    "latents": ["dataset.run=outputs/vae_mnist"],
    "paired": ["dataset.path=pairs"],
    "unpaired": ["dataset.source=horses", "dataset.target=zebras"],
}
EXPERIMENTS = sorted(registry.presets("experiment"))
COMMAND = re.compile(r"`genai (train [^`]+)`")


def compose(*words: str) -> Config:
    """What `genai train WORDS` would train. Raises ConfigError."""
    overrides = Overrides(list(words), is_sweep=False, config_dir=None)
    return configure("train", next(overrides.jobs()), overrides).config


@functools.cache
def define(kind: registry.Kind, preset: str) -> registry.Definition:
    return registry.defined_by(registry.presets(kind.word)[preset], kind)


def pairs() -> Iterator[Any]:
    """Every model with every data set. Nightly but for one set of each kind, and each set with one model that fits.

    What YAML says of a model does not depend on the data set, and whether they fit on its kind alone.
    """
    data = {preset: define(DATASET, preset) for preset in registry.presets("dataset")}
    firsts: dict[str, str] = {}  # of each kind of data
    for preset, definition in data.items():
        firsts.setdefault(definition.matter, preset)
    served: set[str] = set()  # data sets that a model before learns
    for model, (dataset, definition) in itertools.product(registry.presets("model"), data.items()):
        is_first = dataset not in served and define(MODEL, model).fits(definition)
        served |= {dataset} if is_first else set()
        is_everyday = is_first or dataset in firsts.values()
        yield pytest.param(model, dataset, marks=() if is_everyday else pytest.mark.nightly)


@pytest.mark.parametrize(("model", "dataset"), list(pairs()))
def test_every_pair_composes_or_is_refused_with_a_valid_choice(model, dataset):
    words = [f"model={model}", f"dataset={dataset}", *REQUIRED.get(dataset, [])]
    if define(MODEL, model).fits(define(DATASET, dataset)):
        config = compose(*words)
        assert config.model["name"] == registry.named_by(registry.presets("model")[model], MODEL)
        assert (config.train.steps is None) != (config.train.epochs is None)
    else:
        with pytest.raises(ConfigError, match=rf"model={model} learns .*but dataset={dataset} is .*try ") as refused:
            compose(*words)
        assert len(refused.value.problems) == 1


@pytest.mark.parametrize("group", ["optimizer", "device", "logger"])
def test_every_choice_of_the_other_groups_composes(group):
    for choice in registry.presets(group):
        compose("model=gan", "dataset=mnist", f"{group}={choice}")


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_composes(experiment):
    config = compose(f"experiment={experiment}")
    assert config.model["name"] in registry.names(MODEL)
    assert config.dataset["name"] in registry.names(DATASET)


@pytest.mark.parametrize("group", ["model", "dataset", "experiment"])
def test_every_yaml_says_what_it_is_and_its_command_composes(group, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "DIR").mkdir()  # the run that a command names as its teacher
    (tmp_path / "DIR" / "config.yaml").touch()
    for preset in registry.presets(group).values():
        commands = COMMAND.findall(preset.path.read_text(encoding="utf-8"))
        assert preset.summary, f"{preset.path}: the first line is no comment"
        assert commands, f"{preset.path}: no `genai train ...` in its comment"
        for command in commands:
            compose(*shlex.split(command)[1:])


def test_every_commands_yaml_is_read():
    assert {path.stem for path in conf_dir().glob("*.yaml")} <= COMMANDS.keys()
