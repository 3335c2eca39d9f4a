"""Where run directories are and what their `config.yaml` says, without torch and without trusting them.

A run directory is a folder that holds `config.yaml`: outputs/DATE/TIME_NAME, or one level deeper for a sweep's jobs.
"""

import json
import time
from pathlib import Path
from typing import Any

from genai_cli.errors import ConfigError, StorageError

CONFIG_FILE = "config.yaml"
LARGEST_CONFIG = 1_000_000  # bytes; a configuration has a few thousand
NUM_SHOWN = 5
USUAL_ROOT = "outputs"  # of `run.root` and `root`


def make_directory(root: Path, name: str) -> Path:
    """A new directory ROOT/DATE/TIME_NAME, in UTC so that names sort by start through every change of clock.

    Those that start in the same second get -002, -003, ...: the directory itself is the lock (an exclusive mkdir).
    """
    now = time.gmtime()
    day = root / time.strftime("%Y-%m-%d", now)
    base = f"{time.strftime('%H-%M-%S', now)}_{name}"
    try:
        day.mkdir(parents=True, exist_ok=True)
        for number in range(1, 1000):
            path = day / (base if number == 1 else f"{base}-{number:03d}")
            try:
                path.mkdir()
                return path
            except FileExistsError:
                continue
    except OSError as error:
        raise StorageError(f"run.root={root}: cannot make a directory there: {error.strerror}") from error
    raise StorageError(f"{day} already holds 999 directories of this second")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines that have a step, such as metrics.jsonl; what is no such line is passed over.

    An empty list where there is no such file.
    """
    records = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict) and isinstance(record.get("step"), int):
            records.append(record)
    return records


def last_metrics(directory: Path) -> dict[str, float]:
    """The newest value of every metric in `metrics.jsonl`; lines that a crash cut short are passed over."""
    values: dict[str, float] = {}
    path = directory / "metrics.jsonl"
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            values.update(json.loads(line))
        except ValueError:
            continue
    return values


def find_run(run: str, root: str) -> Path:
    """The run directory that `run` names. Raises ConfigError.

    A path, or "latest": what was started last of the runs under `root` and those that lie in the current directory or
    one folder deeper (as `run.dir` puts them); where another `root` than the usual is named, in that instead.
    """
    if run == "latest":
        found = list_runs(root)[-1:] + runs_at_hand(Path() if root == USUAL_ROOT else Path(root))
        if not found:
            places = f"{root}, in the current directory or one folder deeper" if root == USUAL_ROOT else f"root={root}"
            raise ConfigError(f"run=latest: there is no run directory in {places}; train one, or give run=DIR")
        return max(found, key=_started)
    directory = Path(run)
    if not is_run(directory):
        what = "holds no config.yaml, so it is no run directory" if directory.is_dir() else "does not exist"
        raise ConfigError(f"run={run} {what}; {describe_newest(root)}")
    return directory


def runs_at_hand(place: Path = Path()) -> list[Path]:
    """Run directories in `place` and one folder deeper; others' config.yaml has no spec.json by it."""
    found = [path.parent for depth in ("*", "*/*") for path in place.glob(f"{depth}/{CONFIG_FILE}")]
    return [path for path in sorted(found) if (path / "spec.json").is_file()]


def _started(directory: Path) -> tuple[str, int]:
    """When a run was started, as it says itself, to the second; then the time of its first file."""
    try:
        started = json.loads((directory / "provenance.json").read_text(encoding="utf-8"))["started_utc"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        started = ""
    first = directory / "provenance.json"
    return str(started), first.stat().st_mtime_ns if first.is_file() else 0


def is_run(directory: Path) -> bool:
    return (directory / CONFIG_FILE).is_file()


def list_runs(root: str | Path) -> list[Path]:
    """Every run directory under `root`, oldest first: their names begin with the time they were made."""
    root = Path(root)
    found = [path.parent for depth in ("*/*", "*/*/*") for path in root.glob(f"{depth}/{CONFIG_FILE}")]
    return sorted(found, key=lambda path: path.relative_to(root).parts)


def describe_newest(root: str) -> str:
    """A clause that names the newest runs under `root`."""
    newest = [str(path) for path in list_runs(root)[: -NUM_SHOWN - 1 : -1]]
    return "the newest runs are " + ", ".join(newest) if newest else f"there is no run in {root} yet"


def read_config(directory: Path) -> dict[str, Any]:
    """The plain mapping in a run's `config.yaml`: no tags, no aliases, nothing resolved. Raises ConfigError."""
    import yaml

    class PlainLoader(yaml.SafeLoader):
        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):  # by which a few lines can stand for a billion values
                raise yaml.YAMLError("aliases are not allowed")
            return super().compose_node(parent, index)

    path = directory / CONFIG_FILE
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(LARGEST_CONFIG + 1)
        if len(text) > LARGEST_CONFIG:
            raise ConfigError(f"{path} is too large to be a configuration")
        values = yaml.load(text, PlainLoader)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ConfigError(f"{path} does not hold the configuration of a run")
    return values
