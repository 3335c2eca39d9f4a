"""The closed set of names: what is read of every file without importing it, and what is never imported."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from genai_cli import expressions, registry
from genai_cli.annotations import conform, read_annotation
from genai_cli.config import conf_dir
from genai_cli.configure import configure
from genai_cli.errors import ConfigError
from genai_cli.overrides import Overrides
from genai_cli.registry import COMPUTED, DATASET, MODEL, REQUIRED

EVERYTHING = [(kind, name) for kind in (MODEL, DATASET) for name in registry.names(kind)]

PLUGIN = '''
"""A plugin that must not be imported for its options to be known."""
raise SystemExit("imported")

class Toy(GenerativeModel):
    """A toy."""

    modalities = ("points",)

    def __init__(self, spec, *, width: int = 3):
        pass
'''


def test_the_six_models_of_the_trunk_are_known():
    assert {"gan", "dcgan", "vae", "ae", "ddpm", "gpt"} <= set(registry.names(MODEL))


@pytest.mark.parametrize(("kind", "name"), EVERYTHING)
def test_every_definition_is_a_whole_schema(kind, name):
    definition = registry.define(kind, name)
    assert definition.summary and definition.modalities
    for option in [
        *definition.options.values(),
        *definition.sample_options.values(),
        *definition.evaluate_options.values(),
    ]:
        annotated = read_annotation(option.annotation)
        if option.default not in (REQUIRED, COMPUTED):
            assert conform(option.default, annotated) == option.default
    for key, value in definition.tiny.items():
        conform(value, read_annotation(definition.options[key].annotation))


@pytest.mark.parametrize(("kind", "name"), EVERYTHING)
def test_rules_speak_of_the_options_and_hold_of_the_defaults_and_of_the_tiny_instance(kind, name):
    definition = registry.define(kind, name)
    defaults = {key: option.default for key, option in definition.options.items()}
    for expression, words in definition.rules.items():
        assert words and expressions.names(expression) <= set(definition.options)
        assert expressions.holds(expression, defaults)
        assert expressions.holds(expression, {**defaults, **definition.tiny})


@pytest.mark.parametrize("kind", [MODEL, DATASET], ids=["model", "dataset"])
def test_every_preset_names_a_definition_says_what_it_is_and_every_definition_has_a_preset(kind):
    presets = registry.presets(kind.word)
    named = {registry.named_by(preset, kind) for preset in presets.values()}
    assert named == set(registry.names(kind))
    assert all(preset.summary for preset in presets.values())


def test_a_preset_may_be_for_some_of_the_data_that_its_model_learns():
    ldm, ddpm = (registry.defined_by(registry.presets("model")[name], MODEL) for name in ("ldm", "ddpm"))
    assert (ldm.name, ldm.modalities) == ("ddpm", ("latents",)) and "image" in ddpm.modalities


def test_loading_gives_the_class_that_was_read():
    assert registry.load_dataset_class("mnist").__name__ == registry.define(DATASET, "mnist").class_name
    assert registry.load_model_class("vae").modalities == registry.define(MODEL, "vae").modalities


@pytest.mark.parametrize("name", ["os", "os.system", "genai_cli.models.vae", "../vae", "base", "", None, 3, ["vae"]])
def test_nothing_outside_the_closed_set_is_loaded(name):
    with pytest.raises(ConfigError, match="is no model"):
        registry.load_model_class(name)


def test_reading_imports_no_model_no_torch_and_no_hydra():
    program = (
        "import sys; from genai_cli import registry as r;"
        "[r.define(k, n) for k in (r.MODEL, r.DATASET) for n in r.names(k)];"
        "print([m for m in ('torch', 'hydra', 'genai_cli.models.vae') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.fixture
def toy_plugin(tmp_path, monkeypatch):
    """An installed package `toy-plugin` that announces the model `toy`, and whose import would be noticed."""
    (tmp_path / "toy_plugin").mkdir()
    (tmp_path / "toy_plugin" / "__init__.py").write_text('raise SystemExit("imported")')
    (tmp_path / "toy_plugin" / "model.py").write_text(PLUGIN)
    information = tmp_path / "toy_plugin-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-plugin\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[genai.models]\ntoy = toy_plugin.model:Toy\nvae = os:system\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry._announced_entries.cache_clear()
    registry._define.cache_clear()
    yield
    registry._announced_entries.cache_clear()
    registry._define.cache_clear()


def test_a_plugin_is_read_without_import_and_only_where_it_is_listed(toy_plugin):
    assert "toy" not in registry.names(MODEL)
    definition = registry.define(MODEL, "toy", ["toy-plugin"])
    assert (definition.origin, list(definition.options)) == ("toy-plugin", ["width"])
    with pytest.raises(ConfigError):
        registry.define(MODEL, "toy", ["another"])


def test_a_plugin_cannot_take_a_built_in_name(toy_plugin):
    assert registry.define(MODEL, "vae", ["toy-plugin"]).origin == "built in"


def test_a_users_folder_adds_presets_but_replaces_none(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("# @package _global_\n# Mine.\nmodel:\n  name: vae\n")
    (tmp_path / "model" / "vae.yaml").write_text("# Not this one.\n")
    presets = registry.presets("model", tmp_path)
    assert (presets["mine"].summary, presets["mine"].origin) == ("Mine.", str(tmp_path))
    assert presets["vae"].origin == "built in"


def test_every_yaml_says_first_what_it_is():
    for path in sorted(Path(conf_dir()).rglob("*.yaml")):
        assert path.read_text(encoding="utf-8").startswith("# "), path
        assert isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict), path


def test_a_plugins_model_without_a_preset_is_refused_with_what_to_write(toy_plugin):
    overrides = Overrides(["model=toy", "dataset=mnist", "plugins=[toy-plugin]"])
    (problem,) = overrides.problems
    assert "model=toy is of the package toy-plugin" in problem
    assert "DIR/model/toy.yaml" in problem and "plugins: [toy-plugin]" in problem and "--config-dir DIR" in problem


def test_a_plugins_model_with_that_preset_composes(toy_plugin, tmp_path):
    (tmp_path / "conf" / "model").mkdir(parents=True)
    lines = "# @package _global_\nplugins: [toy-plugin]\nmodel: {name: toy}\ntrain: {steps: 3}\n"
    (tmp_path / "conf" / "model" / "toy.yaml").write_text(lines)
    overrides = Overrides(["model=toy", "dataset=toy2d"], config_dir=tmp_path / "conf")
    assert configure("train", next(overrides.jobs()), overrides).config.model["name"] == "toy"


def test_a_value_may_hold_an_equals_sign():
    """As the folders do that samples are written to."""
    (job,) = Overrides(["given=outputs/samples/step-1-seed-0-keep=top_half"], command="sample").jobs()
    assert job[0].value == "outputs/samples/step-1-seed-0-keep=top_half"
