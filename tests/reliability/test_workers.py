"""T12: a loader process that is killed, ends, fails or never ends is told of by its number and its sample."""

import os
import re
import signal
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor

from genai_cli.data.base import DataError, Split
from genai_cli.engine import readahead
from genai_cli.engine.batches import Batches
from genai_cli.engine.readahead import ReadAhead
from genai_cli.errors import OutOfMemory
from tests.reliability.harness import Genai
from tests.reliability.test_signals import group_is_gone, wait_for, write_pictures


@pytest.fixture
def words(folder: Path) -> tuple[str, ...]:
    write_pictures(folder / "pictures", 120)
    return (
        "train", "model=vae", "model.width=4", "model.latent_dim=2", "dataset=folder",
        f"dataset.path={folder}/pictures", "dataset.memory_limit=1", "train.batch_size=4", "train.steps=9",
        "train.log_every=2", "train.save_every=2", "train.sample_every=null", "train.evaluate_every=null",
        "device=cpu", "device.workers=2", "device.read_timeout=2s", "logger.tensorboard=false",
        f"run.dir={folder}/run",
    )  # fmt: skip


TOLD = {
    "kill": "was killed by SIGKILL",
    "exit": "ended by itself, with code 1",
    "hang": "has not ended after",
    "stop": "has not ended after",
    "error": "RuntimeError: injected error",
    "oom": "out of memory",
}


@pytest.mark.parametrize(("kind", "told"), TOLD.items(), ids=TOLD)
def test_a_failing_worker_is_named_with_its_sample(
    genai: Genai, folder: Path, words: tuple[str, ...], kind: str, told: str
) -> None:
    process = genai.start(*words, fault=f"read:{kind}:12")
    ended = process.wait(30)
    assert ended.code == (5 if kind == "oom" else 3), ended.err
    (line,) = [line for line in ended.err.splitlines() if "loader process" in line]
    assert told in line
    assert re.search(r"loader process [12] of 2 \(process \d+\) .* at \d{3}\.png", line), line
    assert "Traceback" not in ended.err
    wait_for(lambda: group_is_gone(process.pid), 10)
    if kind == "kill":
        assert genai.run(*words).code == 0  # the same command goes on


class Numbers(Split):
    """Examples that are read by `read`."""

    streams = True

    def __len__(self) -> int:
        return 64

    def fetch(self, positions: Tensor) -> dict[str, Tensor]:
        return {"points": torch.cat([self.read(position) for position in positions.tolist()])}

    def read(self, position: int) -> Tensor:
        return torch.tensor([float(position)])

    def content_hash(self) -> str:
        return ""


def ahead(split: Split, *, patience: float | None = None) -> ReadAhead:
    places = (list(range(start, start + 4)) for start in range(0, 64, 4))
    return ReadAhead(split, places, workers=2, patience=patience)


class TakenSlowly(dict):
    """Rows in shared memory from which the parent takes its time to copy."""

    def items(self):
        time.sleep(0.05)
        return super().items()


def test_rows_are_not_written_over_while_they_are_taken_or_afterwards() -> None:
    """The workers read ahead all the while, into the same shared memory over and over."""
    stream = ahead(Numbers())
    try:
        stream.slots = [TakenSlowly(slot) for slot in stream.slots]
        taken = [next(stream)["points"] for _ in range(16)]
    finally:
        stream.close()
    assert torch.equal(torch.cat(taken), torch.arange(64.0))


class Slow(Numbers):
    def read(self, position: int) -> Tensor:
        time.sleep(0.4)
        return super().read(position)


def test_the_time_is_that_of_one_sample_and_not_of_a_batch() -> None:
    stream = ahead(Slow(), patience=1.0)
    try:
        assert torch.equal(next(stream)["points"], torch.arange(4.0))  # after 1.6 s
    finally:
        stream.close()


def test_a_worker_that_was_stopped_before_it_began_is_found() -> None:
    stream = ahead(Slow(), patience=1.5)
    try:
        os.kill(stream._workers[1].pid, signal.SIGSTOP)
        with pytest.raises(DataError, match=r"loader process 2 of 2 .* after [1-9] s"):
            for _ in range(16):
                next(stream)
    finally:
        stream.close()


def test_a_worker_that_dies_with_nothing_in_hand_is_told_of_without_a_sample() -> None:
    stream = ahead(Numbers())
    try:
        next(stream)
        wait_for(lambda: bool((stream.notes[:, 0] == -1).all()), 10)  # all that was asked for has been read
        os.kill(stream._workers[1].pid, signal.SIGKILL)
        with pytest.raises(DataError, match=r"loader process 2 of 2 \(process \d+\) was killed by SIGKILL, as where"):
            for _ in range(15):
                next(stream)
    finally:
        stream.close()


def test_a_wait_for_workers_is_a_sign_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has a limit of its own, device.read_timeout, which may be longer than device.timeout."""
    beats: list[float] = []
    monkeypatch.setattr(readahead, "_LOOK_EVERY", 0.3)
    monkeypatch.setattr(readahead.watchdog, "beat", lambda: beats.append(time.monotonic()))
    stream = ahead(Slow(), patience=10.0)
    try:
        next(stream)  # after 1.6 s
    finally:
        stream.close()
    assert len(beats) >= 2


class OutOfShared(Numbers):
    def read(self, position: int) -> Tensor:
        if position == 6:
            os.kill(os.getpid(), signal.SIGBUS)
        return super().read(position)


def test_a_full_shared_memory_is_lack_of_memory() -> None:
    """T40: what the kernel does to a process that writes where /dev/shm has no room."""
    stream = ahead(OutOfShared())
    try:
        with pytest.raises(OutOfMemory, match=r"at example 6: shared memory \(/dev/shm\) is full"):
            for _ in range(16):
                next(stream)
    finally:
        stream.close()


class Dying(Numbers):
    def read(self, position: int) -> Tensor:
        if position == 40:
            os._exit(0)
        return super().read(position)


def test_a_death_is_told_where_its_rows_are_missing_and_nowhere_else() -> None:
    """No handler of signals raises it in the middle of other work, such as a save."""
    batches = Batches(Dying(), seed=0, batch_size=8, workers=2)
    try:
        with pytest.raises(DataError, match=r"ended by itself, with code 0 at example 40"):
            for step in range(8):
                rows = batches.fetch(step, 0, 0)["points"]
                time.sleep(0.1)
                assert 40 not in rows
    finally:
        batches.close()
    assert signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL
