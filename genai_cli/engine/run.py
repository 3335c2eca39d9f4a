"""The run directory: made once, held by one process at a time, and all that a run leaves behind.

config.yaml       resolved: enough to rebuild the model and the data
spec.json         what one example looks like: enough to sample where the data are not
provenance.json   command, commit, versions, device, data hash
teacher.json      which weights it learns from, where that is another run's
metrics.jsonl     one object a log line; tensorboard/ beside it
checkpoints/ samples/ evaluation/
"""

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from genai_cli.data.base import DataError, Spec
from genai_cli.engine.storage import replace_durably, to_json
from genai_cli.errors import ConfigError, RunInUse, StorageError


def claim_run_directory(path: Path) -> None:
    """Make the directory that the user named, or accept it if it is empty or a run's. Raises ConfigError otherwise."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"run.dir={path}: cannot make this directory: {error.strerror}") from error
    foreign = [item.name for item in path.iterdir() if item.name not in _OWN_NAMES and not item.name.startswith(".")]
    if foreign and not (path / "config.yaml").is_file():
        raise ConfigError(f"run.dir={path} holds other files ({', '.join(sorted(foreign)[:3])}); name a new directory")


_OWN_NAMES = {"config.yaml", "spec.json", "provenance.json", "teacher.json", "job.log"}


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Within, this process alone trains in `path`; the system lets go of it when the process dies, however it dies.

    A record lock, which worker processes do not inherit: orphans of a killed run do not keep it.
    Raises RunInUse, naming the owner, if another process holds it.
    """
    lock = path / ".lock"
    with open(lock, "a+", encoding="utf-8") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            owner = file.read().strip() or "another process"
            raise RunInUse(f"{path} is in use by {owner}; wait for it or stop it") from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def describe(path: Path, *, config: dict[str, Any], spec: Spec, provenance: dict[str, Any] | None) -> None:
    """Write what the run is, config.yaml last: with it there, it is a run. No `provenance`: keep what is there."""
    replace_durably(path / "spec.json", to_json(spec.to_json()))
    if provenance is not None:
        replace_durably(path / "provenance.json", to_json(provenance))
    replace_durably(path / "config.yaml", yaml.safe_dump(config, sort_keys=False, allow_unicode=True).encode())


def read_spec(path: Path) -> Spec:
    """The spec of a run's data. Raises DataError where the file is none: nobody vouches for it."""
    file = path / "spec.json"
    try:
        return Spec.from_json(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        advised = "bring back the file that the run was made with"
        if not file.exists():
            raise DataError(f"{file} is missing, which says what the run's data look like: {advised}") from error
        raise DataError(f"{file} is not the description of a run's data ({error}): {advised}") from error
