"""The closed set of names: which models, data sets and presets there are. Read with `ast`, never imported.

A model (a data set) is a file of `genai_cli/models` (`genai_cli/data`) whose class derives directly from
`GenerativeModel` (`Dataset`); its name is the file's. Installed packages join by the entry point groups
`genai.models` and `genai.datasets`, and only where the configuration lists them in `plugins`. Nothing else that a
configuration may say is ever imported.
"""

import ast
import functools
import importlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from genai_cli.config import conf_dir
from genai_cli.errors import ConfigError
from genai_cli.suggest import advice

PACKAGE = Path(__file__).resolve().parent
GROUPS = {  # the folders of conf/ that a command composes: what `group=NAME` can choose
    "train": ("model", "dataset", "optimizer", "device", "logger", "adapter", "experiment"),
    "sample": ("device",),
    "evaluate": ("device",),
    "encode": ("device",),
    "compare": ("device",),
    "doctor": ("device",),
    "report": ("device",),
}
REQUIRED = object()  # the default of a parameter that has none
COMPUTED = object()  # a default that is no literal


@dataclass(frozen=True)
class Kind:
    """One of the two kinds of things with a name."""

    word: str  # what the user types: model=, dataset=
    folder: str
    base: str  # the class that a definition derives from
    entry_points: str


MODEL = Kind("model", "models", "GenerativeModel", "genai.models")
DATASET = Kind("dataset", "data", "Dataset", "genai.datasets")


@dataclass(frozen=True)
class Option:
    """A keyword-only parameter: a key of the YAML, or an option of `genai sample` or `genai evaluate`."""

    name: str
    annotation: ast.expr | None
    default: Any  # a literal, REQUIRED or COMPUTED


@dataclass(frozen=True)
class Definition:
    """What a model's or a data set's file says of itself."""

    name: str
    module: str
    class_name: str
    source: Path
    origin: str  # "built in" or the package that announces it
    summary: str
    modalities: tuple[str, ...]  # a data set has one
    options: dict[str, Option]
    sample_options: dict[str, Option] = field(default_factory=dict)
    evaluate_options: dict[str, Option] = field(default_factory=dict)
    rules: dict[str, str] = field(default_factory=dict)
    tiny: dict[str, Any] = field(default_factory=dict)
    without: dict[str, str] = field(default_factory=dict)  # of a model: why it has no such option of samples
    monitor: str | None = None
    translates: str | None = None  # of a model: whether it needs data with a source, "pairs" or "domains"
    has_source: bool = False  # of a data set
    variant: str | None = None  # of a data set: the option whose value is shown with its name

    def fits(self, dataset: "Definition") -> bool:
        """Whether this model can learn what that data set has."""
        has_what_it_needs = dataset.has_source or self.translates is None
        return has_what_it_needs and set(dataset.modalities) <= set(self.modalities)

    def of(self, modalities: Iterable[str] | None) -> "Definition":
        """The same for `modalities` alone, which are some of its own; null: for all of them."""
        if modalities is None:
            return self
        return replace(self, modalities=tuple(name for name in self.modalities if name in modalities))

    @property
    def matter(self) -> str:
        """What a model learns or a data set is, in words."""
        needs = {None: "", "pairs": " pairs", "domains": " pairs or two domains"}[self.translates]
        return " or ".join(self.modalities) + (" with sources" if self.has_source else needs)


@dataclass(frozen=True)
class Preset:
    """A YAML file of a configuration group: what `model=NAME` chooses."""

    name: str
    summary: str  # its first comment line
    origin: str  # "built in" or the user's folder
    path: Path


def names(kind: Kind, plugins: Iterable[str] = ()) -> list[str]:
    """Every name of a kind: the built-in ones and those of the named plugins."""
    return sorted({*_built_in_sources(kind), *_announced_entries(kind, tuple(plugins))})


def define(kind: Kind, name: str, plugins: Iterable[str] = ()) -> Definition:
    """What the file of that name says of itself. Raises ConfigError for a name outside the closed set."""
    if not isinstance(name, str) or name not in names(kind, plugins):
        raise ConfigError(f"{kind.word}.name={name} is no {kind.word}; {advice(str(name), names(kind, plugins))}")
    return _define(kind, name, tuple(plugins))


def load_model_class(name: str, plugins: Iterable[str] = ()) -> type:
    """Import the class of a model of the closed set. Raises ConfigError for any other name."""
    return _load(define(MODEL, name, plugins))


def load_dataset_class(name: str, plugins: Iterable[str] = ()) -> type:
    """Import the class of a data set of the closed set. Raises ConfigError for any other name."""
    return _load(define(DATASET, name, plugins))


def presets(group: str, config_dir: Path | None = None) -> dict[str, Preset]:
    """What a configuration group offers. A packaged name cannot be replaced by the user's folder."""
    found = {}
    for folder, origin in ((config_dir, str(config_dir)), (conf_dir(), "built in")):
        if folder is not None:
            for path in sorted((folder / group).glob("*.yaml")):
                found[path.stem] = Preset(path.stem, _first_comment(path), origin, path)
    return dict(sorted(found.items()))


def named_by(preset: Preset, kind: Kind) -> str | None:
    """The name of the model (data set) that a preset's YAML gives options for."""
    name = _values_of(preset, kind).get("name")
    return name if isinstance(name, str) else None


def defined_by(preset: Preset, kind: Kind, plugins: Iterable[str] = ()) -> Definition:
    """The definition that a preset names, of those `modalities` alone that its YAML is for. Raises ConfigError."""
    modalities = _values_of(preset, kind).get("modalities")
    definition = define(kind, named_by(preset, kind) or preset.name, plugins)
    return definition.of(modalities if isinstance(modalities, list) else None)


def _values_of(preset: Preset, kind: Kind) -> dict[str, Any]:
    import yaml

    try:
        values = yaml.safe_load(preset.path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    inner = values.get(kind.word, values) if isinstance(values, dict) else {}
    return inner if isinstance(inner, dict) else {}


def announced_packages(kind: Kind) -> dict[str, str]:
    """Name of every installed plugin's model or data set -> the package that announces it."""
    return {entry.name: _package_of(entry) for entry in _entry_points(kind)}


def _load(definition: Definition) -> type:
    return getattr(importlib.import_module(definition.module), definition.class_name)


@functools.cache
def _built_in_sources(kind: Kind) -> dict[str, Path]:
    """Name -> file, of the files that define one; told by their text, which is quicker than their syntax tree."""
    derives = re.compile(rf"^class \w+\(.*\b{kind.base}\b", re.MULTILINE)
    paths = sorted((PACKAGE / kind.folder).glob("*.py"))
    return {path.stem: path for path in paths if derives.search(path.read_text(encoding="utf-8"))}


@functools.cache
def _announced_entries(kind: Kind, plugins: tuple[str, ...]) -> dict[str, Any]:
    """Name -> entry point, of the packages in `plugins`."""
    return {entry.name: entry for entry in _entry_points(kind) if _package_of(entry) in plugins} if plugins else {}


@functools.cache
def _define(kind: Kind, name: str, plugins: tuple[str, ...]) -> Definition:
    if name in _built_in_sources(kind):  # a plugin cannot take a built-in name
        source, origin, module = _built_in_sources(kind)[name], "built in", f"genai_cli.{kind.folder}.{name}"
        node = _class_of(source, lambda node: any(_last_name(base) == kind.base for base in node.bases))
    else:
        entry = _announced_entries(kind, plugins)[name]
        source, origin, module = _source_of(entry.module), _package_of(entry), entry.module
        node = _class_of(source, lambda node: node.name == entry.attr)
    return _read_class(node, name=name, module=module, source=source, origin=origin)


def _entry_points(kind: Kind) -> Iterable[Any]:
    from importlib.metadata import entry_points  # reads the folder of installed packages: only where asked for

    return entry_points(group=kind.entry_points)


def _package_of(entry: Any) -> str:
    return entry.dist.name if entry.dist is not None else entry.module.partition(".")[0]


def _source_of(module: str) -> Path:
    """The file of an installed module, found without importing it or the packages above it."""
    from importlib.machinery import PathFinder

    path, spec = None, None
    for depth in range(1, module.count(".") + 2):
        spec = PathFinder.find_spec(".".join(module.split(".")[:depth]), path)
        if spec is None:
            break
        path = spec.submodule_search_locations
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise ConfigError(f"plugin module {module} has no Python source to read its options from")
    return Path(spec.origin)


def _class_of(source: Path, is_wanted: Callable[[ast.ClassDef], bool]) -> ast.ClassDef:
    """The first class of a file that `is_wanted`."""
    try:
        tree = ast.parse(source.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError) as error:
        raise ConfigError(f"{source} is no valid Python: {error}") from error
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and is_wanted(node):
            return node
    raise ConfigError(f"{source} does not define the class that is looked for in it")


def _last_name(node: ast.expr) -> str:
    """`Dataset` of both `Dataset` and `base.Dataset`."""
    return ast.unparse(node).rpartition(".")[2]


def _read_class(node: ast.ClassDef, *, name: str, module: str, source: Path, origin: str) -> Definition:
    attributes = dict(_literal_attributes(node))
    methods = {item.name: item for item in node.body if isinstance(item, ast.FunctionDef)}
    modalities = attributes.get("modalities", attributes.get("modality", ()))
    return Definition(
        name=name,
        module=module,
        class_name=node.name,
        source=source,
        origin=origin,
        summary=(ast.get_docstring(node) or "").partition("\n")[0],
        modalities=(modalities,) if isinstance(modalities, str) else tuple(modalities),
        options=_keyword_options(methods.get("__init__")),
        sample_options=_keyword_options(methods.get("sample")),
        evaluate_options=_keyword_options(methods.get("evaluate")),
        rules=attributes.get("rules", {}),
        tiny=attributes.get("tiny", {}),
        without=attributes.get("without", {}),
        monitor=attributes.get("monitor"),
        translates=attributes.get("translates"),
        has_source=attributes.get("has_source", False),
        variant=attributes.get("variant"),
    )


def _literal_attributes(node: ast.ClassDef) -> Iterator[tuple[str, Any]]:
    for item in node.body:
        match item:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                pass
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                pass
            case _:
                continue
        literal = _literal(value)
        if literal is not COMPUTED:
            yield name, literal


def _keyword_options(function: ast.FunctionDef | None) -> dict[str, Option]:
    if function is None:
        return {}
    pairs = zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True)
    return {
        argument.arg: Option(argument.arg, argument.annotation, REQUIRED if default is None else _literal(default))
        for argument, default in pairs
    }


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return COMPUTED


def _first_comment(path: Path) -> str:
    """The first comment line that is no `# @package` directive, without a command quoted in it."""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if not line.startswith("#"):
            return ""
        text = line.lstrip("# ")
        if not text.startswith("@package"):
            return text.partition(" `genai ")[0].rstrip()
    return ""
