"""From the start of the process to the first optimizer step, beside `python -c "import torch"`, in turns.

`genai train model=gan dataset=mnist` is killed by a planned fault as its second step begins; what it has done by then
is everything, the run directory and its provenance included. Bytecode is compiled by the first, uncounted turn.
"""

import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.report import Goal, arguments, machine, row, write

ROOT = Path(__file__).resolve().parent.parent
GENAI = ["-m", "genai_cli"]
COMMANDS = {
    'python -c "import torch"': ["-c", "import torch"],
    "genai train, to the end of its first step": [*GENAI, "train", "model=gan", "dataset=mnist"],
    "genai --help": [*GENAI, "--help"],
    "genai list models": [*GENAI, "list", "models"],
    "a mistyped option": [*GENAI, "train", "model=gan", "dataset=mnist", "train.stpes=10"],
}
EXIT_CODES = {"genai train, to the end of its first step": -signal.SIGKILL, "a mistyped option": 2}


def seconds(name: str, folder: str, *, busy: bool) -> float:
    """From the start to the end of a process in an empty folder; on a busy machine, of processor time."""
    environment = os.environ | {"GENAI_FAULT": "step:kill:2", "PYTHONPATH": str(ROOT)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    if busy:
        environment["OMP_NUM_THREADS"] = "1"
    clock = processor_time_of_children if busy else time.perf_counter
    start = clock()
    words = [sys.executable, *COMMANDS[name]]
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
    elapsed = clock() - start
    assert done.returncode == EXIT_CODES.get(name, 0), done.stderr
    return elapsed


def processor_time_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    options = arguments(__doc__)
    before = machine(busy=options.busy)
    taken: dict[str, list[float]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.rounds + 1):
            for name, turns in taken.items():
                elapsed = seconds(name, folder, busy=options.busy)
                if number > 0:
                    turns.append(elapsed)
    rows = [row(name, turns, "s") for name, turns in taken.items()]
    torch, train, *others = rows
    goals = [Goal("first step, beyond the import of torch", train["median"] - torch["median"], at_most=1.5, unit="s")]
    goals += [Goal(other["name"], other["median"], at_most=1, unit="s") for other in others]
    write("startup", __doc__, rows, goals, before)


if __name__ == "__main__":
    main()
