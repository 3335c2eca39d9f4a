"""Every problem at once, in words; whatever the values, either problems or a valid configuration."""

import ast
import copy
import math
import re
from dataclasses import asdict

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from genai_cli import registry, schema
from genai_cli.annotations import conform, read_annotation, show
from genai_cli.checks import GROUPS, prefer_typed
from genai_cli.config import Config, EvaluateConfig, SampleConfig
from genai_cli.errors import ConfigError
from genai_cli.expressions import holds
from genai_cli.registry import MODEL

GOOD = {
    "model": {"name": "vae"},
    "dataset": {"name": "mnist"},
    "optimizer": {"name": "adam", "lr": 1e-3},
    "train": {"steps": 100, "batch_size": 12},
    "device": {"name": "cpu"},
    "seed": 1,
}


def changed(**dotted):
    """GOOD with `train__steps=5` and the like laid over it."""
    values = copy.deepcopy(GOOD)
    for key, value in dotted.items():
        *parents, last = key.split("__")
        node = values
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return values


def problems(**dotted):
    config, found = schema.judge_train(changed(**dotted))
    assert (config is None) == bool(found)
    return found


def test_a_good_configuration_is_completed_by_the_constructors_defaults():
    config = schema.check_train(GOOD)
    assert isinstance(config, Config)
    defaults = {key: option.default for key, option in registry.define(MODEL, "vae").options.items()}
    assert config.model == {"name": "vae", **defaults}
    assert config.run.name == "vae_mnist"


def test_checking_twice_changes_nothing_also_through_plain_values():
    config = schema.check_train(changed(optimizer__overrides={"model": {"lr": 1, "betas": [0, 0.9]}}))
    assert schema.config_from_mapping(schema.plain(asdict(config))) == config


@pytest.mark.parametrize(
    ("dotted", "words"),
    [
        ({"optimizer__lr": "abc"}, "optimizer.lr=abc must be a number"),
        ({"optimizer__lr": "3"}, "optimizer.lr=3 must be a number"),
        ({"optimizer__lr": math.nan}, "optimizer.lr=nan must be a finite number"),
        ({"optimizer__lr": math.inf}, "optimizer.lr=inf must be a finite number"),
        ({"optimizer__lr": -1}, "optimizer.lr=-1 must be at least 0"),
        ({"train__batch_size": True}, "train.batch_size=true must be a whole number"),
        ({"train__batch_size": 1.5}, "train.batch_size=1.5 must be a whole number"),
        ({"train__batch_size": 10**400}, "64 bits"),
        ({"train__batch_size": 10, "train__accumulate": 4}, "batch_size=10 must be divisible by train.accumulate=4"),
        ({"train__steps": None}, "train.steps and train.epochs are both null; give one, such as train.steps=5000"),
        ({"train__epochs": 2}, "train.steps=100 and train.epochs=2 are two lengths; give one, and null for the other"),
        ({"train__nonfinite": "stpo"}, "must be one of stop, skip, rollback; did you mean stop?"),
        ({"train": 5}, "train=5 must be keys with values, such as train.steps=..."),
        ({"model__latent_di": 3}, "model.latent_di is no key of model=vae; did you mean model.latent_dim?"),
        ({"model__latent_dim": 0}, "model.latent_dim=0 must be at least 1"),
        ({"model__name": "vea"}, "model.name=vea is no model; did you mean vae?"),
        ({"batch_size": 3}, "batch_size is no key here; did you mean train.batch_size?"),
        ({"_target_": "os.system"}, "_target_ is no key here"),
        ({"model___target_": "os.system"}, "model._target_ is no key of model=vae"),
        ({"optimizer__momentum": 0.9}, "optimizer.momentum=0.9 has no effect with optimizer=adam"),
        ({"optimizer__overrides": {"model": {"lrr": 1}}}, "did you mean optimizer.overrides.model.lr?"),
        ({"optimizer__overrides": {"model": {"lr": "x"}}}, "optimizer.overrides.model.lr=x must be a number"),
        ({"optimizer__overrides": {"model": {"overrides": {}}}}, "there are no overrides of overrides"),
        ({"run__dir": "a\0b"}, "must be the path of a folder"),
        ({"run__name": "../../etc"}, "run.name=../../etc must be made of letters"),
        (
            {"dataset__name": "shakespeare"},
            "model=vae learns image or points or series or audio, but dataset=shakespeare is text",
        ),
    ],
)
def test_a_problem_names_key_value_rule_and_remedy(dotted, words):
    found = problems(**dotted)
    assert any(words in problem for problem in found), found
    assert all("\n" not in problem and len(problem) < 400 for problem in found)


def test_all_problems_are_told_at_once():
    found = problems(optimizer__lr="x", train__keep=0, model__latent_dim=-1, devce={}, seed=-1)
    assert len(found) == 5


def test_harmless_conversions_are_made():
    config = schema.check_train(changed(train__steps=1e4, optimizer__lr=1, run__dir=2026))
    assert (config.train.steps, config.optimizer.lr, config.run.dir) == (10_000, 1.0, "2026")
    assert type(config.train.steps) is int and type(config.optimizer.lr) is float


def test_a_refused_pair_comes_with_pairs_that_are_not():
    (problem,) = problems(model__name="gpt")
    assert "model=gpt with dataset=" in problem and "shakespeare" in problem and "dataset=mnist with model=" in problem
    for kind, offered in re.findall(r"(dataset|model)=(\w+(?: or \w+)+)", problem):
        assert set(offered.split(" or ")) <= set(registry.presets(kind))
    assert not problems(model__name="gpt", dataset__name="shakespeare")


def test_rules_of_a_model_are_checked_over_its_keys():
    found = problems(model__name="gpt", model__width=10, model__heads=4, dataset__name="shakespeare")
    assert any("model.heads=4, model.width=10: width must be divisible by heads (model=gpt)" in line for line in found)


def test_what_was_typed_wins_over_the_other_length_of_a_preset():
    config = schema.check_train(prefer_typed(changed(train__epochs=2), {"train.epochs"}))
    assert (config.train.steps, config.train.epochs) == (None, 2)


def test_a_presets_betas_are_dropped_with_an_optimizer_without_them_but_typed_ones_are_refused():
    values = changed(optimizer__name="sgd", optimizer__betas=[0.5, 0.9])
    assert schema.check_train(prefer_typed(values, set())).optimizer.betas == (0.9, 0.999)
    with pytest.raises(ConfigError, match=r"optimizer\.betas"):
        schema.check_train(prefer_typed(values, {"optimizer.betas"}))


def test_processes_share_the_batch(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "5")
    assert problems() == ["train.batch_size=12 must be divisible by train.accumulate=1 x 5 processes"]


def test_changes_of_a_run_are_told_and_those_that_it_may_make_are_allowed():
    old = schema.check_train(GOOD)
    new = schema.check_train(changed(train__steps=200, device__threads=2, optimizer__lr=2e-3, run__dir="x"))
    assert len(schema.changed_keys(old, new)) == 3
    (refused,) = schema.refused_changes(old, new)
    assert refused.startswith("optimizer.lr: 0.001 in the run, 0.002 asked for")


def test_interpolations_of_an_untrusted_mapping_are_not_resolved():
    config = schema.config_from_mapping(changed(run__root="${oc.env:HOME}"))
    assert config.run.root == "${oc.env:HOME}"


def test_options_of_sample_are_those_of_the_models_own():
    model = {"name": "gpt"}
    config = schema.check_sample({"run": "x", "temperature": 1, "checkpoint": 500}, model)
    assert (config.options, config.checkpoint) == ({"temperature": 1.0}, "500")
    with pytest.raises(ConfigError, match="no key of genai sample or of model=gpt; did you mean temperature"):
        schema.check_sample({"run": "x", "temperatur": 1}, model)
    with pytest.raises(ConfigError, match="top_p=2 must be between 0 and 1"):
        schema.check_sample({"run": "x", "top_p": 2}, model)


@pytest.mark.parametrize("checked", [schema.check_sample, schema.check_evaluate])
def test_an_option_of_its_kin_that_a_model_is_without_is_refused_with_the_reason(checked):
    with pytest.raises(ConfigError, match=r"latent is no key of .* model=vqvae; .* its prior is the transformer"):
        checked({"run": "x", "latent": "gmm"}, {"name": "vqvae"})
    with pytest.raises(ConfigError, match=r"latent is no key of .* model=gan; it is one of model=.*vaegan"):
        checked({"run": "x", "latent": "gmm"}, {"name": "gan"})


def test_options_of_evaluate_are_those_of_the_models_own():
    model = {"name": "vae"}
    config = schema.check_evaluate({"run": "x", "importance_samples": 50}, model)
    assert config.options == {"importance_samples": 50}
    with pytest.raises(ConfigError, match="no key of genai evaluate or of model=vae; did you mean importance_samples"):
        schema.check_evaluate({"run": "x", "importance_sample": 1}, model)
    with pytest.raises(ConfigError, match="importance_samples is no key of genai evaluate or of model=gan"):
        schema.check_evaluate({"run": "x", "importance_samples": 50}, {"name": "gan"})


@pytest.mark.parametrize("name", registry.names(MODEL))
def test_no_option_of_a_models_sample_hides_a_key_of_the_command(name):
    definition = registry.define(MODEL, name)
    assert not set(definition.sample_options) & set(SampleConfig.__dataclass_fields__)
    assert not set(definition.evaluate_options) & set(EvaluateConfig.__dataclass_fields__)


def every_key():
    keys = [f"{group}.{key}" for group, kind in GROUPS.items() for key in kind.__dataclass_fields__]
    return [*keys, "seed", "plugins", "model", "dataset", "train", "optimizer", "model.name", "dataset.name"]


ANYTHING = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.sampled_from([0, -1, 1, 10**9, 10**30, -(10**30), 2**63, 1e9, 1e308, math.nan, math.inf, -math.inf, -0.0]),
        st.floats(),
        st.text(max_size=8),
        st.sampled_from(["adam", "sgd", "cpu", "1e4", "${seed}", "\0", "../..", "null", "gan", "mnist"]),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4) | st.integers(), inner, max_size=3),
    max_leaves=4,
)


@settings(max_examples=600, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_values_give_problems_or_a_valid_configuration(data):
    model = data.draw(st.sampled_from(registry.names(MODEL)))
    options = [f"model.{key}" for key in registry.define(MODEL, model).options]
    values = changed(model__name=model)
    some_key = st.sampled_from([*every_key(), *options]) | st.text(max_size=5)
    for key in data.draw(st.lists(some_key, min_size=1, max_size=4)):
        group, _, last = key.partition(".")
        if last and isinstance(values.setdefault(group, {}), dict):
            values[group][last] = data.draw(ANYTHING)
        else:
            values[key] = data.draw(ANYTHING)
    config, found = schema.judge_train(values)
    if config is None:
        assert found and all(isinstance(line, str) and line and "\n" not in line for line in found)
    else:
        assert_obeys(config)


def assert_obeys(config: Config) -> None:
    """Every number of a checked configuration is finite and its length, batch and combination are right."""
    for value in schema.flatten(schema.plain(config.__dict__)).values():
        assert not isinstance(value, float) or math.isfinite(value)
    assert (config.train.steps is None) != (config.train.epochs is None)
    accumulate = 1 if config.train.accumulate == "auto" else config.train.accumulate
    assert config.train.batch_size % accumulate == 0
    assert min(config.train.batch_size, accumulate, config.train.steps or 1, config.seed + 1) >= 1


@pytest.mark.parametrize(
    ("annotation", "value", "expected"),
    [
        ("int", 3.0, 3),
        ("float", 3, 3.0),
        ("int | float", 2.0, 2.0),
        ("tuple[float, ...]", [1, 2], (1.0, 2.0)),
        ("list[int] | None", None, None),
        ("dict[str, int]", {"a": 1.0}, {"a": 1}),
        ("Literal['a', 1] | None", 1, 1),
        ("'PositiveInt'", 1e3, 1000),
    ],
)
def test_values_conform_without_loss(annotation, value, expected):
    result = conform(value, read_annotation(ast.parse(annotation, mode="eval").body))
    assert (result, type(result)) == (expected, type(expected))


@pytest.mark.parametrize("annotation", ["os.system", "f()", "list[x]", "__import__('os')", "int + 1", "lambda: 1"])
def test_an_annotation_is_never_evaluated(annotation):
    with pytest.raises(ValueError, match="is no annotation"):
        read_annotation(ast.parse(annotation, mode="eval").body)


def test_rules_are_a_closed_language():
    assert holds("a % b == 0 and not (c or len(d) < 2)", {"a": 4, "b": 2, "c": 0, "d": [1, 2]})
    assert not holds("a % b == 0", {"a": 4, "b": 0})
    assert not holds("a % b == 0", {"a": 4, "b": None})
    assert not holds("2 ** a > 0", {"a": 10**9})
    for hostile in ("__import__('os')", "a.b", "(lambda: 1)()", "[x for x in a]", "a[0]", "f'{a}'"):
        with pytest.raises(ValueError, match="cannot be part of a rule"):
            holds(hostile, {"a": 1})


def test_values_are_shown_on_one_short_line():
    for value in ("a\nb\x1b[31m", "x" * 1000, 10**5000, {"a": [1] * 100}, float("nan"), None):
        assert len(show(value)) <= 80 and show(value).isprintable()


@pytest.mark.parametrize(("key", "value"), [("precision", "bf16"), ("compile", True), ("workers", 5)])
def test_what_only_training_reads_is_refused_elsewhere(key, value):
    for check in (schema.check_evaluate, lambda values: schema.check_sample(values, None)):
        with pytest.raises(ConfigError, match=f"device.{key}=.* is read by genai train alone"):
            check({"run": "x", "device": {"name": "cpu", key: value}})
        assert check({"run": "x", "device": {"name": "cpu"}}).device.name == "cpu"
