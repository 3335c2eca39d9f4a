"""T33: a run in which nothing happens any more ends by itself, soon, and says where it stood."""

import signal
import time
from pathlib import Path

import pytest

from tests.reliability.harness import VAE, Genai
from tests.reliability.test_two_ranks import SGD, free_port

LIMIT = 2.0  # seconds
WORDS = ("train", *VAE, f"device.timeout={LIMIT:g}s")


@pytest.mark.parametrize("fault", ["step:hang:3", "storage:hang:30", "evaluate:hang:1"])
def test_a_run_that_hangs_ends_with_its_stacks(genai: Genai, folder: Path, fault: str) -> None:
    run, began = folder / "run", time.monotonic()
    ended = genai.run(*WORDS, "train.steps=6", f"run.dir={run}", fault=fault, seconds=20)
    assert ended.code == 11, ended.err
    assert time.monotonic() - began < 2 * LIMIT + 2  # and the start of the process
    assert "nothing has happened for 2 s (device.timeout)" in ended.err
    report = (run / "stacks-0.txt").read_text()
    assert "in _strike" in report and "trainer.py" in report
    assert genai.run(*WORDS, "train.steps=6", f"run.dir={run}").code == 0


def test_time_in_which_the_process_was_stopped_does_not_count(genai: Genai, folder: Path) -> None:
    """Ctrl-Z, or a scheduler that makes room for another job."""
    process = genai.start(*WORDS, "train.steps=6", f"run.dir={folder}/run", fault="step:stop:3")
    process.wait_until_stopped()
    time.sleep(1.5 * LIMIT)
    process.send(signal.SIGCONT)
    ended = process.wait()
    assert ended.code == 0, ended.err


def test_a_rank_that_was_stopped_ends_the_other(genai: Genai, folder: Path) -> None:
    run, port = folder / "run", str(free_port())
    first, second = (
        genai.start(
            *WORDS, *SGD, f"run.dir={run}", fault=fault, RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2",
            MASTER_ADDR="127.0.0.1", MASTER_PORT=port,
        )
        for rank, fault in enumerate(("", "step:stop:3"))
    )  # fmt: skip
    second.wait_until_stopped()
    ended = first.wait(2 * LIMIT + 2)
    assert ended.code == 11, ended.err
    assert "process 0 of 2: nothing has happened for" in ended.err
    assert "distributed.py" in (run / "stacks-0.txt").read_text()
    second.send(signal.SIGCONT)
    assert second.wait(10).code == 9


def test_a_slow_run_is_left_alone(genai: Genai, folder: Path) -> None:
    ended = genai.run("train", *VAE, "train.steps=300", "device.timeout=0.2s", f"run.dir={folder}/run")
    assert ended.code == 0, ended.err
