"""`genai train -m model=gan,vae seed=0,1`: every combination, each in a process and a run directory of its own.

Hydra's sweeper and launcher decide which jobs there are and when; a job is a child process, so that its crash, NaN,
SIGKILL or lack of memory touches no other. What a job prints goes to `job.log` in its directory. The sweep ends with
a table of all jobs, also in `sweep.json` and `sweep.csv`.
"""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from genai_cli.commands.list import print_table
from genai_cli.compose import QUIET, compose_command
from genai_cli.configure import Configured, configure
from genai_cli.errors import ConfigError, ExitCode, GenaiError
from genai_cli.locate import last_metrics, make_directory
from genai_cli.overrides import Overrides, quote

RECORDS = "jobs.jsonl"  # one line for each finished job, until the table is written
CHILD = (sys.executable, "-m", "genai_cli")
CAUSES = {
    ExitCode.DONE: "done",
    ExitCode.BUG: "a bug (job.log)",
    ExitCode.CONFIGURATION: "configuration error",
    ExitCode.DATA: "data error",
    ExitCode.DIVERGED: "diverged",
    ExitCode.OUT_OF_MEMORY: "out of memory",
    ExitCode.STORAGE: "storage error",
    ExitCode.RUN_IN_USE: "run directory in use",
    ExitCode.UNHEALTHY: "stopped by the doctor",
    ExitCode.HUNG: "hung",
    ExitCode.INTERRUPTED: "interrupted",
    ExitCode.TERMINATED: "terminated, saved",
}


@dataclass(frozen=True)
class Job:
    """What became of one job."""

    number: int
    overrides: list[str]  # those that differ between jobs
    directory: str
    status: str  # "done", or the cause in words
    exit_code: int  # negative: the signal that killed it
    seconds: float
    message: str  # the last sentence of its own about why
    metrics: dict[str, Any]  # newest value of each


def run(command: str, overrides: Overrides) -> ExitCode:
    """Run the sweep that `overrides` describe. An invalid combination refuses the whole of it before any job starts."""
    overrides = _with_sweeper_params(command, overrides)
    first = _check_all(command, overrides)
    swept = {values[0].key for values in overrides.sweeps if len(values) > 1}
    folder = _make_folder(first, overrides)
    stop = Stop()
    print(f"sweep of {overrides.num_jobs} jobs in {folder}", flush=True)
    try:
        with stop.listening():
            _launch(command, overrides, folder, swept, stop)
    finally:
        jobs = _read_records(folder)
        _conclude(folder, jobs)
    if stop.signal is not None:
        return ExitCode.INTERRUPTED if stop.signal == signal.SIGINT else ExitCode.TERMINATED
    return ExitCode.SWEEP_FAILED if any(job.exit_code for job in jobs) else ExitCode.DONE


def _with_sweeper_params(command: str, overrides: Overrides) -> Overrides:
    """`hydra.sweeper.params` of a YAML file, which Hydra's own sweeper lays under what was typed, as overrides."""
    hydra = compose_command(command, next(overrides.jobs()), overrides.config_dir).hydra
    params = hydra.sweeper.get("params")
    if not params or "basic_sweeper" not in hydra.sweeper.get("_target_", ""):
        return overrides
    typed = {values[0].key for values in overrides.sweeps}
    folded = [f"{key}={value}" for key, value in params.items() if key not in typed]
    others = [text for text in overrides.texts if "hydra.sweeper.params" not in text]
    texts = [*folded, *others, "hydra.sweeper.params=null"]
    return Overrides(texts, command=command, is_sweep=True, config_dir=overrides.config_dir)


def _check_all(command: str, overrides: Overrides) -> Configured:
    """The first job's configuration; every problem of every job in one ConfigError."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("-m under torchrun would start every job in every process; start the jobs one by one")
    for values in overrides.sweeps:
        if command == "train" and values[0].key in ("run", "run.dir"):
            raise ConfigError(f"{values[0]}: each job of a sweep makes a run directory of its own")
    problems: dict[str, None] = {}
    configured = []
    for job in overrides.jobs():
        try:
            configured.append(configure(command, job, overrides))
        except ConfigError as error:
            problems |= dict.fromkeys(error.problems)
    if problems:
        raise ConfigError(*problems)
    return configured[0]


def _make_folder(first: Configured, overrides: Overrides) -> Path:
    named = [values[0].value for values in overrides.sweeps if values[0].key == "hydra.sweep.dir"]
    if not named:
        root = first.config.run.root if hasattr(first.config.run, "root") else first.config.root
        return make_directory(Path(root), "sweep")
    folder = Path(str(named[-1]))
    if folder.exists():
        raise ConfigError(f"hydra.sweep.dir={folder} exists already; name a new directory")
    folder.mkdir(parents=True)
    return folder


def _launch(command: str, overrides: Overrides, folder: Path, swept: set[str], stop: "Stop") -> None:
    """Let Hydra's sweeper and launcher run every job."""
    from hydra.core.hydra_config import HydraConfig

    from genai_cli.cli import run_hydra

    config_dir = [] if overrides.config_dir is None else ["--config-dir", str(overrides.config_dir)]
    width = len(str(overrides.num_jobs - 1))

    def task(_: Any) -> None:
        """One job; called by Hydra's launcher, in whichever process that is."""
        job = HydraConfig.get().job
        texts = [text.lstrip("+") for text in HydraConfig.get().overrides.task]
        shown = [text for text in texts if text.partition("=")[0] in swept]
        if stop.signal is None:
            directory = folder / _label(job.num, width, shown)
            own = [f"run.dir={quote(directory)}"] if command == "train" else []
            _run_job(job.num, shown, directory, [command, *texts, *own, *config_dir], folder / RECORDS, stop)

    placed = [f"hydra.sweep.dir={quote(folder)}", "hydra.sweep.subdir=."]
    words = [text for text in overrides.for_hydra if not text.startswith("hydra.sweep.dir")]
    try:
        run_hydra(command, ["-m", *words, *QUIET, *placed], task, overrides.config_dir)
    except (OSError, GenaiError):
        raise
    except Exception as error:  # of a sweeper or launcher that was told what it cannot do
        words = " ".join(f"{type(error).__name__} {error}".split())
        raise ConfigError(f"Hydra's sweeper or launcher failed: {words}; see its own keys") from error


def _label(number: int, width: int, shown: list[str]) -> str:
    """`2_gan_0.001`: the job's number and the values that set it apart, as a file name."""
    values = [re.sub(r"[^\w.+-]+", "-", text.partition("=")[2]).strip("-.")[:30] for text in shown]
    return "_".join([f"{number:0{width}d}", *filter(None, values)])[:100]


def _run_job(number: int, shown: list[str], directory: Path, words: list[str], records: Path, stop: "Stop") -> None:
    """Run a child, wait for it, and add its line to the records."""
    directory.mkdir()
    print(f"job {number}: {' '.join(shown)}", flush=True)
    started = time.monotonic()
    with (directory / "job.log").open("wb") as log:
        # A session of its own: Ctrl-C reaches the child once, through us.
        child = subprocess.Popen(
            [*CHILD, *words], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        stop.forward_to(child)
        exit_code = child.wait()
        stop.forward_to(None)
    job = Job(
        number=number,
        overrides=shown,
        directory=str(directory),
        status=_describe_exit(exit_code),
        exit_code=exit_code,
        seconds=round(time.monotonic() - started, 1),
        message=_last_message(directory / "job.log", is_bug=exit_code == ExitCode.BUG),
        metrics=last_metrics(directory),
    )
    print(f"job {number}: {job.status} after {job.seconds} s {job.message}".rstrip(), flush=True)
    with records.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(job)) + "\n")


def _describe_exit(exit_code: int) -> str:
    if exit_code < 0:
        return f"killed by signal {-exit_code} ({signal.Signals(-exit_code).name})"
    known = exit_code in set(ExitCode) and ExitCode(exit_code) in CAUSES
    return CAUSES[ExitCode(exit_code)] if known else f"exit code {exit_code}"


def _last_message(log: Path, *, is_bug: bool) -> str:
    """The last sentence that `genai` wrote in a log; of a bug, the last line of the traceback before it."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    said = [number for number, line in enumerate(lines) if line.startswith("genai: ")]
    if not said:
        return ""
    return lines[said[-1] - 1] if is_bug else lines[said[-1]].removeprefix("genai: ")


class Stop:
    """SIGINT and SIGTERM of the sweep: passed on to the job that runs, and no other is started."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._child: subprocess.Popen[bytes] | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        before = {number: signal.signal(number, self._receive) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def forward_to(self, child: "subprocess.Popen[bytes] | None") -> None:
        self._child = child
        if child is not None and self.signal is not None:  # it came while the child was being started
            child.send_signal(self.signal)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        if self._child is not None:
            self._child.send_signal(number)

    def __getstate__(self) -> dict[str, Any]:
        return {"signal": self.signal, "_child": None}  # for a launcher that runs jobs in other processes


def _read_records(folder: Path) -> list[Job]:
    path = folder / RECORDS
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return sorted((Job(**json.loads(line)) for line in lines), key=lambda job: job.number)


def _conclude(folder: Path, jobs: list[Job]) -> None:
    """The table of all jobs, on paper and on screen. Where no job was started, nothing is left behind."""
    (folder / "multirun.yaml").unlink(missing_ok=True)  # Hydra's own record of the sweep; ours says more
    if jobs:
        _write_results(folder, jobs)
        print_table(["job", "overrides", "status", "metrics", "directory"], [_row(job) for job in jobs])
    elif not any(folder.iterdir()):
        folder.rmdir()


def _write_results(folder: Path, jobs: list[Job]) -> None:
    records = [asdict(job) for job in jobs]
    (folder / "sweep.json").write_text(json.dumps(records, indent=2) + "\n", encoding="utf-8")
    metrics = sorted({key for job in jobs for key in job.metrics})
    with (folder / "sweep.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["job", "overrides", "status", "exit_code", "seconds", "directory", *metrics])
        for job in jobs:
            row = [job.number, " ".join(job.overrides), job.status, job.exit_code, job.seconds, job.directory]
            writer.writerow([*row, *(job.metrics.get(key, "") for key in metrics)])
    (folder / RECORDS).unlink()


def _row(job: Job) -> list[str]:
    status = f"{job.status}: {job.message}" if job.exit_code > 0 and job.message else job.status
    return [str(job.number), " ".join(job.overrides), status, _headline(job.metrics), job.directory]


def _headline(metrics: dict[str, Any]) -> str:
    """The losses, as many as a line holds."""
    numbers = {key: value for key, value in metrics.items() if isinstance(value, int | float) and "loss" in key}
    return ", ".join(f"{key} {value:.4g}" for key, value in list(numbers.items())[:4])
