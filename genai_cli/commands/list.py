"""`genai list models|datasets|optimizers|experiments`: what there is to choose from. No torch, no Hydra."""

import sys
from collections.abc import Sequence
from pathlib import Path

from genai_cli import registry
from genai_cli.errors import ConfigError
from genai_cli.registry import DATASET, MODEL, Kind, Preset
from genai_cli.suggest import advice

KINDS = {"models": "model", "datasets": "dataset", "optimizers": "optimizer", "experiments": "experiment"}
HELP = """\
genai list models|datasets|optimizers|experiments [--config-dir DIR]: what there is to choose from.
A model can learn a data set whose modality is among its own."""


def run(words: Sequence[str], config_dir: Path | None = None) -> None:
    """Print one table for each kind in `words`. Raises ConfigError for a word that is no kind."""
    wrong = [word for word in words if word not in KINDS]
    if wrong or not words:
        problems = [f"{word} cannot be listed; {advice(word, KINDS)}" for word in wrong]
        raise ConfigError(*(problems or [f"genai list what? There is {', '.join(KINDS)}"]))
    for word in words:
        header, rows = _table(KINDS[word], config_dir)
        if all(row[-1] == "built in" for row in rows):  # which then goes without saying
            header, rows = header[:-1], [row[:-1] for row in rows]
        print_table(header, rows, empty=f"there are no {word} yet")


def _table(group: str, config_dir: Path | None) -> tuple[list[str], list[list[str]]]:
    presets = registry.presets(group, config_dir)
    kind = {"model": MODEL, "dataset": DATASET}.get(group)
    if kind is None:
        rows = [[preset.name, preset.summary, preset.origin] for preset in presets.values()]
        return [group, "what it is", "origin"], rows
    column = "learns" if kind is MODEL else "modality"
    rows = [[preset.name, _modalities(kind, preset), preset.summary, preset.origin] for preset in presets.values()]
    for name, package in registry.announced_packages(kind).items():
        definition = registry.define(kind, name, [package])
        rows.append([name, ", ".join(definition.modalities), definition.summary, f"plugins=[{package}]"])
    return [group, column, "what it is", "origin"], rows


def _modalities(kind: Kind, preset: Preset) -> str:
    """What the file that a preset names says; a preset of a plugin's says nothing before the plugin is listed."""
    name = registry.named_by(preset, kind)
    return ", ".join(registry.defined_by(preset, kind).modalities) if name in registry.names(kind) else ""


def print_table(header: list[str], rows: list[list[str]], *, empty: str = "") -> None:
    """Columns: drawn by rich on a terminal, plain aligned text elsewhere."""
    if not rows:
        print(empty)
    elif sys.stdout.isatty():
        _print_rich(header, rows)
    else:
        widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
        for row in [header, *rows]:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _print_rich(header: list[str], rows: list[list[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*header, box=box.SIMPLE_HEAD, header_style="bold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # Text: no markup in what a file says of itself
    Console().print(table)
