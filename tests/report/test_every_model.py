"""Every model preset: a tiny run with all that is due in a run is watched, examined and reported."""

import hashlib
import json
from pathlib import Path

import pytest

from genai_cli import cli, registry
from genai_cli.data import jsb_rolls
from genai_cli.errors import ExitCode
from genai_cli.registry import MODEL
from tests.report.test_html import Tree

DATA = {
    "image": ("dataset=mnist",),
    "points": ("dataset=toy2d", "dataset.size=200"),
    "text": ("dataset=text", "dataset.length=16"),
    "rolls": ("dataset=jsb_rolls",),
}
DEFINITIONS = {name: registry.defined_by(preset, MODEL) for name, preset in registry.presets("model").items()}
# Of a model of latents alone tests/data/test_first_stage.py proves it, with the run that makes them.
PRESETS = [name for name, definition in DEFINITIONS.items() if not DATA.keys().isdisjoint(definition.modalities)]
TINY = (
    "train.steps=4", "train.epochs=null", "train.batch_size=8", "train.log_every=2", "train.sample_every=2",
    "train.save_every=4", "train.num_samples=9", "train.evaluate_every=2", "train.evaluate_examples=8",
    "optimizer.warmup_steps=0", "train.accumulate=1", "logger=none", "device=cpu",
)  # fmt: skip


@pytest.fixture
def chorales(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve pieces of two chords in the place of Bach's."""
    pieces = [[[48 + i, 55 + i, 60 + i], [50 + i, 53 + i, 58 + i]] for i in range(12)]
    content = json.dumps({"train": pieces[:8], "valid": pieces[8:10], "test": pieces[10:]}).encode()
    path = tmp_path / "jsb_chorales" / "jsb-chorales-quarter.json"
    path.parent.mkdir()
    path.write_bytes(content)
    monkeypatch.setenv("GENAI_DATA", str(tmp_path))
    monkeypatch.setattr(jsb_rolls, "SHA256", hashlib.sha256(content).hexdigest())


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("chorales")
@pytest.mark.parametrize("preset", PRESETS)
def test_it_is_watched_examined_and_reported(preset: str, tmp_path: Path) -> None:
    definition = DEFINITIONS[preset]
    modality = next(modality for modality in definition.modalities if modality in DATA)
    options = [f"model.{key}={str(value).replace(' ', '')}" for key, value in definition.tiny.items()]
    data = DATA[modality] if definition.translates is None else ("dataset=edges",)
    words = [f"model={preset}", *data, *options, *TINY, f"run.dir={tmp_path}/run"]
    assert cli.run(["train", *words]) == ExitCode.DONE
    assert cli.run(["doctor", f"run={tmp_path}/run", "device=cpu", "num_samples=16", "examples=64"]) == ExitCode.DONE
    assert cli.run(["report", f"run={tmp_path}/run", "device=cpu", "examples=64"]) == ExitCode.DONE
    page = Tree((tmp_path / "run" / "report.html").read_text(encoding="utf-8").partition("\n")[2])
    assert {"samples", "history", "doctor", "curves"} <= {attributes.get("id") for _, attributes in page.tags}
