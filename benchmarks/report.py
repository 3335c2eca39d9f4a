"""What a benchmark leaves: `results/NAME.json`, and RESULTS.md made from all of them."""

import argparse
import json
import os
import platform
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
THREADS = {False: 2, True: 1}  # of torch; on a busy machine two of them mostly wait for each other


@dataclass(frozen=True)
class Goal:
    """A number that was to be reached."""

    name: str
    value: float
    at_least: float | None = None
    at_most: float | None = None
    unit: str = "times"

    @property
    def is_met(self) -> bool:
        return self.value >= self.at_least if self.at_least is not None else self.value <= self.at_most

    @property
    def words(self) -> str:
        limit = f"at least {self.at_least:g}" if self.at_least is not None else f"at most {self.at_most:g}"
        return f"{limit} {self.unit}"


def parser_of(description: str) -> argparse.ArgumentParser:
    """The options of every benchmark, and of all of them."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="turns of each contender")
    parser.add_argument("--busy", action="store_true", help="the machine has other work: one thread, processor time")
    return parser


def arguments(description: str) -> argparse.Namespace:
    return parser_of(description).parse_args()


def row(name: str, samples: Sequence[float], unit: str = "ms") -> dict[str, Any]:
    """A line of the table: what a contender took, over all its turns."""
    quartiles = statistics.quantiles(samples, n=4) if len(samples) > 1 else [samples[0]] * 3
    return {
        "name": name, "unit": unit, "median": quartiles[1], "minimum": min(samples),
        "middle_half": [quartiles[0], quartiles[2]], "turns": len(samples),
    }  # fmt: skip


def machine(*, busy: bool) -> dict[str, Any]:
    """Where, when and how a measurement begins. Wall time is worthless under a load near the number of cores."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _commit(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": THREADS[busy],
        "clock": "processor time" if busy else "wall time",
        "load_average_before": [round(load, 2) for load in os.getloadavg()],
    }


def write(
    name: str,
    about: str,
    rows: list[dict[str, Any]],
    goals: list[Goal],
    began: dict[str, Any],
    notes: str | None = None,
) -> None:
    """Keep the result, and say it."""
    ended = {"load_average_after": [round(load, 2) for load in os.getloadavg()]}
    result = {
        "name": name, "about": about, "machine": began | ended, "rows": rows,
        "goals": [asdict(goal) | {"words": goal.words, "is_met": goal.is_met} for goal in goals], "notes": notes,
    }  # fmt: skip
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(as_markdown(result))


def write_table(names: Sequence[str]) -> None:
    """RESULTS.md, from the results there are."""
    results = [json.loads(path.read_text("utf-8")) for name in names if (path := RESULTS / f"{name}.json").is_file()]
    head = "# Benchmarks\n\nMade by `make bench`; [README.md](README.md) says how. Times are per optimizer step.\n\n"
    (HERE / "RESULTS.md").write_text(head + "\n".join(as_markdown(result) for result in results), encoding="utf-8")


def as_markdown(result: dict[str, Any]) -> str:
    facts = result["machine"]
    load = f"{facts['load_average_before'][0]} before, {facts['load_average_after'][0]} after"
    lines = [
        f"## {result['name']}", "", result["about"].strip(), "",
        f"{facts['date']}, commit {facts['commit']}, torch {facts['torch']}, Python {facts['python']}, "
        f"{facts['clock']} with torch.set_num_threads({facts['threads']}) on {facts['cores']} cores of {facts['cpu']}; "
        f"load average {load}.", "",
        "| | median | least | middle half | turns |", "|---|---|---|---|---|",
    ]  # fmt: skip
    for line in result["rows"]:
        low, high = line["middle_half"]
        times = f"{line['median']:.3g} {line['unit']} | {line['minimum']:.3g} | {low:.3g} to {high:.3g}"
        lines.append(f"| {line['name']} | {times} | {line['turns']} |")
    lines += ["", "| | measured | goal | |", "|---|---|---|---|"]
    for goal in result["goals"]:
        verdict = "met" if goal["is_met"] else "**missed**"
        lines.append(f"| {goal['name']} | {goal['value']:.3g} | {goal['words']} | {verdict} |")
    if facts["clock"] == "processor time":
        lines += ["", "The goals were set for the wall time of two threads on a quiet machine, which this was not."]
    if result["notes"]:
        lines += ["", result["notes"]]
    return "\n".join(lines) + "\n"


def _commit() -> str:
    """The short name of the commit, with a plus where files differ from it."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=HERE, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", "../genai_cli", "../conf")
        return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
