"""`genai train`: build what the configuration names, take or resume a run directory, and train."""

import dataclasses
import os
import shlex
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from genai_cli import runs, schema
from genai_cli.config import Config
from genai_cli.data.base import Spec, Split
from genai_cli.engine import faults
from genai_cli.engine.adaptation import Adaptation
from genai_cli.engine.checkpoint import Checkpoint
from genai_cli.engine.device import choose_device
from genai_cli.engine.distributed import World, join_world, leave_world
from genai_cli.engine.logs import RunLog, flatten, has_hyperparameters
from genai_cli.engine.memory import bytes_of, memory_of
from genai_cli.engine.optimizers import check_overrides
from genai_cli.engine.provenance import provenance
from genai_cli.engine.run import claim_run_directory, describe, held, read_spec
from genai_cli.engine.signals import Interruption, Signals
from genai_cli.engine.storage import warning_of_little_space
from genai_cli.engine.trainer import Outcome, Trainer
from genai_cli.engine.watchdog import watching
from genai_cli.errors import ConfigError, ExitCode
from genai_cli.locate import is_run, last_metrics, make_directory
from genai_cli.metrics.quick import has_quick_score
from genai_cli.models.base import GenerativeModel
from genai_cli.nn.random import mix
from genai_cli.overrides import shell_word
from genai_cli.rules import seconds_of

_INITIALISATION = 5  # tag of this use of the seed


@dataclasses.dataclass(frozen=True)
class Parts:
    """What a run is put together from."""

    train: Split
    validation: Split
    model: GenerativeModel
    adaptation: Adaptation
    base: Checkpoint | None  # where the run starts from another
    teacher: runs.Teacher | None  # where it learns from another
    notes: tuple[str, ...]  # on the data, for the user: files left out, and the like


def run(config: Config, *, folder: Path | None = None) -> ExitCode:
    """Train. `folder` is the run directory to resume; null: `config.run.dir`, or a new one under `config.run.root`."""
    signals = Signals()
    started = time.perf_counter()
    with signals.installed():
        try:
            with signals.interruptible():
                device = choose_device(config.device)
                world = join_world(device.type, timeout=seconds_of(config.device.timeout))
                parts = _build(config, world, device, folder)
        except Interruption:
            if os.environ.get("RANK", "0") == "0":
                print("stopped before the first step; there is nothing to save")
            return signals.exit_code
        try:
            with world.leaving_word():
                outcome = _train(config, folder, world, device, parts, signals, started)
            return outcome.exit_code
        finally:
            leave_world()


def _train(
    config: Config, folder: Path | None, world: World, device: torch.device, parts: Parts, signals: Signals,
    started: float,
) -> Outcome:  # fmt: skip
    # Rank 0 makes the directory, every rank trains in it.
    taken = str(_take_directory(config, folder)) if world.is_first else None
    folder = Path(str(world.broadcast(taken)))
    with held(folder) if world.is_first else nullcontext():
        if world.is_first:
            _describe(config, folder, world, device, parts)
        trainer = Trainer(
            parts.model, parts.train, parts.validation, config, folder=folder, world=world, device=device,
            adaptation=parts.adaptation,
        )  # fmt: skip
        warning = warning_of_little_space(folder, checkpoint=trainer.checkpoint_bytes())
        if warning is not None and world.is_first:
            print(f"warning: {warning}", file=sys.stderr)
        with watching(seconds_of(config.device.timeout), folder, world):
            outcome = trainer.run(signals)
        if world.is_first:
            _close(config, folder, outcome, time.perf_counter() - started)
    return outcome


def _build(config: Config, world: World, device: torch.device, folder: Path | None = None) -> Parts:
    """The data and the untrained model, before any directory is made: what is wrong with them leaves none behind."""
    faults.point("data")
    folder = folder or (Path(config.run.dir) if config.run.dir else None)
    base = runs.load_base(config, folder)
    dataset = runs.build_dataset(config, runs.base_spec(base), device=device)
    if dataset.spec.first_stage is not None and folder is not None and is_run(folder):
        runs.check_unchanged(dataset.spec, read_spec(folder), config, folder)
    _check_memory(config, dataset.spec, world, device)
    train = dataset.load("train").to(device)
    validation = dataset.load("validation").to(device)
    torch.manual_seed(mix(config.seed, _INITIALISATION))
    model = runs.build_model(config, dataset.spec)
    adaptation = runs.adapt(model, config, base)
    model.to(device)
    model.code_decoder = dataset.code_decoder
    teacher = runs.teach(model, config, device, folder)
    check_overrides(config.optimizer, model.parameter_groups())
    _check_evaluation(config, model)
    _check_sharding(config, model)
    if config.device.compile and model.differentiates_twice:
        raise ConfigError(
            f"device.compile=true: a loss of model={config.model['name']} holds a gradient (a penalty on it, say), "
            "which torch's compiler cannot differentiate; set device.compile=false, or turn the penalty off"
        )
    return Parts(train, validation, model, adaptation, base, teacher, dataset.notes)


def _check_memory(config: Config, spec: Spec, world: World, device: torch.device) -> None:
    """Refuse rows that can never be together in memory, whatever the model. A batch may well be more than all data."""
    train, available = config.train, memory_of(device)
    problems = []
    parts = world.size * (train.batch_size if train.accumulate == "auto" else train.accumulate)
    together = {"batch_size": (train.batch_size // parts, "give a smaller one, or more of train.accumulate")}
    if train.sample_every is not None:
        together["num_samples"] = (train.num_samples, "give a smaller one")
    for key, (rows, remedy) in together.items():
        needed = rows * bytes_of(spec)
        if needed > available:
            problems.append(
                f"train.{key}={getattr(train, key)}: {rows:,} examples at once are {needed / 1e9:,.0f} GB as numbers "
                f"alone, and there are {available / 1e9:,.0f} GB of memory here (device={device.type}): {remedy}"
            )
    if problems:
        raise ConfigError(*problems)


def _check_evaluation(config: Config, model: GenerativeModel) -> None:
    """Refuse evaluations of which there would be nothing to say, and a score that would never be computed."""
    name, train = config.model["name"], config.train
    can_score = has_quick_score(model.spec)
    if train.evaluate_every is not None and type(model).evaluate is GenerativeModel.evaluate and not can_score:
        raise ConfigError(f"train.evaluate_every: model={name} has no held-out figures; set train.evaluate_every=null")
    if train.score_samples is not None and not can_score:
        raise ConfigError(f"train.score_samples={train.score_samples}: {model.spec.modality} has no score; set it null")
    if train.score_samples is not None and train.evaluate_every is None:
        raise ConfigError(f"train.score_samples={train.score_samples} needs train.evaluate_every, such as 500")


def _check_sharding(config: Config, model: GenerativeModel) -> None:
    """Refuse weights divided among processes where something needs them whole."""
    if not config.device.shard:
        return
    problems = []
    if not model.shard_units():
        name, remedy = config.model["name"], "train it undivided, with device.shard=false"
        problems.append(f"device.shard=true: model={name} cannot be divided: {_why_whole(model)}; {remedy}")
    if config.device.compile:
        problems.append("device.shard=true: device.compile=true would pass by what gathers weights; choose one of them")
    if config.train.accumulate == "auto":
        problems.append("device.shard=true: with train.accumulate=auto, where memory runs out in one process, the "
                        "others would wait for it; give a number")  # fmt: skip
    if config.freeze or config.adapter.name != "none":
        problems.append("device.shard=true: weights that freeze or adapter keep as they were are not divided; leave "
                        "them out")  # fmt: skip
    if problems:
        raise ConfigError(*problems)


def _why_whole(model: GenerativeModel) -> str:
    if len(model.parameter_groups()) > 1:
        return "it has several players, and each one's turn needs the weights of the others"
    if model.differentiates_twice:
        return "its loss holds a gradient, and weights gathered for one pass are gone in the second"
    return "its loss does more than call one module, and only a call gathers weights"


def _take_directory(config: Config, folder: Path | None) -> Path:
    """The directory to train in. That one which holds a run holds this run was checked with the configuration."""
    if folder is not None:
        return folder
    if config.run.dir is None:
        return make_directory(Path(config.run.root), config.run.name or "run")
    claim_run_directory(Path(config.run.dir))
    return Path(config.run.dir)


def _describe(config: Config, folder: Path, world: World, device: torch.device, parts: Parts) -> None:
    """Write config.yaml and the rest. A run that goes on keeps the provenance of its start."""
    for note in parts.notes:
        print(f"note: {note}", file=sys.stderr)
    record = None
    if not (folder / "config.yaml").is_file():
        record = provenance(
            device=device,
            world=world,
            data={"train_sha256": parts.train.content_hash(), "notes": list(parts.notes)},
            parameters=sum(parameter.numel() for parameter in parts.model.parameters()),
        )
        if parts.base is not None:
            trained = sum(parameter.numel() for parameter in parts.model.parameters() if parameter.requires_grad)
            record |= {"trained_parameters": trained}
            runs.keep_base(parts.base, folder)
        if parts.teacher is not None:
            runs.keep_teacher(parts.teacher, folder)
    describe(folder, config=as_mapping(config), spec=parts.model.spec, provenance=record)


def as_mapping(config: Config) -> dict[str, Any]:
    """`config` as config.yaml holds it: plain values, without where the run happened to be put."""
    record = dataclasses.asdict(config)
    del record["run"]
    return schema.plain(record)


def _close(config: Config, folder: Path, outcome: Outcome, seconds: float) -> None:
    is_told = outcome.did_nothing and (not config.logger.tensorboard or has_hyperparameters(folder))
    if outcome.exit_code == ExitCode.DONE and not is_told:
        log = RunLog(folder, first_step=outcome.step, tensorboard=config.logger.tensorboard)
        last = last_metrics(folder).items()
        metrics = {key: value for key, value in last if not key.startswith(("time/", "step")) and value is not None}
        log.hyperparameters(outcome.step, flatten(as_mapping(config)), metrics)
        log.close()
    _say_where(folder, outcome, seconds)


def _say_where(folder: Path, outcome: Outcome, seconds: float) -> None:
    """The last words: what was done, where its results are, and what to type next."""
    if outcome.did_nothing:
        print(f"{folder} is already finished, at step {outcome.step}. To go on, raise train.steps:")
        print(f"  genai train {shell_word('run', folder)} train.steps={2 * outcome.step}")
        return
    minutes, rest = divmod(round(seconds), 60)
    ended = "finished" if outcome.exit_code == ExitCode.DONE else "stopped and saved"
    print(f"{ended} at step {outcome.step} of {outcome.total_steps} after {minutes} min {rest} s")
    sheets = [path for path in sorted((folder / "samples").glob("step-*[0-9].*")) if path.suffix != ".wav"]
    if sheets:
        print(f"  samples     {sheets[-1]}")
    print(f"  checkpoint  {folder / 'checkpoints'}")
    print(f"  logs        {folder / 'metrics.jsonl'}  (tensorboard --logdir {shlex.quote(str(folder.parent))})")
    if outcome.exit_code == ExitCode.DONE:
        print(f"  next        genai sample {shell_word('run', folder)} num_samples=64 seed=0")
    else:
        print(f"  to go on    genai train {shell_word('run', folder)}")
