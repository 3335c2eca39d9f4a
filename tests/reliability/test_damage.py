"""T04: a damaged checkpoint is found out, kept aside, and the one before taken."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.reliability.harness import VAE, Genai, final_files

WORDS = ("train", *VAE, "train.steps=4")


@pytest.fixture(scope="module")
def finished(genai: Genai, memory: Path) -> Path:
    """A run of four steps, with checkpoints at 2 and 4."""
    run = memory / "finished"
    assert genai.run(*WORDS, f"run.dir={run}").code == 0
    return run


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


DAMAGES: dict[str, tuple[str, Callable[[Path], None]]] = {
    "empty": ("model.safetensors", lambda path: path.write_bytes(b"")),
    "cut": ("optimizer.safetensors", lambda path: path.write_bytes(path.read_bytes()[:-1])),
    "flipped": ("ema.safetensors", flip_a_bit),
    "missing": ("state.json", Path.unlink),
    "no manifest": ("manifest.json", Path.unlink),
}


@pytest.mark.parametrize(("name", "damage"), DAMAGES.values(), ids=DAMAGES)
def test_the_checkpoint_before_a_damaged_one_is_used(
    genai: Genai, folder: Path, finished: Path, name: str, damage: Callable[[Path], None]
) -> None:
    run = folder / "run"
    shutil.copytree(finished, run)
    damage(run / "checkpoints" / "step-00000004" / name)
    ended = genai.run("train", f"run={run}")
    assert ended.code == 0, ended.err
    assert f"step-00000004/{name}" in ended.err
    assert "Traceback" not in ended.err
    assert (run / "checkpoints" / "step-00000004.corrupt").is_dir()
    assert final_files(run) == final_files(finished)


def test_no_run_starts_from_zero_when_all_its_checkpoints_are_damaged(
    genai: Genai, folder: Path, finished: Path
) -> None:
    run = folder / "run"
    shutil.copytree(finished, run)
    for manifest in run.glob("checkpoints/*/manifest.json"):
        flip_a_bit(manifest)
    log = (run / "metrics.jsonl").read_bytes()
    for _ in range(2):  # the second time all are aside already
        ended = genai.run("train", f"run={run}")
        assert ended.code == 6
        assert "no valid checkpoint is left" in ended.err
    assert (run / "metrics.jsonl").read_bytes() == log
    assert genai.run("sample", f"run={run}", "device=cpu").code == 6
