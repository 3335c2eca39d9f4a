"""`genai doctor`: what ails a run, found in its log, its samples and its codes, with evidence and what to change."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genai_cli import registry, runs, schema
from genai_cli.config import Config, DoctorConfig, ExamineConfig
from genai_cli.data.base import Dataset
from genai_cli.doctor.findings import Finding
from genai_cli.doctor.signs import Reference, code_signs, sample_signs
from genai_cli.doctor.symptoms import Facts
from genai_cli.doctor.watch import Watch, replay
from genai_cli.engine.checkpoint import checkpoints
from genai_cli.engine.device import choose_device
from genai_cli.engine.figures import first_batch
from genai_cli.engine.progress import Progress
from genai_cli.engine.sampling import draw
from genai_cli.errors import ExitCode
from genai_cli.locate import read_lines
from genai_cli.runs import TrainedRun

ENCODED = 1000  # held-out examples whose codes are looked at
ALL_NOTED = DoctorConfig()


@dataclass(frozen=True)
class Examination:
    """What the doctor says of a run."""

    step: int
    past: list[Finding]  # made while it trained, as findings.jsonl has them
    present: list[Finding]  # of the log as it ends, and of samples drawn now
    signs: dict[str, float]  # measured now

    def to_json(self) -> dict[str, Any]:
        past, present = ([finding.to_json() for finding in findings] for findings in (self.past, self.present))
        return {"step": self.step, "present": present, "past": past, "signs": self.signs}


def run(config: ExamineConfig, *, folder: Path) -> ExitCode:
    """Examine the run in `folder`; of one that was never saved, its log alone."""
    device = choose_device(config.device)
    trained_config = schema.read_run_config(folder)
    signs: dict[str, float] = {}
    trained = None
    if checkpoints(folder / "checkpoints"):
        trained = runs.load_trained(
            folder, trained_config, checkpoint=config.checkpoint, weights=config.weights, device=device
        )
        dataset = data_of(trained)
        progress = Progress(first=0, total=config.num_samples, unit="samples")
        try:
            samples = draw(
                trained.model, config.num_samples, seed=config.seed, batch_size=config.batch_size, device=device,
                sources=dataset.load("validation"), report=progress.advance,
            )  # fmt: skip
        finally:
            progress.close()
        signs = measure(trained, dataset, samples, seed=config.seed, examples=config.examples, device=device)
    examination = examine(folder, trained_config, trained.step if trained else None, signs)
    path = folder / "doctor.json"
    path.write_text(json.dumps(examination.to_json(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    _print(examination)
    print(f"\nwritten to {path}")
    return ExitCode.DONE


def data_of(trained: TrainedRun) -> Dataset:
    """The data set that a run was trained on. Raises ConfigError where it has become another one."""
    dataset = runs.build_dataset(trained.config, trained.spec)
    runs.check_unchanged(dataset.spec, trained.spec, trained.config, trained.folder)
    return dataset


def measure(
    trained: TrainedRun, dataset: Dataset, samples: Tensor, *, seed: int, examples: int | None, device: torch.device
) -> dict[str, float]:
    """The signs of `samples` (B, *shape) beside both splits, and of the codes of held-out data."""
    train, held_out = dataset.load("train"), dataset.load("validation")
    reference = Reference.of(train, held_out, trained.spec, limit=examples or len(train))
    signs = sample_signs(samples, reference, trained.spec)
    if trained.model.has_posterior:
        batch = first_batch(held_out, ENCODED, seed=seed, device=device)
        with torch.no_grad():
            signs |= code_signs(*trained.model.posterior_of_rows(batch))
    return signs


def examine(folder: Path, config: Config, step: int | None, signs: Mapping[str, float]) -> Examination:
    """Judge the log of a run as it ends, and `signs` that were measured at `step`."""
    lines = read_lines(folder / "metrics.jsonl")
    step = step if step is not None else max((line["step"] for line in lines), default=0)
    facts = Facts(
        total_steps=max(step, 1),
        monitor=registry.define(registry.MODEL, config.model["name"], config.plugins).monitor,
        codebook_size=config.model.get("num_codes"),
        patience=config.doctor.patience,
    )
    log = replay(lines, ALL_NOTED, facts)
    found = {finding.name: finding for finding in log.judge(step)}
    if signs:  # many samples of one moment in place of a few of several
        now = Watch(ALL_NOTED, replace(facts, patience=1))
        measured = now.examine(step, signs)
        found = {name: finding for name, finding in found.items() if not _is_of_signs(name)}
        found |= {finding.name: finding for finding in measured}
    past = _past(folder)
    return Examination(step, past, [_since_first(finding, past) for finding in found.values()], dict(signs))


def _since_first(finding: Finding, past: list[Finding]) -> Finding:
    """`finding`, begun when it was first made in training: the log that is looked at now does not reach so far back."""
    return replace(finding, since=min([finding.since, *(each.since for each in past if each.name == finding.name)]))


def _is_of_signs(name: str) -> bool:
    return name in ("mode_collapse", "memorisation", "posterior_collapse")


def _past(folder: Path) -> list[Finding]:
    found = []
    for record in read_lines(folder / "findings.jsonl"):
        try:
            found.append(Finding.from_json(record))
        except (KeyError, TypeError, ValueError):
            continue
    return found


def _print(examination: Examination) -> None:
    if not examination.present:
        print(f"nothing is found to be wrong at step {examination.step}")
    for finding in examination.present:
        _print_finding(finding)
    standing = {finding.name for finding in examination.present}
    past = [finding for finding in examination.past if finding.name not in standing]
    if past:
        print("\nWhile it trained")
    for finding in past:
        _print_finding(finding)
    if examination.signs:
        print("\nSigns (of samples, 1 is what held-out data have)")
    for key, value in examination.signs.items():
        print(f"  {key:<28}{value:.3g}")


def _print_finding(finding: Finding) -> None:
    disease = finding.disease
    print(f"{disease.title} (step {finding.since})")
    for word, text in (("evidence", finding.evidence), ("means", disease.meaning), ("change", disease.remedy)):
        print(f"  {word:<9} {text}")
