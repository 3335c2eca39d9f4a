"""Every preset and every recipe of conf/ composes and passes the checks of the command line, as if it were typed."""

import itertools
import re
import shlex

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
PAIRS = list(itertools.product(registry.presets("model"), registry.presets("dataset")))
EXPERIMENTS = sorted(registry.presets("experiment"))
COMMAND = re.compile(r"`genai (train [^`]+)`")


def compose(*words: str) -> Config:
    """What `genai train WORDS` would train. Raises ConfigError."""
    overrides = Overrides(list(words), is_sweep=False, config_dir=None)
    return configure("train", next(overrides.jobs()), overrides).config


def define(kind: registry.Kind, preset: str) -> registry.Definition:
    return registry.define(kind, registry.named_by(registry.presets(kind.word)[preset], kind))


@pytest.mark.parametrize(("model", "dataset"), PAIRS)
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
