"""`genai compare`: runs side by side, with the same metrics; or models, each trained for the same time before that.

Each may be sampled in several ways (`sample.steps=[5,10,20]`): then every way is one of those compared.

Training and evaluation are child processes, one at a time: each has the machine to itself, and a crash of one touches
no other.
"""

import json
import math
import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from genai_cli import registry, runs, schema
from genai_cli.commands.evaluate import GROUPS
from genai_cli.commands.list import print_table
from genai_cli.commands.sampling import sampling_options
from genai_cli.commands.sweep import CAUSES, CHILD, Stop
from genai_cli.config import CompareConfig
from genai_cli.engine.device import choose_device
from genai_cli.engine.sampling import draw, with_given
from genai_cli.engine.storage import check_writable, to_json
from genai_cli.errors import ConfigError, ExitCode, explain
from genai_cli.locate import find_run, is_run, make_directory, read_lines
from genai_cli.media.files import write_file
from genai_cli.metrics.record import read_records, same_protocol
from genai_cli.overrides import quote
from genai_cli.report.comparison import Contestant, charts, choose_metric, comparison_page, floor, grid, named, rows
from genai_cli.report.standalone import png_file, svg_file
from genai_cli.rules import seconds_of
from genai_cli.runs import TrainedRun

PILOT_STEPS, PILOT_LINES = 100_000, 4  # of the pilot at most; the log lines that are enough
FILLED = 0.85  # of the budget with steps; the rest is for samples, evaluation and saves
SAVED = (ExitCode.DONE, ExitCode.TERMINATED)
TIMED, REPEATED = 64, 9  # samples drawn to time the sampler, and how often at most
GRACE = 60.0  # seconds that a terminated child has to save


@dataclass(frozen=True)
class Job:
    """A run to compare, and what went wrong with it so far."""

    name: str
    folder: Path
    problem: str = ""
    note: str = ""  # worth knowing, and no failure
    sampling: Mapping[str, Any] = field(default_factory=dict)  # options of samples


def run(config: CompareConfig, *, folder: None = None) -> ExitCode:
    """Compare, and write a page, its charts and its numbers into a new folder."""
    choose_device(config.device)  # what is not here is refused before all else
    out = _make_out(config)
    stop = Stop()
    with stop.listening():
        if config.runs:
            folders = [find_run(name, config.root) for name in config.runs]
            jobs = [Job(name, path) for name, path in zip(_names(folders), folders, strict=True)]
        else:
            jobs = [_train(model, config, out, stop) for model in config.model if stop.signal is None]
        ways = [way for job in jobs for way in _ways(job, config)]
        contestants = [_measure(way, config, out, stop) for way in ways if stop.signal is None]
    if stop.signal is not None:
        return ExitCode.INTERRUPTED if stop.signal == signal.SIGINT else ExitCode.TERMINATED
    _conclude(config, out, contestants)
    return ExitCode.SWEEP_FAILED if any(each.problem for each in contestants) else ExitCode.DONE


def _make_out(config: CompareConfig) -> Path:
    if config.out is None:
        return make_directory(Path(config.root), "compare")
    out = Path(config.out)
    if out.exists():
        raise ConfigError(f"out={out} exists already; name a new folder")
    check_writable(out, f"out={out}")
    out.mkdir(parents=True)
    return out


def _names(folders: Sequence[Path]) -> list[str]:
    """The last part of each path, or all of it where two would be the same."""
    names = [path.resolve().name for path in folders]
    return [name if names.count(name) == 1 else str(path) for name, path in zip(names, folders, strict=True)]


# -- training, for the same time each ------------------------------------------------------------------------------


def _train(model: str, config: CompareConfig, out: Path, stop: Stop) -> Job:
    """Train `model` for the budget. A pilot tells how many steps fill it, so that schedules run to their end."""
    budget = seconds_of(str(config.budget))
    words = ["train", f"model={model}", f"dataset={config.dataset}", f"seed={config.seed}", *_device(config)]
    words += config.options
    print(f"{model}: training for {config.budget}", flush=True)
    pilot, folder = out / f"{model}-pilot", out / model
    quiet = [f"train.{period}=null" for period in ("evaluate_every", "sample_every", "save_every")]
    code = _run_child(
        [*words, *quiet, "train.log_every=5", f"train.steps={PILOT_STEPS}", f"run.dir={quote(pilot)}"],
        out / f"{model}-pilot.log", stop, limit=budget, begun=lambda: is_run(pilot),
        until=lambda: len(_step_seconds(pilot)) >= PILOT_LINES,
    )  # fmt: skip
    if code not in SAVED or not _step_seconds(pilot):
        return Job(model, folder, _describe(code) if code not in SAVED else "the budget is less than ten steps")
    steps = max(1, int(FILLED * budget / median(_step_seconds(pilot))))
    own = [f"train.steps={steps}", f"train.log_every={max(1, min(100, steps // 20))}", f"run.dir={quote(folder)}"]
    code = _run_child([*words, *own], out / f"{model}.log", stop, limit=budget, begun=lambda: is_run(folder))
    is_cut = code == ExitCode.TERMINATED and _last_step(folder) < steps
    note = f"the time was over before step {steps:,}" if is_cut else ""
    return Job(model, folder, "" if code in SAVED else _describe(code), note)


def _step_seconds(folder: Path) -> list[float]:
    """How long a step took, at each log line but the first, in which there is more than steps."""
    lines = read_lines(folder / "metrics.jsonl")
    return [line["time/step_seconds"] for line in lines if "time/step_seconds" in line][1:]


def _last_step(folder: Path) -> int:
    return max((line["step"] for line in read_lines(folder / "metrics.jsonl")), default=0)


def _device(config: CompareConfig) -> list[str]:
    threads = [f"device.threads={config.device.threads}"] if config.device.threads is not None else []
    return [f"device={config.device.name}", *threads]


def _run_child(
    words: list[str],
    log: Path,
    stop: Stop,
    *,
    limit: float = math.inf,
    begun: Callable[[], bool] = lambda: True,
    until: Callable[[], bool] = lambda: False,
) -> int:
    """Run `genai` as a process of its own, and return its exit code.

    It is asked to save and end `limit` seconds after `begun` first holds, or when `until` holds.
    """
    with log.open("wb") as file:
        child = subprocess.Popen(
            [*CHILD, *words], stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        stop.forward_to(child)
        deadline = math.inf
        while child.poll() is None and time.monotonic() < deadline and not until():
            if deadline == math.inf and begun():
                deadline = time.monotonic() + limit
            time.sleep(0.05)
        was_asked = child.poll() is None
        if was_asked:
            child.terminate()
        try:
            code = child.wait(GRACE)
            # It had ended by itself, and was leaving when it was asked to.
            return ExitCode.TERMINATED if was_asked and code == -signal.SIGTERM else code
        except subprocess.TimeoutExpired:
            child.kill()
            return child.wait()
        finally:
            stop.forward_to(None)


def _describe(code: int) -> str:
    known = code in set(ExitCode) and ExitCode(code) in CAUSES
    return CAUSES[ExitCode(code)] if known else f"ended with code {code}"


# -- measuring -------------------------------------------------------------------------------------------------------


def _ways(job: Job, config: CompareConfig) -> list[Job]:
    """The job once for each way of sampling it: those of `config.sample` that its model knows."""
    if job.problem or not config.sample or not is_run(job.folder):
        return [job]
    trained = schema.read_run_config(job.folder)
    options = registry.define(registry.MODEL, trained.model["name"], trained.plugins).sample_options
    return [replace(job, sampling=point) for point in schema.sampling_grid(config.sample, options)]


def _measure(job: Job, config: CompareConfig, out: Path, stop: Stop) -> Contestant:
    """Evaluate a run in a child, time its sampler here."""
    name = named(job.name, job.sampling)
    contestant = Contestant(
        name, str(job.folder), 0, None, 0, None, note=job.note, run=job.name, sampling=job.sampling
    )  # fmt: skip
    if job.problem or not is_run(job.folder):
        return replace(contestant, problem=job.problem or "it was never trained")
    try:
        trained = runs.load_trained(
            job.folder, schema.read_run_config(job.folder), checkpoint="last", weights="auto",
            device=choose_device(config.device),
        )  # fmt: skip
        latency = _time_sampler(trained, job, config)
    except Exception as error:  # of this one alone: memory that runs out, say, must not cost the others' numbers
        code, lines = explain(error)
        if code == ExitCode.BUG and not isinstance(error, ValueError):
            raise
        return replace(contestant, problem=" ".join(lines) or str(error))
    print(f"{name}: evaluating", flush=True)
    words = ["evaluate", f"run={quote(job.folder)}", f"num_samples={config.num_samples}", f"split={config.split}"]
    words += [f"seed={config.seed}", f"extractor={config.extractor}", *_device(config)]
    words += [f"inception={quote(config.inception)}"] if config.inception else []
    words += [f"{key}={_typed(value)}" for key, value in job.sampling.items()]
    metrics = config.metrics or (_of_samples(trained) if job.sampling else None)
    words += [f"metrics=[{','.join(metrics)}]"] if metrics else []
    before = len(read_records(job.folder))
    code = _run_child(words, out / f"{re.sub('[^-.=+A-Za-z0-9]+', '_', name)}-evaluate.log", stop)
    records = read_records(job.folder)
    found = records[-1]["metrics"] if len(records) > before else []
    return replace(
        contestant, step=trained.step, seconds=_training_seconds(job.folder), sampling_seconds=latency,
        parameters=sum(parameter.numel() for parameter in trained.model.parameters()),
        metrics={str(metric["name"]): metric for metric in found},
        problem="" if code == ExitCode.DONE else f"evaluation: {_describe(code)}",
    )  # fmt: skip


def _of_samples(trained: TrainedRun) -> tuple[str, ...]:
    """The metrics that say how good samples are: those that another way of sampling moves."""
    told = ("frechet", "kid", "manifold", "modes", "agreement", "rules", "passages")
    return tuple(group for group in GROUPS.get(trained.model.shown_spec.modality, ()) if group in told)


def _typed(value: Any) -> str:
    """An option as the user would type it."""
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_typed, value))}]"
    return quote(value) if isinstance(value, str) else json.dumps(value)


def _time_sampler(trained: TrainedRun, job: Job, config: CompareConfig) -> float:
    """The seconds that one sample takes: the median of up to `REPEATED` draws, as far as they take a second."""
    device = choose_device(config.device)
    options = sampling_options(dict(job.sampling), trained)
    sources = None if trained.model.translates is None else runs.build_dataset(trained.config).load("test")
    options = with_given(trained.model, options, sources, TIMED, seed=0)
    draw(trained.model, 2, seed=0, batch_size=2, device=device, options=options)  # what only the first call costs
    seconds: list[float] = []
    while len(seconds) < REPEATED and sum(seconds) < 1:
        started = time.perf_counter()
        draw(trained.model, TIMED, seed=0, batch_size=TIMED, device=device, options=options)
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return median(seconds) / TIMED


def _training_seconds(folder: Path) -> float | None:
    """What the steps took, by the log: without start, sampling and evaluation."""
    total, before = 0.0, 0
    for line in read_lines(folder / "metrics.jsonl"):
        if isinstance(line.get("time/step_seconds"), int | float):
            total += (line["step"] - before) * line["time/step_seconds"]
            before = line["step"]
    return total or None


# -- telling ---------------------------------------------------------------------------------------------------------


def _names_of_data(config: CompareConfig, contestants: Sequence[Contestant]) -> str:
    """Of all that the runs learned: "mnist", or "binary_mnist (static) and binary_mnist (dynamic)"."""
    folders = [Path(each.folder) for each in contestants]
    found = (runs.name_of_data(schema.read_run_config(folder), config.dataset) for folder in folders if is_run(folder))
    return " and ".join(dict.fromkeys(found)) or str(config.dataset)


def _conclude(config: CompareConfig, out: Path, contestants: list[Contestant]) -> None:
    is_measured = any(config.by in each.metrics for each in contestants)
    metric = config.by if is_measured else choose_metric(contestants)
    title = " and ".join(config.model or dict.fromkeys(each.run for each in contestants))
    data = _names_of_data(config, contestants)
    what = f"Each trained for {config.budget} on {data}, one after the other" if config.model else f"Trained on {data}"
    lead = f"{what}. {config.num_samples:,} samples each, {config.split} split, seed {config.seed}."
    differing = _differing_protocols(contestants, metric)
    level = floor([each for each in contestants if metric in each.metrics], str(metric))
    if level is not None:
        lead += f" Of as many real examples, {metric} is {level:.3g}."
    notes = [f"{name} do not compare: {words}" for name, words in differing.items()]
    if config.by is not None and not is_measured:
        notes.append(f"by={config.by} was measured of none")
    write_file(out / "compare.html", comparison_page(title, " ".join([lead, *notes]), contestants, metric).encode())
    write_file(out / "compare.json", to_json([each.to_json() for each in contestants]))
    for label, chart in (charts(contestants, metric) if metric else {}).items():
        path = out / f"{metric}-by-{label.partition(' (')[0].replace(' ', '-')}.svg"
        svg = svg_file(chart, f"{metric} against {label}: {title}")
        write_file(path, svg.encode())
        write_file(path.with_suffix(".png"), png_file(svg))
    print(lead)
    print_table(*_upright(*rows(contestants)))
    by_number = grid(contestants, metric) if metric else None
    if by_number is not None:
        print()
        print_table(*by_number)
    for note in notes:
        print(f"note: {note}")
    print(f"\nwritten to {out / 'compare.html'}")


def _upright(header: list[str], rows: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    """The table with a column for each run, where these are fewer than the numbers, so that a terminal holds it."""
    if len(rows) >= len(header):
        return header, rows
    first, *others = ([*column] for column in zip(header, *rows, strict=True))
    return first, [column for column in others if any(column[1:])]


def _differing_protocols(contestants: Sequence[Contestant], metric: str | None) -> dict[str, str]:
    """Pairs whose metric was not measured in the same way, and what differs."""
    have = [each for each in contestants if metric in each.metrics]
    found = {}
    for other in have[1:]:
        differences = same_protocol(_protocol(have[0], metric), _protocol(other, metric))
        if differences:
            found[f"{have[0].name} and {other.name}"] = "; ".join(differences)
    return found


def _protocol(contestant: Contestant, metric: str | None) -> dict[str, Any]:
    return dict(contestant.metrics[str(metric)].get("protocol") or {})
