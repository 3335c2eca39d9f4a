"""Every model at full size, on a data set of each modality it learns, as typed: train, go on, sample, evaluate."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from genai_cli import registry
from genai_cli.registry import MODEL
from tests.molecules import write_molecules

DATASETS = {  # those in the package, with few examples held out
    "image": ["dataset=mnist", "dataset.validation=200"],
    "points": ["dataset=toy2d", "dataset.held_out=200"],
    "text": ["dataset=text", "dataset.validation=0.01"],
    "molecules": ["dataset=smiles", "dataset.path=molecules.smi"],
    "music": ["dataset=chorales", "dataset.size=20", "dataset.held_out=2"],
    "pairs": ["dataset=edges"],
}
DEFINITIONS = {
    name: registry.define(MODEL, registry.named_by(preset, MODEL)) for name, preset in registry.presets("model").items()
}
RUNS = [
    (name, modality)
    for name, definition in DEFINITIONS.items()
    for modality in (definition.modalities if definition.translates is None else ["pairs"])
]


def genai(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "genai_cli", *words], cwd=folder, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("model", "modality"), RUNS)
def test_model_trains_goes_on_samples_and_is_evaluated(model, modality, tmp_path):
    write_molecules(tmp_path / "molecules.smi")
    small = ["train.epochs=null", "train.batch_size=8", "train.log_every=1", "train.num_samples=4", "device=cpu"]
    trained = genai("train", f"model={model}", *DATASETS[modality], "train.steps=3", *small, folder=tmp_path)
    assert "finished at step 3 of 3" in trained.stdout, trained.stderr
    resumed = genai("train", "run=latest", "train.steps=5", folder=tmp_path)
    assert "finished at step 5 of 5" in resumed.stdout, resumed.stderr
    (run,) = tmp_path.glob("outputs/*/*")
    logged = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert {line["step"] for line in logged} == {1, 2, 3, 4, 5}

    sampled = genai("sample", "run=latest", "num_samples=2", "device=cpu", folder=tmp_path)
    assert "2 samples" in sampled.stdout, sampled.stderr
    few = ("num_samples=8", "split=validation", "device=cpu")
    evaluated = genai("evaluate", "run=latest", *few, folder=tmp_path)
    assert list(run.glob("evaluation/*.json")), evaluated.stderr
