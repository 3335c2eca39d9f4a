"""Every model at full size, on a data set of each modality it learns, as typed: train, go on, sample, evaluate."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
from PIL import Image

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
    "rolls": ["dataset=jsb_rolls"],
    "series": ["dataset=sines", "dataset.held_out=200"],
    "audio": ["dataset=tones", "dataset.length=500", "dataset.size=100", "dataset.held_out=20"],
    "codes": ["dataset=codes", "dataset.run=first"],
    "latents": ["dataset=latents", "dataset.run=first"],
}
FIRST_STAGES = {"codes": "vqvae", "latents": "ae"}  # the model that makes data of that modality
SMALL = ["train.epochs=null", "train.batch_size=8", "train.log_every=1", "train.num_samples=4", "device=cpu"]
PIECES = [[[48 + i, 55 + i, 60 + i], [50 + i, 53 + i, 58 + i]] for i in range(12)]  # in the place of Bach's
CHORALES = json.dumps({"train": PIECES[:6], "valid": PIECES[6:9], "test": PIECES[9:]}).encode()
GENAI = f"""
from genai_cli.cli import main
from genai_cli.data import jsb_rolls
jsb_rolls.SHA256 = "{hashlib.sha256(CHORALES).hexdigest()}"
main()
"""
DEFINITIONS = {name: registry.defined_by(preset, MODEL) for name, preset in registry.presets("model").items()}
RUNS = [
    (name, modality)
    for name, definition in DEFINITIONS.items()
    for modality in (definition.modalities if definition.translates is None else ["pairs"])
]


def genai(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """`genai` as it is, but for the chorales that it takes for Bach's, which the tests may not fetch."""
    command = [sys.executable, "-c", GENAI, *words]
    environment = {**os.environ, "GENAI_DATA": str(folder / "data")}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def write_data(folder: Path, modality: str) -> None:
    """What the data sets of DATASETS do not bring along."""
    write_molecules(folder / "molecules.smi")
    (folder / "data" / "jsb_chorales").mkdir(parents=True)
    (folder / "data" / "jsb_chorales" / "jsb-chorales-quarter.json").write_bytes(CHORALES)
    if modality in FIRST_STAGES:
        generator = numpy.random.default_rng(0)
        for number in range(100):
            place = folder / "pictures" / f"class_{number % 2}"
            place.mkdir(parents=True, exist_ok=True)
            pixels = generator.integers(0, 256, (16, 16), dtype=numpy.uint8)
            Image.fromarray(pixels).save(place / f"{number}.png")
        first = [f"model={FIRST_STAGES[modality]}", "model.width=8", "run.dir=first"]
        pictures = ["dataset=folder", "dataset.path=pictures", "dataset.image_size=16", "dataset.channels=1"]
        pictures += ["dataset.validation=0.2", "dataset.test=0.2"]
        trained = genai("train", *first, *pictures, "train.steps=3", *SMALL, folder=folder)
        assert "finished at step 3 of 3" in trained.stdout, trained.stderr


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("model", "modality"), RUNS)
def test_model_trains_goes_on_samples_and_is_evaluated(model, modality, tmp_path):
    write_data(tmp_path, modality)
    trained = genai("train", f"model={model}", *DATASETS[modality], "train.steps=3", *SMALL, folder=tmp_path)
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
