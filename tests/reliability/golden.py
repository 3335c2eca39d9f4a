"""Make a run directory of this release, to be kept for ever: `python -m tests.reliability.golden FOLDER`.

Each release adds one under tests/golden/ and never changes an older one.
"""

import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from genai_cli import cli, runs, schema
from genai_cli.engine.sampling import draw
from tests.reliability.harness import VAE

NUM_SAMPLES, SEED = 5, 3


def samples_of(run: Path) -> torch.Tensor:
    """(5, 2): what the run's averaged weights make of seed 3."""
    cpu = torch.device("cpu")
    trained = runs.load_trained(run, schema.read_run_config(run), checkpoint="last", weights="ema", device=cpu)
    return draw(trained.model, NUM_SAMPLES, seed=SEED, batch_size=NUM_SAMPLES, device=cpu)


def make(folder: Path) -> None:
    assert (
        cli.run(["train", *VAE, "train.steps=20", "train.evaluate_every=20", "train.keep=1", f"run.dir={folder}"]) == 0
    )
    for name in (".lock", "metrics.jsonl", "provenance.json"):  # these say where it was made
        (folder / name).unlink()
    shutil.rmtree(folder / "samples", ignore_errors=True)
    save_file({"samples": samples_of(folder)}, folder / "expected.safetensors")


if __name__ == "__main__":
    make(Path(sys.argv[1]))
