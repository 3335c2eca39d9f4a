"""The checks behind `schema.py`: each reports what is wrong, in the user's words, and goes on with what is right."""

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, get_type_hints

from genai_cli import expressions, registry
from genai_cli.annotations import Misfit, conform, printable, read_annotation, show
from genai_cli.config import AdapterConfig, Config, ConfigError, DoctorConfig, OptimizerConfig, TrainConfig
from genai_cli.registry import DATASET, MODEL, Definition, Kind, Option
from genai_cli.suggest import MAX_LISTED, advice, nearest

GROUPS = {group: kind for group, kind in get_type_hints(Config).items() if dataclasses.is_dataclass(kind)}
OPTIMIZER_KEYS = {  # the keys that not every optimizer reads
    "betas": ("adam", "adamw"),
    "momentum": ("sgd", "rmsprop"),
}


@dataclasses.dataclass(frozen=True)
class Named:
    """A model or data set whose name is in the closed set, with its options checked and completed."""

    definition: Definition
    typed_as: str  # "model=gan"
    options: dict[str, Any]


class Check:
    """Problems found so far. Every method reports what is wrong and goes on with what is right."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def problem(self, words: str) -> None:
        line = printable(words)
        if line not in self.problems:
            self.problems.append(line)

    def has_problem(self, *keys: str) -> bool:
        return any(problem.startswith(keys) for problem in self.problems)

    def raise_problems(self) -> None:
        if self.problems:
            raise ConfigError(*self.problems)

    def record(
        self, kind: type, values: Mapping[str, Any], prefix: str = "", *, optional: Iterable[str] = ()
    ) -> dict[str, Any]:
        """The fields of dataclass `kind` that are given and right, nested ones built of what is right."""
        hints = get_type_hints(kind, include_extras=True)
        fields = {field.name: field for field in dataclasses.fields(kind)}
        known: dict[str, Any] = {}
        for key, value in values.items():
            if key not in fields:
                self.problem(unknown_key(prefix, str(key), fields))
            elif dataclasses.is_dataclass(hints[key]):
                known |= self.nested(key, hints[key], value, prefix)
            else:
                known |= self.value(key, hints[key], value, prefix)
        for key, field in fields.items():
            is_required = field.default is field.default_factory is dataclasses.MISSING and key not in optional
            if is_required and key not in values and nearest(key, map(str, set(values) - set(fields))) is None:
                self.problem(f"{prefix}{key} is required")
        return known

    def nested(self, key: str, kind: type, value: Any, prefix: str) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            first = dataclasses.fields(kind)[0].name
            self.problem(f"{prefix}{key}={show(value)} must be keys with values, such as {prefix}{key}.{first}=...")
            return {}
        return {key: kind(**self.record(kind, value, f"{prefix}{key}."))}

    def value(self, key: str, kind: Any, value: Any, prefix: str) -> dict[str, Any]:
        """{key: value of that type}, or {} and a problem."""
        try:
            return {key: conform(value, kind)}
        except Misfit as misfit:
            self.problem(f"{prefix}{key}={show(value)} {misfit}")
            return {}

    def named(self, kind: Kind, values: Any, plugins: Iterable[str], choice: str | None) -> Named | None:
        """The definition that `values["name"]` chooses, and the options beside it, checked."""
        if not isinstance(values, dict):
            return None
        name = values.get("name")
        try:
            definition = registry.define(kind, name, plugins)
        except ConfigError as error:
            self.problem(f"{kind.word}.name is required" if name is None else str(error))
            return None
        typed_as = f"{kind.word}={choice or name}"
        given = {key: value for key, value in values.items() if key != "name"}
        if kind is MODEL and "modalities" in given:  # what a preset is for, where that is not all that its model learns
            some = list[Literal[definition.modalities]]
            chosen = self.value("modalities", some, given.pop("modalities"), "model.")
            definition = definition.of(chosen.get("modalities"))
        options = self.options(definition.options, given, f"{kind.word}.", typed_as, also=("name",))
        self.rules(definition, options, kind, typed_as)
        return Named(definition, typed_as, {"name": name, **options})

    def options(
        self,
        options: Mapping[str, Option],
        given: Mapping[str, Any],
        prefix: str,
        owner: str,
        *,
        also: Iterable[str] = (),
        fill: bool = True,
    ) -> dict[str, Any]:
        """The given keyword arguments, checked by their annotations; with `fill`, the defaults of the others too."""
        known: dict[str, Any] = {}
        for key, value in given.items():
            if key in options:
                known |= self.value(key, _annotation(options[key], owner), value, prefix)
            else:
                advised = advice(str(key), [*options, *also], before=prefix)
                self.problem(f"{prefix}{key} is no key of {owner}; {advised}")
        for key, option in options.items():
            if key not in given and option.default is registry.REQUIRED:
                self.problem(f"{prefix}{key} is required by {owner}: give {prefix}{key}=...")
            elif key not in given and fill and option.default is not registry.COMPUTED:
                known[key] = option.default
        return known

    def rules(self, definition: Definition, options: Mapping[str, Any], kind: Kind, typed_as: str) -> None:
        """Rules over several keys, where each of their keys is right by itself."""
        for expression, words in definition.rules.items():
            keys = sorted(expressions.names(expression))
            if set(keys) <= set(options) and not expressions.holds(expression, options):
                values = ", ".join(f"{kind.word}.{key}={show(options[key])}" for key in keys)
                self.problem(f"{values}: {words} ({typed_as})")

    def combination(self, model: Named, dataset: Named, plugins: Iterable[str]) -> None:
        """Refuse a pair of which the model cannot learn the data's modality, and say which pairs there are."""
        if model.definition.fits(dataset.definition):
            return
        remedies = []
        if data := _choices(DATASET, model.definition.fits, plugins):
            remedies.append(f"{model.typed_as} with dataset={data}")
        if learners := _choices(MODEL, lambda other: other.fits(dataset.definition), plugins):
            remedies.append(f"{dataset.typed_as} with model={learners}")
        self.problem(
            f"{model.typed_as} learns {model.definition.matter}, "
            f"but {dataset.typed_as} is {dataset.definition.matter}; try {', or '.join(remedies) or 'another pair'}"
        )

    def optimizer(self, optimizer: OptimizerConfig | None) -> None:
        """The keys that this optimizer does not read, and those of `overrides`, group by group."""
        if optimizer is None:
            return
        defaults = OptimizerConfig(name=optimizer.name)
        for key in OPTIMIZER_KEYS:
            if getattr(optimizer, key) != getattr(defaults, key):
                self.optimizer_reads(key, f"optimizer.{key}", getattr(optimizer, key), optimizer.name)
        for group, keys in optimizer.overrides.items():
            prefix = f"optimizer.overrides.{group}."
            if "overrides" in keys:
                self.problem(f"{prefix}overrides: there are no overrides of overrides")
            known = self.record(OptimizerConfig, {key: keys[key] for key in keys if key != "overrides"}, prefix)
            for key in known.keys() & OPTIMIZER_KEYS.keys():
                self.optimizer_reads(key, prefix + key, known[key], known.get("name", optimizer.name))
            keys.update(known)

    def optimizer_reads(self, key: str, full_key: str, value: Any, name: str) -> None:
        if name not in OPTIMIZER_KEYS[key]:
            users = " or ".join(OPTIMIZER_KEYS[key])
            self.problem(f"{full_key}={show(value)} has no effect with optimizer={name}; it is a key of {users}")

    def length(self, train: TrainConfig | None) -> None:
        """Exactly one of `train.steps` and `train.epochs`, of which a model's YAML gives one."""
        if train is None or self.has_problem("train.steps", "train.epochs"):
            return
        if train.steps is None and train.epochs is None:
            self.problem("train.steps and train.epochs are both null; give one, such as train.steps=5000")
        if train.steps is not None and train.epochs is not None:
            both = f"train.steps={train.steps} and train.epochs={show(train.epochs)}"
            self.problem(f"{both} are two lengths; give one, and null for the other")

    def batch(self, train: TrainConfig | None) -> None:
        """Micro-batches and processes share a batch evenly."""
        if train is None or self.has_problem("train.batch_size", "train.accumulate"):
            return
        world_size = os.environ.get("WORLD_SIZE", "1")
        processes = int(world_size) if world_size.isdecimal() and int(world_size) > 0 else 1
        accumulate = 1 if train.accumulate == "auto" else train.accumulate
        if train.batch_size % (accumulate * processes) != 0:
            shares = f"train.accumulate={train.accumulate}" + (f" x {processes} processes" if processes > 1 else "")
            self.problem(f"train.batch_size={train.batch_size} must be divisible by {shares}")

    def doctor(self, doctor: DoctorConfig | None, train: TrainConfig | None) -> None:
        """A rollback needs checkpoints to go back to."""
        if doctor is None or train is None or train.save_every is not None:
            return
        for key, policy in dataclasses.asdict(doctor).items():
            if policy == "rollback":
                self.problem(f"doctor.{key}=rollback needs checkpoints; give train.save_every, or doctor.{key}=stop")

    def start(self, known: Mapping[str, Any]) -> None:
        """What stays as it was needs a run that it was in; an adapter leaves nothing for `freeze` to say."""
        if self.has_problem("init", "freeze", "adapter"):
            return
        init, freeze, adapter = known.get("init"), known.get("freeze", ()), known.get("adapter", AdapterConfig())
        if init is None and freeze:
            self.problem(f"freeze={show(freeze)} needs init=RUN: weights that nobody trained would stay random")
        if init is None and adapter.name != "none":
            self.problem(f"adapter={adapter.name} needs init=RUN, the run whose weights it is added to")
        if adapter.name != "none" and freeze:
            self.problem(f"freeze={show(freeze)}: adapter={adapter.name} keeps every weight of init; leave freeze out")
        if adapter.name == "none" and adapter != AdapterConfig():
            self.problem("adapter.rank, alpha and targets have no effect with adapter=none; give adapter=lora")


def prefer_typed(values: Mapping[str, Any], typed: Iterable[str]) -> dict[str, Any]:
    """`values` without what presets say against the keys that the user typed.

    `train.epochs` typed replaces `train.steps` of the model's YAML; betas of the model's YAML go with an optimizer
    that has none, where only typed ones are refused.
    """
    typed = set(typed)
    values = {key: dict(value) if isinstance(value, Mapping) else value for key, value in values.items()}
    train, optimizer = values.get("train"), values.get("optimizer")
    for mine, other in (("steps", "epochs"), ("epochs", "steps")):
        is_chosen = f"train.{mine}" in typed and f"train.{other}" not in typed
        if isinstance(train, dict) and is_chosen and train.get(mine) is not None:
            train[other] = None
    if isinstance(optimizer, dict):
        for key, users in OPTIMIZER_KEYS.items():
            if optimizer.get("name", "adam") not in users and f"optimizer.{key}" not in typed:
                optimizer.pop(key, None)
    return values


def _annotation(option: Option, owner: str) -> Any:
    if option.annotation is None:
        raise ConfigError(f"{option.name} of {owner} has no annotation to check its value by")
    try:
        return read_annotation(option.annotation)
    except ValueError as error:
        raise ConfigError(f"{option.name} of {owner}: {error}") from error


def _choices(kind: Kind, is_fitting: Callable[[Definition], bool], plugins: Iterable[str]) -> str:
    """Presets of a fitting definition, to be typed: "ae or beta_vae or ..."; empty if there is none."""
    fitting = []
    for name, preset in registry.presets(kind.word).items():
        if is_fitting(registry.defined_by(preset, kind, plugins)):
            fitting.append(name)
    more = len(fitting) - MAX_LISTED
    return " or ".join(fitting[:MAX_LISTED]) + (f" (and {more} more)" if more > 0 else "")


def unknown_key(prefix: str, key: str, siblings: Iterable[str]) -> str:
    """`train.batch_siz is no key of train; did you mean train.batch_size?`, or the same name in another group."""
    owner = f"of {prefix.rstrip('.')}" if prefix else "here"
    near = nearest(key, siblings)
    elsewhere = _keys_of_config().get(key)
    if near is None and elsewhere is not None:
        return f"{prefix}{key} is no key {owner}; did you mean {elsewhere}?"
    return f"{prefix}{key} is no key {owner}; {advice(key, siblings, before=prefix)}"


def _keys_of_config() -> dict[str, str]:
    """`batch_size` -> `train.batch_size`, for every key of a training run's groups."""
    return {name: f"{group}.{name}" for group, kind in GROUPS.items() for name in kind.__dataclass_fields__}
