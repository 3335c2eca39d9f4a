"""T36: runs of every release so far can be sampled and gone on with, for ever."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.reliability.golden import samples_of
from tests.reliability.harness import ROOT, Genai

RELEASES = sorted(path for path in (ROOT / "tests" / "golden").iterdir() if path.is_dir())


@pytest.mark.parametrize("release", RELEASES, ids=[path.name for path in RELEASES])
def test_a_run_of_an_earlier_release_samples_the_same(release: Path) -> None:
    expected = load_file(release / "expected.safetensors")["samples"]
    torch.testing.assert_close(samples_of(release), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("release", RELEASES, ids=[path.name for path in RELEASES])
def test_a_run_of_an_earlier_release_goes_on(genai: Genai, folder: Path, release: Path) -> None:
    run = folder / "run"
    shutil.copytree(release, run)
    ended = genai.run("train", f"run={run}", "train.steps=22")
    assert ended.code == 0, ended.err
    assert (run / "checkpoints" / "step-00000022").is_dir()
