"""`genai COMMAND --help`: choices, keys and flags of a command, and of what is chosen beside it. No torch, no Hydra.

`genai train --help model=dcgan optimizer=adam` also lists the options of those two, `genai sample --help run=DIR` what
the samples of that run's model can be asked for.
"""

import ast
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from genai_cli import registry
from genai_cli.annotations import show
from genai_cli.checks import GROUPS, OPTIMIZER_KEYS
from genai_cli.config import conf_dir
from genai_cli.errors import ConfigError
from genai_cli.locate import find_run, read_config
from genai_cli.registry import DATASET, MODEL, REQUIRED, Kind, Option
from genai_cli.suggest import advice

FLAGS = """\
Flags
  --cfg job           show the configuration and stop; with --resolve, --package KEY
  -m, --multirun      one job for each combination of comma-separated values
  --config-dir DIR    YAML presets of your own, in DIR/model/NAME.yaml and so on
  --info              what Hydra knows of the composition"""
MORE = {  # of which commands take keys that depend on a choice, and how these are asked for
    "train": "Options of a choice: genai train --help model=NAME dataset=NAME optimizer=NAME device=NAME adapter=NAME",
    "sample": "Options of the samples of a run's model: genai sample --help run=DIR",
    "evaluate": "Options of a run's model: genai evaluate --help run=DIR",
}
SHARED = ("optimizer", "device", "adapter", "logger")  # groups of keys that are the same for every model


def describe_command(command: str, summary: str, words: Sequence[str] = (), config_dir: Path | None = None) -> str:
    """The help of a command: its groups with their choices, its keys with the comments of its YAML, its flags.

    Of `words`, GROUP=NAME and run= add the options of what they name. Raises ConfigError where there is none.
    """
    typed = dict(word.split("=", 1) for word in words if "=" in word)
    text = (conf_dir() / f"{command}.yaml").read_text(encoding="utf-8")
    keys = "\n".join(f"  {line}" for line in _keys_of(text))
    chosen = registry.GROUPS[command]
    groups = "\n".join(f"  {group}={'|'.join(registry.presets(group, config_dir)) or 'NAME'}" for group in chosen)
    parts = [
        f"genai {command}: {summary}", f"Choices\n{groups}", f"Keys (as key=value, group.key=value)\n{keys}",
        *_options_beside(command, typed, config_dir), FLAGS,
    ]  # fmt: skip
    return "\n\n".join(parts)


def _options_beside(command: str, typed: Mapping[str, str], config_dir: Path | None) -> list[str]:
    """A part for each of the choices among `typed` whose options the command takes; of none, how to ask for them."""
    parts = []
    if command == "train":
        parts = [_of_preset(kind, typed[kind.word], config_dir) for kind in (MODEL, DATASET) if kind.word in typed]
        parts += [_of_group(group, typed[group], config_dir) for group in SHARED if group in typed]
    elif command in ("sample", "evaluate") and "run" in typed:
        parts = [_of_run(command, find_run(typed["run"], typed.get("root", "outputs")))]
    return parts or ([MORE[command]] if command in MORE else [])


def _of_preset(kind: Kind, choice: str, config_dir: Path | None) -> str:
    """Every option of a model or a data set, with the preset's value and the comment beside it in the YAML."""
    import yaml

    text = _preset_text(kind.word, choice, config_dir)
    whole = yaml.safe_load(text)
    values = whole.get(kind.word, whole)
    comments = dict(reversed(re.findall(r"^ *(\w+):.*?#\s*(.*)$", text, re.MULTILINE)))  # the first of a name counts
    options = registry.define(kind, values["name"]).options.values()
    return _listing(f"Options of {kind.word}={choice}", f"{kind.word}.", options, values, comments)


def _of_group(group: str, choice: str, config_dir: Path | None) -> str:
    """Every key of a group that all models share, with the preset's value and the comment beside its field."""
    import yaml

    values = yaml.safe_load(_preset_text(group, choice, config_dir))
    source = inspect.getsource(GROUPS[group])
    comments = dict(re.findall(r"^    (\w+):.*?  # (.*)$", source, re.MULTILINE))
    fields = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.AnnAssign)]
    options = [Option(node.target.id, node.annotation, getattr(GROUPS[group](), node.target.id)) for node in fields]
    ignored = {"name", *(key for key, readers in OPTIMIZER_KEYS.items() if choice not in readers)}
    options = [option for option in options if option.name not in ignored]
    return _listing(f"Options of {group}={choice}", f"{group}.", options, values, comments)


def _preset_text(group: str, choice: str, config_dir: Path | None) -> str:
    presets = registry.presets(group, config_dir)
    if choice not in presets:
        raise ConfigError(f"{group}={choice} is no choice of {group}; {advice(choice, presets, before=f'{group}=')}")
    return presets[choice].path.read_text(encoding="utf-8")


def _of_run(command: str, folder: Path) -> str:
    model = read_config(folder).get("model") or {}
    definition = registry.define(MODEL, model.get("name"))
    options = dict(definition.sample_options)
    if command == "evaluate":
        options |= definition.evaluate_options
    return _listing(f"Options of model={definition.name}, which {folder} is of", "", options.values(), {}, {})


def _listing(
    heading: str, prefix: str, options: Iterable[Option], values: Mapping[str, Any], comments: Mapping[str, str]
) -> str:
    rows = []
    for option in options:
        value = values.get(option.name, option.default)
        shown = "..." if value is REQUIRED else "" if value is registry.COMPUTED else show(value)
        rows.append((f"{prefix}{option.name}={shown}", comments.get(option.name) or _choices(option.annotation)))
    width = min(40, max((len(typed) for typed, _ in rows), default=0))
    lines = [f"  {typed:<{width}}  # {words}" if words else f"  {typed}" for typed, words in rows]
    return "\n".join([heading, *(lines or ["  none"])])


def _choices(annotation: ast.expr | None) -> str:
    """`mlp, conv` of an annotation that lists them; nothing of another."""
    found: Iterator[ast.AST] = ast.walk(annotation) if annotation is not None else iter(())
    for node in found:
        match node:
            case ast.Subscript(value=ast.Name(id="Literal"), slice=ast.Tuple() as choices):
                return ", ".join(show(choice) for choice in ast.literal_eval(choices))
    return ""


def _keys_of(yaml_text: str) -> list[str]:
    """The lines of a YAML file after its defaults list."""
    lines = yaml_text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("defaults:")) + 1
    while start < len(lines) and lines[start].startswith(("  -", "-")):
        start += 1
    return [line for line in lines[start:] if line.strip()]
