"""T38: whatever bytes a checkpoint holds, reading it ends in an answer in words: no crash, no hang, no gigabytes."""

import json
import random
import resource
import struct
from pathlib import Path

import pytest
import torch

from genai_cli.engine import checkpoint as checkpoints
from genai_cli.engine.checkpoint import Checkpoint
from genai_cli.engine.run import read_spec
from genai_cli.errors import GenaiError
from genai_cli.locate import read_config

TENSORS = ("model.safetensors", "ema.safetensors", "optimizer.safetensors")
CONFIG = "model:\n  name: vae\ndataset:\n  name: toy2d\ntrain:\n  steps: 4\nplugins: []\n"
SPEC = {"modality": "points", "shape": [2], "value_range": None, "classes": []}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run directory of one small checkpoint."""
    weights = {"layer.weight": torch.arange(6.0).view(2, 3), "layer.steps": torch.tensor(3)}
    saved = Checkpoint(step=2, model=weights, ema=weights, optimizer={"model/layer.weight/exp_avg": torch.ones(2, 3)})
    saved.state = {"averages": {"model/loss": [1.5, 2]}, "best": None, "avoided": [], "skipped": 0}
    (tmp_path / "checkpoints").mkdir()
    checkpoints.save(saved, tmp_path / "checkpoints", keep=2)
    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / "spec.json").write_text(json.dumps(SPEC))
    return tmp_path


def mutate(content: bytes, chance: random.Random) -> bytes:
    """`content` with one to four faults: of bits, lengths, order, numbers, nesting, and of the length of a header."""
    spoilt = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(spoilt) + 1)
        kind = chance.randrange(8)
        if kind == 0 and spoilt:
            spoilt[place % len(spoilt)] ^= 1 << chance.randrange(8)
        elif kind == 1:
            del spoilt[place:]
        elif kind == 2:
            del spoilt[place : place + chance.randint(1, 20)]
        elif kind == 3:
            spoilt[place:place] = spoilt[: chance.randint(1, 40)]
        elif kind == 4:
            spoilt[place:place] = chance.choice([b"[" * 5000, b'{"a":' * 2000, b"9" * 5000, b"\0\xff", b"NaN", b"-1"])
        elif kind == 5:
            spoilt[:8] = struct.pack("<Q", chance.choice([0, 1, len(content), 2**31, 2**63, chance.getrandbits(64)]))
        elif kind == 6:
            spoilt = bytearray(bytes(spoilt).replace(b"0", chance.choice([b"-", b"1e999", b"null", b"4294967296"]), 3))
        else:
            spoilt = bytearray(bytes(spoilt).replace(b'"F32"', chance.choice([b'"F64"', b'"X"', b"7"])))
    return bytes(spoilt)


def read_all(run: Path) -> None:
    newest = run / "checkpoints" / "step-00000002"
    assert checkpoints.damage(newest) is None or isinstance(checkpoints.damage(newest), str)
    for read in (lambda: checkpoints.read(newest), lambda: read_spec(run), lambda: read_config(run)):
        try:
            read()
        except GenaiError as error:
            assert str(error)


def prove(run: Path, count: int, seed: int) -> None:
    chance = random.Random(seed)
    newest = run / "checkpoints" / "step-00000002"
    files = [newest / name for name in (*TENSORS, "state.json", "manifest.json")]
    files += [run / "config.yaml", run / "spec.json"]
    originals = {path: path.read_bytes() for path in files}
    read_all(run)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(count):
        path = chance.choice(files)
        path.write_bytes(mutate(originals[path], chance))
        read_all(run)
        path.write_bytes(originals[path])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kilobytes


def test_mutated_files_are_refused_in_words(run: Path) -> None:
    prove(run, 400, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 6))
def test_ten_thousand_mutated_files_are_refused_in_words(run: Path, seed: int) -> None:
    prove(run, 2000, seed)
