"""T03: a run that is killed at any moment, and started again by the same command, ends in the same bytes."""

import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.reliability.harness import GAN, VAE, Genai, final_files, leftovers

KILLED = -signal.SIGKILL


def finishes_as(genai: Genai, expected: Path, run: Path, *words: str) -> None:
    ended = genai.run(*words)
    assert ended.code == 0, ended.err
    assert final_files(run) == final_files(expected)
    assert leftovers(run) == []
    assert list(run.glob("checkpoints/*.corrupt")) == []


@pytest.mark.parametrize(
    "model", [VAE, pytest.param(GAN, marks=[pytest.mark.slow, pytest.mark.timeout(900)])], ids=["vae", "gan"]
)
def test_a_kill_after_any_file_operation_loses_nothing(genai: Genai, folder: Path, model: tuple[str, ...]) -> None:
    """From the empty folder to the end: the description of the run, a first save, a second one and its purge."""
    words = ("train", *model, "train.steps=3", "train.keep=1")
    assert genai.run(*words, f"run.dir={folder}/undisturbed").code == 0
    for count in range(1, 1000):
        run = folder / "killed"
        killed = genai.run(*words, f"run.dir={run}", fault=f"storage:kill:{count}")
        if killed.code == 0:
            break
        assert killed.code == KILLED
        finishes_as(genai, folder / "undisturbed", run, *words, f"run.dir={run}")
        shutil.rmtree(run)
    assert count > 50


def test_a_kill_while_a_checkpoint_is_replaced_loses_nothing(genai: Genai, folder: Path) -> None:
    """A signal saves step 2 in the middle of its work; the resumed run saves it again. There is no other checkpoint."""
    words = ("train", *VAE, "train.steps=2", "train.evaluate_every=2")
    assert genai.run(*words, f"run.dir={folder}/undisturbed").code == 0
    assert genai.run(*words, f"run.dir={folder}/pending", fault="evaluate:term:1").code == 128 + signal.SIGTERM
    assert [path.name for path in folder.glob("pending/checkpoints/*")] == ["step-00000002"]
    for count in range(1, 1000):
        run = folder / "killed"
        shutil.copytree(folder / "pending", run)
        killed = genai.run("train", f"run={run}", fault=f"storage:kill:{count}")
        if killed.code == KILLED:
            # Whatever the moment, the two steps are not lost: to train one again would be an error.
            ended = genai.run("train", f"run={run}", fault="step:error:1")
            assert ended.code == 0, ended.err
            finishes_as(genai, folder / "undisturbed", run, "train", f"run={run}")
        shutil.rmtree(run)
        if killed.code == 0:
            break
    assert count > 20


def kill_at_random(genai: Genai, folder: Path, times: int, seed: int) -> None:
    """Start, kill after a random time, start again ..., until the run has survived to its end."""
    words = ("train", *VAE, "train.steps=40", "train.sample_every=8")
    assert genai.run(*words, f"run.dir={folder}/undisturbed").code == 0  # the first waits for the server, too
    began = time.monotonic()
    assert genai.run(*words, f"run.dir={folder}/timed").code == 0
    duration = time.monotonic() - began
    moments = random.Random(seed)
    kills = 0
    while kills < times:
        run = folder / f"killed-{kills}"
        while True:
            process = genai.start(*words, f"run.dir={run}")
            time.sleep(moments.uniform(0, duration))
            process.send(signal.SIGKILL)
            if process.wait().code == 0 or kills >= times:
                break
            kills += 1
        finishes_as(genai, folder / "undisturbed", run, *words, f"run.dir={run}")
        shutil.rmtree(run)


def test_a_kill_at_a_random_moment_loses_nothing(genai: Genai, folder: Path) -> None:
    kill_at_random(genai, folder, times=4, seed=0)


@pytest.mark.nightly
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(10))
def test_three_hundred_kills_at_random_moments_lose_nothing(genai: Genai, folder: Path, seed: int) -> None:
    kill_at_random(genai, folder, times=30, seed=seed + 1)
