"""T22: a run directory from a stranger runs nothing, whatever its files hold, and is refused with a sentence."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from genai_cli.engine import checkpoint as checkpoints
from genai_cli.engine.storage import sha256_of
from tests.reliability.harness import VAE, Genai

COMMANDS = {
    "train": ("train", "run={run}", "train.steps=4"),
    "sample": ("sample", "run={run}", "num_samples=2", "device=cpu"),
    "evaluate": ("evaluate", "run={run}", "device=cpu"),
}


class Reduce:
    """A pickle that writes a file when it is loaded."""

    def __init__(self, canary: Path):
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.canary, "caught")


def pickled(canary: Path) -> bytes:
    return pickle.dumps(Reduce(canary))


def zipped(canary: Path) -> bytes:
    path = canary.with_suffix(".pt")
    torch.save({"weight": torch.zeros(2), "payload": Reduce(canary)}, path)
    return path.read_bytes()


def old_torch(canary: Path) -> bytes:
    path = canary.with_suffix(".old")
    torch.save(Reduce(canary), path, _use_new_zipfile_serialization=False)
    return path.read_bytes()


def yaml_tag(canary: Path) -> bytes:
    call = "!!python/object/apply:pathlib.Path"
    return f'{call}.write_text\n- {call} ["{canary}"]\n- caught\n'.encode()


def huge_header(canary: Path) -> bytes:
    return (2**62).to_bytes(8, "little") + b"{}"


def deep_json(canary: Path) -> bytes:
    return b"[" * 100_000 + b"]" * 100_000


PAYLOADS: dict[str, Callable[[Path], bytes]] = {
    "pickle": pickled,
    "zip": zipped,
    "old torch": old_torch,
    "yaml tag": yaml_tag,
    "header": huge_header,
    "json": deep_json,
}
FILES = (
    "checkpoint/model.safetensors",
    "checkpoint/optimizer.safetensors",
    "checkpoint/state.json",
    "spec.json",
    "config.yaml",
)


@pytest.fixture(scope="module")
def honest(genai: Genai, memory: Path) -> Path:
    run = memory / "honest"
    assert genai.run("train", *VAE, "train.steps=2", f"run.dir={run}").code == 0
    return run


def forge(run: Path, file: str, content: bytes) -> None:
    """Put `content` in the place of `file`, with sums that say that all is well."""
    newest = run / "checkpoints" / "step-00000002"
    path = newest / file.removeprefix("checkpoint/") if file.startswith("checkpoint/") else run / file
    path.write_bytes(content)
    manifest = json.loads((newest / "manifest.json").read_text())
    del manifest["sha256"]
    for name, record in manifest["files"].items():
        record |= {"sha256": sha256_of(newest / name), "bytes": (newest / name).stat().st_size}
    manifest["sha256"] = checkpoints._manifest_sum(manifest)
    (newest / "manifest.json").write_text(json.dumps(manifest))
    assert checkpoints.damage(newest) is None


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("payload", PAYLOADS)
def test_no_loader_runs_what_a_file_holds(genai: Genai, folder: Path, honest: Path, file: str, payload: str) -> None:
    run, canary = folder / "run", folder / "canary"
    shutil.copytree(honest, run)
    forge(run, file, PAYLOADS[payload](canary))
    for name in ("sample", "train"):  # evaluating reads what sampling reads
        ended = genai.run(*(word.format(run=run) for word in COMMANDS[name]))
        assert not canary.exists()
        assert "Traceback" not in ended.err
        if name == "train" and file == "spec.json":
            assert ended.code == 0, ended.err  # training writes it anew, from its data
        else:
            assert ended.code in (2, 3), ended.err
            assert Path(file).name in ended.err or "step-00000002" in ended.err


STATES: dict[str, Any] = {"empty": {}, "a list": [], "wrong types": {"averages": 3, "skipped": "many", "best": [1]}}


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
def test_a_state_of_another_form_is_refused_in_words(genai: Genai, folder: Path, honest: Path, state: Any) -> None:
    run = folder / "run"
    shutil.copytree(honest, run)
    forge(run, "checkpoint/state.json", json.dumps(state).encode())
    ended = genai.run("train", f"run={run}", "train.steps=4")
    assert ended.code == 3, ended.err
    assert "Traceback" not in ended.err


def test_weights_of_another_model_are_refused_in_words(genai: Genai, folder: Path, honest: Path) -> None:
    from safetensors.torch import save

    run = folder / "run"
    shutil.copytree(honest, run)
    forge(run, "checkpoint/model.safetensors", save({"other": torch.zeros(3)}))
    for name in COMMANDS:
        ended = genai.run(*(word.format(run=run) for word in COMMANDS[name]))
        assert ended.code == 3, ended.err
        assert "Traceback" not in ended.err


def test_a_checkpoint_of_a_future_format_is_left_alone(genai: Genai, folder: Path, honest: Path) -> None:
    """T36: exit 2 and the version, not a damaged file."""
    run = folder / "run"
    shutil.copytree(honest, run)
    path = run / "checkpoints" / "step-00000002" / "manifest.json"
    manifest = json.loads(path.read_text()) | {"format_version": 99, "news": "unknown to this version"}
    del manifest["sha256"]
    path.write_text(json.dumps(manifest | {"sha256": checkpoints._manifest_sum(manifest)}))
    for name in COMMANDS:
        ended = genai.run(*(word.format(run=run) for word in COMMANDS[name]))
        assert ended.code == 2, ended.err
        assert "format 99" in ended.err and "format 1" in ended.err
    assert path.is_file()
