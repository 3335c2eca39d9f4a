"""The six models at the settings of their presets: nothing is found in the first part of a healthy run."""

import json
from pathlib import Path

import pytest

from genai_cli import cli
from genai_cli.errors import ExitCode

PERIODS = ("train.log_every=50", "train.sample_every=100", "train.save_every=500")
OFTEN = ("train.log_every=5", "train.sample_every=20", "train.evaluate_every=20", "train.evaluate_examples=100")
RUNS = {
    "gan": ("dataset=mnist", "train.steps=2000", *PERIODS),
    "dcgan": ("dataset=mnist", "train.steps=300", "train.log_every=10", "train.sample_every=30"),
    "vae": ("dataset=mnist", "train.steps=1500", *PERIODS, "train.evaluate_every=100"),
    "ae": ("dataset=mnist", "train.steps=800", *PERIODS, "train.evaluate_every=100"),
    "ddpm": ("dataset=mnist", "train.steps=100", *OFTEN, "train.num_samples=16", "model.sampling_steps=10"),
    "gpt": ("dataset=text", "train.steps=300", *PERIODS, "train.evaluate_every=50"),
}


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("model", RUNS)
def test_nothing_is_found_in_a_healthy_run(model: str, tmp_path: Path) -> None:
    words = [f"model={model}", *RUNS[model], "device=cpu", "logger=none", f"run.dir={tmp_path}"]
    assert cli.run(["train", *words]) == ExitCode.DONE
    assert not (tmp_path / "findings.jsonl").exists()
    assert cli.run(["doctor", f"run={tmp_path}", "device=cpu", "num_samples=64"]) == ExitCode.DONE
    assert json.loads((tmp_path / "doctor.json").read_text())["present"] == []
