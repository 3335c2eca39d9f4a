"""T05 and T06: a signal in any phase saves the current step and ends the process; going on gives the same bytes."""

import json
import os
import signal
import struct
import time
import zlib
from pathlib import Path

import pytest

from tests.reliability.harness import VAE, Genai, final_files, leftovers

WORDS = ("train", *VAE, "train.steps=6", "train.accumulate=2", "train.sample_every=4")
# phase: (fault, the step that must have been saved). 4 evaluates, samples and saves; 3 evaluates only.
PHASES = {
    "first step": ("step:{}:1", 1),
    "a step": ("step:{}:5", 5),
    "inside accumulation": ("loss.model:{}:6", 3),
    "evaluation": ("evaluate:{}:1", 3),
    "the second batch of an evaluation": ("evaluate:{}:4", 6),
    "sampling": ("sample:{}:1", 4),
    "describing the run": ("storage:{}:4", 0),
    "a save": ("storage:{}:25", 2),
    "the end of a save": ("storage:{}:35", 2),
}


@pytest.fixture(scope="module")
def undisturbed(genai: Genai, memory: Path) -> Path:
    run = memory / "undisturbed-by-signals"
    assert genai.run(*WORDS, f"run.dir={run}").code == 0
    return run


def newest_step(run: Path) -> int:
    return int(sorted(run.glob("checkpoints/step-????????"))[-1].name[-8:])


@pytest.mark.parametrize("kind", ["term", "int"])
@pytest.mark.parametrize(("fault", "saved"), PHASES.values(), ids=PHASES)
def test_a_signal_saves_and_resuming_is_bitwise(
    genai: Genai, folder: Path, undisturbed: Path, fault: str, saved: int, kind: str
) -> None:
    run = folder / "run"
    ended = genai.run(*WORDS, f"run.dir={run}", fault=fault.format(kind), seconds=20)
    assert ended.code == {"term": 143, "int": 130}[kind]
    assert ended.err == ""
    assert newest_step(run) == saved
    assert f"genai train run={run}" in ended.out
    assert genai.run("train", f"run={run}").code == 0
    assert final_files(run) == final_files(undisturbed)
    assert leftovers(run) == []


def test_a_signal_while_data_are_read_leaves_no_directory(genai: Genai, folder: Path) -> None:
    ended = genai.run(*WORDS, f"run.dir={folder}/run", fault="data:term:1")
    assert (ended.code, ended.err) == (143, "")
    assert ended.out == "stopped before the first step; there is nothing to save\n"
    assert not (folder / "run").exists()


@pytest.mark.parametrize(
    ("fault", "saved"),
    [("step:int:4,loss.model:int:7", 3), ("storage:int:25,storage:int:27", None), ("evaluate:int:1,storage:int:37", 2)],
    ids=["a step", "a save", "the save that the first one asked for"],
)
def test_asked_twice_it_ends_at_once(
    genai: Genai, folder: Path, undisturbed: Path, fault: str, saved: int | None
) -> None:
    run = folder / "run"
    assert genai.run(*WORDS, f"run.dir={run}", fault=fault).code == 130
    if saved is not None:
        assert newest_step(run) == saved  # not saved again
    assert genai.run(*WORDS, f"run.dir={run}").code == 0
    assert final_files(run) == final_files(undisturbed)
    assert leftovers(run) == []


def test_a_second_sigterm_does_not_break_the_save(genai: Genai, folder: Path, undisturbed: Path) -> None:
    run = folder / "run"
    ended = genai.run(*WORDS, f"run.dir={run}", fault="evaluate:term:1,storage:term:37,storage:int:40")
    assert ended.code in (130, 143)
    assert ended.err == ""
    assert newest_step(run) == 3
    assert genai.run(*WORDS, f"run.dir={run}").code == 0
    assert final_files(run) == final_files(undisturbed)


# -- with worker processes --------------------------------------------------------------------------------------------


def write_pictures(folder: Path, count: int) -> None:
    folder.mkdir()
    for number in range(count):
        pixels = b"".join(b"\0" + bytes([number + row]) * 8 for row in range(8))  # 8 x 8 grey
        chunks = {b"IHDR": struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0), b"IDAT": zlib.compress(pixels), b"IEND": b""}
        png = b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
            for kind, body in chunks.items()
        )
        (folder / f"{number:03d}.png").write_bytes(png)


def wait_for(condition, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def group_is_gone(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.fixture
def streaming(folder: Path) -> tuple[str, ...]:
    """A command whose data are read by two workers: more than a megabyte once the pictures are 64 x 64."""
    write_pictures(folder / "pictures", 120)
    return (
        "train", "model=vae", "model.width=4", "model.latent_dim=2", "dataset=folder",
        f"dataset.path={folder}/pictures", "dataset.memory_limit=1", "train.batch_size=4",
        "train.log_every=2", "train.save_every=null",
        "train.sample_every=null", "train.evaluate_every=null", "device=cpu", "device.workers=2",
        "logger.tensorboard=false", f"run.dir={folder}/run",
    )  # fmt: skip


def test_a_run_with_workers_ends(genai: Genai, streaming: tuple[str, ...]) -> None:
    """The workers ignore signals, so an exit that only signals them would wait for ever."""
    process = genai.start(*streaming, "train.steps=3")
    ended = process.wait(60)
    assert ended.code == 0, ended.err
    wait_for(lambda: group_is_gone(process.pid), 15)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_the_run(genai: Genai, folder: Path, streaming: tuple[str, ...], number: int) -> None:
    """SIGTERM and SIGINT reach the workers too, as from a terminal or a scheduler; SIGKILL hits the parent alone."""
    run = folder / "run"
    process = genai.start(*streaming, "train.steps=100000")
    wait_for(lambda: (run / "metrics.jsonl").is_file())
    if number == signal.SIGKILL:
        process.send(number)
    else:
        process.send_to_group(number)
    ended = process.wait(30)
    assert ended.code == {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGKILL: -9}[number], ended.err
    if number == signal.SIGKILL:  # its orphans, while they last, do not hold the run directory
        assert genai.run("train", f"run={run}", fault="step:int:1").code == 130
    else:
        saved = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["step"]
        assert newest_step(run) >= saved
    wait_for(lambda: group_is_gone(process.pid), 15)
