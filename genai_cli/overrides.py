"""What the user typed after the command: `model=gan optimizer.lr=1e-3 ~logger`, read with Hydra's own grammar.

A group is chosen (`model=gan`), a value is set (`train.steps=100`) or a key deleted (`~train.ema`). With several
values (`model=gan,vae`, `seed=range(3)`) an override is a sweep. Everything is checked here before Hydra acts on it,
so that all problems are told at once and nothing that could execute or leak ever reaches it.
"""

import itertools
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    Glob,
    IntervalSweep,
    Override,
    OverrideType,
    Quote,
    QuotedString,
    Transformer,
)
from hydra.errors import HydraException

from genai_cli import registry
from genai_cli.annotations import show
from genai_cli.errors import ConfigError
from genai_cli.locate import is_run
from genai_cli.suggest import advice, listing, nearest

# Of Hydra's own keys: which launcher and sweeper (a closed set, of installed plugins), their numbers, the folder.
HYDRA_KEYS = re.compile(r"hydra/(launcher|sweeper)|hydra\.(launcher|sweeper)(\.[A-Za-z]\w*)+|hydra\.sweep\.dir")
SPECIAL = re.compile(r"""[][(){},'"\\$]""")  # in Hydra's grammar, outside of quotes
RESOLVER = re.compile(r"\$\{[^{}]*:")  # ${oc.env:...}; a plain ${train.steps} is a reference, and safe
LARGEST_SWEEP = 10_000  # jobs
TEXTS = ("prompt", "stop")  # keys whose value is a text, taken as it is typed
QUOTES = "'\""
LISTED = re.compile(r"""\s*"[^"]*"\s*|\s*'[^']*'\s*|[^,]+""")  # an item between commas, which quotes may hold, too


@dataclass(frozen=True)
class Typed:
    """One override, of one value."""

    key: str
    value: Any = None
    text: str = ""  # of the value, as it can be typed again
    is_group: bool = False
    is_deletion: bool = False

    def __str__(self) -> str:
        return f"~{self.key}" if self.is_deletion else f"{self.key}={self.text}"


class Overrides:
    """All overrides of a command line, each with the one or several values it has.

    Raises ConfigError with every problem of form, every unknown choice of a group excepted: those are in `problems`
    so that the rest can be checked too, with the nearest choice (`guessed`: where there was none near) in place.
    """

    def __init__(
        self, texts: Iterable[str], *, command: str = "train", is_sweep: bool = False, config_dir: Path | None = None
    ):
        self.texts = list(texts)
        self.command = command
        self.config_dir = config_dir
        self.groups = registry.GROUPS[command]
        self.problems: list[str] = []
        self.guessed: set[str] = set()
        self.for_hydra: list[str] = []  # as typed, in a form that Hydra takes for keys it has not heard of
        self.sweeps: list[list[Typed]] = []
        malformed = []
        parser = OverridesParser.create()
        if "=" in self.texts:
            beside = [*self.texts, "VALUE"][self.texts.index("=") + 1]
            before = ["KEY", *self.texts][self.texts.index("=")]
            raise ConfigError(f"a space beside = parts a key from its value; write {show(f'{before}={beside}')}")
        for place, text in enumerate(self.texts):
            try:
                if "=" not in text and not text.startswith("~"):
                    raise ConfigError(f"{show(text)} is no key=value{self._meant(place)}")
                self.sweeps.append(self._read(text, parser, is_sweep))
            except ConfigError as error:
                malformed += error.problems
        if malformed:
            raise ConfigError(*malformed)

    def jobs(self) -> Iterator[list[Typed]]:
        """Every combination of the swept values: one without a sweep."""
        return (list(job) for job in itertools.product(*self.sweeps))

    @property
    def num_jobs(self) -> int:
        count = 1
        for values in self.sweeps:
            count *= len(values)
        return count

    def _read(self, text: str, parser: OverridesParser, is_sweep: bool) -> list[Typed]:
        text = _quoted_where_needed(text)
        override = self._parse(text, parser)
        key = override.key_or_group
        is_group = key in self.groups
        _refuse_hostile(text, override)
        is_plain = is_group or override.type == OverrideType.DEL or key.startswith("hydra")
        self.for_hydra.append(text.lstrip("+") if is_plain else "++" + text.lstrip("+"))
        if override.type == OverrideType.DEL:
            return [Typed(key, is_group=is_group, is_deletion=True)]
        if "/" in key and not key.startswith("hydra/"):
            raise ConfigError(f"{key} is no configuration group; {advice(key, self.groups)}")
        if not override.is_sweep_override():
            typed = Typed(key, override.value(), override.get_value_element_as_str(), is_group)
            return [self._choose(typed)]
        if not is_sweep:
            values = text.partition("=")[2]
            other = "" if is_group else f", or write {key}=[{values}] for a list, '{key}=\"{values}\"' for a text"
            raise ConfigError(f"{text} gives several values; add -m to run one job for each{other}")
        return [self._choose(Typed(key, value, text, is_group)) for value, text in self._swept(key, override)]

    def _meant(self, place: int) -> str:
        """What a word without = was most likely meant to be, as the end of a sentence."""
        text, before, after = self.texts[place], *["", *self.texts, ""][place : place + 3 : 2]
        for group in self.groups:
            if text in registry.presets(group, self.config_dir):
                return f"; did you mean {group}={text}?"
        if self.command != "train" and (text == "latest" or is_run(Path(text))):
            return f"; did you mean {shell_word('run', text)}?"
        if after and "=" not in after and re.fullmatch(r"[a-z][\w.]*", text):
            return f"; did you mean {shell_word(text, after)}?"
        if "=" in before and before.partition("=")[0] not in self.groups:
            return f"; a value with a space in it is quoted: {shlex.quote(f'{before} {text}')}"
        return ""

    def _parse(self, text: str, parser: OverridesParser) -> Override:
        try:
            return parser.parse_override(text)
        except (HydraException, ValueError, RecursionError) as error:
            advised = "write key=value, and quotes within quotes around a value with special characters: 'key=\"a, b\"'"
            raise ConfigError(f"{show(text)} cannot be read; {advised}") from error

    def _swept(self, key: str, override: Override) -> list[tuple[Any, str]]:
        """(value, its text) of each value of a sweep; of an interval, its ends."""
        sweep = override.value()
        if isinstance(sweep, IntervalSweep):
            return [(end, str(end)) for end in (sweep.start, sweep.end)]
        if isinstance(sweep, Glob):
            names = sweep.filter(list(registry.presets(key, self.config_dir)))
            if not names:
                raise ConfigError(f"{override.input_line} matches no choice of {key}")
            return [(name, name) for name in names]
        values = itertools.islice(override.sweep_iterator(transformer=Transformer.identity), LARGEST_SWEEP + 1)
        pairs = [(Override._convert_value(value), Override._get_value_element_as_str(value)) for value in values]
        if not 0 < len(pairs) <= LARGEST_SWEEP:
            raise ConfigError(f"{override.input_line} must stand for 1 to {LARGEST_SWEEP} values")
        return pairs

    def _choose(self, typed: Typed) -> Typed:
        """The choice of a group, or the nearest one and a problem."""
        if not typed.is_group or (typed.key == "experiment" and typed.value is None):
            return typed
        choices = registry.presets(typed.key, self.config_dir)
        if isinstance(typed.value, str) and typed.value in choices:
            return typed
        package = _announcing(typed)
        if package is not None:
            name, file = typed.value, f"DIR/{typed.key}/{typed.value}.yaml"
            lines = f"# @package _global_, plugins: [{package}] and {typed.key}: {{name: {name}}}"
            self.problems.append(
                f"{typed.key}={name} is of the package {package}, which brings no preset: write {file} with the lines "
                f"{lines}, and add --config-dir DIR"
            )
            self.guessed.add(typed.key)
            choice = next(iter(choices), None)
            return Typed(typed.key, choice, str(choice), is_group=True)
        near = nearest(typed.value, choices) if isinstance(typed.value, str) else None
        words = f"did you mean {typed.key}={near}?" if near else f"choose one of {listing(choices)}"
        if isinstance(typed.value, list) and set(map(str, typed.value)) <= set(choices):
            words = f"for one job of each, -m {typed.key}={','.join(typed.value)}"
        self.problems.append(f"{typed.key}={show(typed.value)} is no choice of {typed.key}; {words}")
        if near is None:
            self.guessed.add(typed.key)
        choice = near or next(iter(choices), None)
        return Typed(typed.key, choice, str(choice), is_group=True)


def _announcing(choice: Typed) -> str | None:
    """The installed package that announces the model or data set of that name, if one does."""
    kind = {"model": registry.MODEL, "dataset": registry.DATASET}.get(choice.key)
    return registry.announced_packages(kind).get(str(choice.value)) if kind is not None else None


def _refuse_hostile(text: str, override: Override) -> None:
    """What could run code, read the environment or move a group elsewhere."""
    key = override.key_or_group
    if RESOLVER.search(text):
        raise ConfigError(f"{show(text)}: resolvers such as ${{oc.env:...}} are not run; give the value itself")
    if re.match(r"hydra\b", key) and not HYDRA_KEYS.fullmatch(key):
        allowed = "hydra/launcher, hydra/sweeper, their own keys and hydra.sweep.dir"
        raise ConfigError(f"{key} cannot be set here; of Hydra's keys there are {allowed}")
    if override.package is not None:
        raise ConfigError(f"{show(text)}: a group cannot be moved with @")


def _quoted_where_needed(text: str) -> str:
    """`prompt=春眠` as `prompt='春眠'`, and a folder such as `seed-0-keep=top_half`, one of samples, likewise.

    Hydra's grammar knows neither letters beyond ASCII nor a further = outside of quotes. A prompt is a text, whatever
    is in it, unless it is quoted already: `prompt=To [MASK], or not`. Of `prompts=[春眠,ROMEO:]` each is.
    """
    key, equals, value = text.partition("=")
    if key == "prompts" and value.startswith("[") and value.endswith("]"):
        items = (item.strip() for item in LISTED.findall(value[1:-1]))
        return f"{key}=[{','.join(item if item[0] in QUOTES else quote(item) for item in items if item)}]"
    if key in TEXTS and value not in ("", "null") and value[0] not in QUOTES:
        return f"{key}={quote(value)}"
    if not equals or (value.isascii() and "=" not in value) or SPECIAL.search(value):
        return text
    return f"{key}={quote(value)}"


def quote(text: str | Path) -> str:
    """`text` as a value that Hydra's grammar reads back unchanged, whatever is in it."""
    return QuotedString(str(text), Quote.single).with_quotes()


def shell_word(key: str, value: str | Path) -> str:
    """`key=value` as one types it: quoted for Hydra's grammar and for the shell, each where it must be."""
    return shlex.quote(f"{key}={quote(value) if SPECIAL.search(str(value)) else value}")


def assign(values: dict[str, Any], overrides: Iterable[Typed]) -> None:
    """Set and delete values in place, in the order typed. Raises ConfigError for a deletion of nothing."""
    for typed in overrides:
        *parents, last = typed.key.split(".")
        node = values
        for parent in parents:
            if not isinstance(node.get(parent), dict):
                node[parent] = {}
            node = node[parent]
        if typed.is_deletion:
            if last not in node:
                raise ConfigError(f"{typed}: there is no {typed.key} to delete; {advice(last, map(str, node))}")
            del node[last]
        elif isinstance(typed.value, dict) and isinstance(node.get(last), dict):
            merge(node[last], typed.value)
        else:
            node[last] = typed.value


def merge(values: dict[str, Any], others: Mapping[str, Any]) -> None:
    """Lay `others` over `values` in place, mapping by mapping."""
    for key, value in others.items():
        if isinstance(value, Mapping) and isinstance(values.get(key), dict):
            merge(values[key], value)
        else:
            values[key] = value
