"""Every model at full size, on a data set of each modality it learns, as typed: train, go on, sample, evaluate."""

import json
import subprocess
import sys

import pytest

from genai_cli import registry
from genai_cli.registry import MODEL

DATASETS = {"image": "mnist", "points": "toy2d", "text": "text"}  # in the package
RUNS = [
    (preset, DATASETS[modality])
    for preset in registry.presets("model")
    for modality in registry.define(MODEL, registry.named_by(registry.presets("model")[preset], MODEL)).modalities
]


def genai(*words: str, folder) -> str:
    """What the command prints. Its exit code must be 0."""
    command = [sys.executable, "-m", "genai_cli", *words]
    finished = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("model", "dataset"), RUNS)
def test_model_trains_goes_on_samples_and_is_evaluated(model, dataset, tmp_path):
    small = ["train.epochs=null", "train.batch_size=8", "train.log_every=1", "train.num_samples=4", "device=cpu"]
    genai("train", f"model={model}", f"dataset={dataset}", "train.steps=3", *small, folder=tmp_path)
    assert "finished at step 5 of 5" in genai("train", "run=latest", "train.steps=5", folder=tmp_path)
    (run,) = tmp_path.glob("outputs/*/*")
    logged = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert {line["step"] for line in logged} == {1, 2, 3, 4, 5}

    assert "sheet" in genai("sample", "run=latest", "num_samples=2", "device=cpu", folder=tmp_path)
    genai("evaluate", "run=latest", "device=cpu", folder=tmp_path)
    assert list((run / "evaluation").iterdir())
