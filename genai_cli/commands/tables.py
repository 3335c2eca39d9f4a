"""An evaluation as a table on the terminal."""

import sys
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

PLAIN_WIDTH = 150  # where the output is no terminal
_CONTROL_WORDS = {"one_mode_removed": "mode removed", "half_removed": "half removed", "shuffled_labels": "shuffled"}
_CONTROL_WORDS |= {"last_value": "last value", "given_again": "given again", "other_window": "other window"}


def print_evaluation(record: dict[str, Any]) -> None:
    """Name, value, interval, unit, controls and protocol of every metric; then what must not be believed, and why."""
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else PLAIN_WIDTH, highlight=False)
    console.print(_heading(record), soft_wrap=True, markup=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading, side in (("metric", "left"), ("value", "right"), ("95 %", "left"), ("unit", "left")):
        table.add_column(heading, justify=side, no_wrap=heading != "unit")
    table.add_column("controls", justify="left")
    table.add_column("protocol", justify="left", no_wrap=True)
    for metric in record["metrics"]:
        table.add_row(*_row(metric))
    console.print(table)
    doubts = [f"! {metric['name']}: {metric['why_not']}" for metric in record["metrics"] if not metric["believed"]]
    if record["voided"]:
        doubts.insert(0, "THIS REPORT IS VOID: the controls of these metrics are wrong, so trust none of its numbers:")
    for line in [*doubts, *(f"note: {note}" for note in record["notes"])]:
        console.print(line, soft_wrap=True, markup=False)


def _heading(record: dict[str, Any]) -> str:
    sha = record["split_sha256"][:12]
    if record["run"] is None:
        return f"{record['fake']} against {record['real']} ({record['num_examples']} images, sha256 {sha})"
    return (
        f"{record['model']} on {record['dataset']}, {record['weights']} weights of step {record['step']}, "
        f"{record['split']} split: {record['num_examples']} examples, sha256 {sha}, seed {record['seed']}"
    )


def _row(metric: dict[str, Any]) -> tuple[str, ...]:
    arrow = {"lower": " (low)", "higher": " (high)", "none": ""}[metric["better"]]
    interval = metric["interval"]
    bound = metric["protocol"].get("bound")
    kind = "baseline" if metric["protocol"].get("kind") == "baseline" else None
    unit = ", ".join(word for word in (metric["unit"], bound, kind) if word)
    controls = "  ".join(f"{_CONTROL_WORDS.get(key, key)} {value:.4g}" for key, value in metric["controls"].items())
    return (
        f"{'' if metric['believed'] else '! '}{metric['name']}{arrow}",
        "-" if metric["value"] is None else f"{metric['value']:.5g}",
        "" if interval is None else f"{interval[0]:.5g} to {interval[1]:.5g}",
        unit,
        controls,
        metric["protocol_id"],
    )
