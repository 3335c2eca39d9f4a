"""Two processes that train one model: the same numbers as one, one writer, and one decision when to stop."""

import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest
import torch

from genai_cli.engine.checkpoint import first_non_finite, load_newest
from tests.reliability.harness import GAN, ROOT, VAE, Ended, Genai, command, final_files, log_lines

# SGD, for Adam turns rounding noise into whole steps.
SGD = ("optimizer=sgd", "optimizer.lr=0.01", "train.steps=5", "train.accumulate=2")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def run_two(genai: Genai, *words: str, faults: tuple[str, str] = ("", "")) -> list[Ended]:
    """What torchrun does: two processes that find each other by their environment."""
    port = str(free_port())
    processes = [
        genai.start(
            *words, fault=fault, RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1",
            MASTER_PORT=port,
        )
        for rank, fault in enumerate(faults)
    ]  # fmt: skip
    return [process.wait(60) for process in processes]


def assert_same_training(one: Path, two: Path) -> None:
    for single, double in zip(log_lines(one), log_lines(two), strict=True):
        assert double == pytest.approx(single, abs=1e-5)
    first, second = load_newest(one / "checkpoints"), load_newest(two / "checkpoints")
    assert first is not None and second is not None
    for name, tensor in first.model.items():
        torch.testing.assert_close(second.model[name], tensor, atol=1e-5, rtol=0)


@pytest.mark.parametrize("model", [VAE, GAN], ids=["vae", "gan"])
def test_two_ranks_train_as_one(genai: Genai, folder: Path, model: tuple[str, ...]) -> None:
    assert genai.run("train", *model, *SGD, f"run.dir={folder}/one").code == 0
    first, second = run_two(genai, "train", *model, *SGD, f"run.dir={folder}/two")
    assert (first.code, second.code) == (0, 0), first.err + second.err
    assert second.out == second.err == ""  # rank 0 alone speaks
    assert_same_training(folder / "one", folder / "two")


def test_two_ranks_make_one_directory(genai: Genai, folder: Path) -> None:
    ended = run_two(genai, "train", *VAE, *SGD, f"run.root={folder}")
    assert [end.code for end in ended] == [0, 0], ended[0].err + ended[1].err
    assert len(list(folder.glob("*/*"))) == 1


@pytest.mark.parametrize("fault", ["loss.model:nan:9", "gradient.model:nan:5"])
@pytest.mark.parametrize("poisoned", [0, 1])
def test_a_nan_on_one_rank_stops_both(genai: Genai, folder: Path, fault: str, poisoned: int) -> None:
    faults = ("", fault) if poisoned else (fault, "")
    first, second = run_two(genai, "train", *VAE, *SGD, f"run.dir={folder}/run", faults=faults)
    assert (first.code, second.code) == (4, 4), first.err + second.err
    assert "not finite at step 5" in first.err and second.err == ""
    newest = load_newest(folder / "run" / "checkpoints")
    assert newest is not None and newest.step == 4
    assert first_non_finite(newest.model) is None


@pytest.fixture(scope="module")
def undisturbed(genai: Genai, memory: Path) -> Path:
    run = memory / "undisturbed-ranks"
    assert [end.code for end in run_two(genai, "train", *VAE, *SGD, f"run.dir={run}")] == [0, 0]
    return run


@pytest.mark.parametrize(
    ("rank", "fault"),
    [(0, "step:term:3"), (1, "step:term:3"), (1, "loss.model:term:6"), (0, "evaluate:term:1"), (0, "storage:term:25")],
)
def test_a_signal_to_one_rank_stops_both_at_the_same_step(
    genai: Genai, folder: Path, undisturbed: Path, rank: int, fault: str
) -> None:
    run, words = folder / "run", ("train", *VAE, *SGD)
    ended = run_two(genai, *words, f"run.dir={run}", faults=("", fault) if rank else (fault, ""))
    assert ended[rank].code == 143
    assert [end.err for end in ended] == ["", ""]
    assert len(list(run.glob("checkpoints/step-*"))) >= 1
    assert [end.code for end in run_two(genai, *words, f"run.dir={run}")] == [0, 0]
    assert final_files(run) == final_files(undisturbed)


def test_a_run_goes_on_with_another_number_of_ranks(genai: Genai, folder: Path) -> None:
    """T30: one, then two, then one again."""
    words = ("train", *VAE, *SGD)
    assert genai.run(*words, f"run.dir={folder}/one").code == 0
    assert genai.run(*words, f"run.dir={folder}/changing", fault="step:term:2").code == 143
    assert [end.code for end in run_two(genai, *words, f"run.dir={folder}/changing", faults=("step:term:2",) * 2)] == [
        143
    ] * 2
    assert genai.run(*words, f"run.dir={folder}/changing").code == 0
    assert_same_training(folder / "one", folder / "changing")


def test_a_failure_of_rank_0_ends_both(genai: Genai, folder: Path) -> None:
    first, second = run_two(genai, "train", *VAE, *SGD, f"run.dir={folder}/run", faults=("storage:enospc:25", ""))
    assert first.code == 6
    assert "disk is full" in first.err
    assert (second.code, second.err) == (9, "")


@pytest.mark.parametrize("point", ["step", "loss.model"])
def test_a_failure_of_rank_1_ends_both_and_is_told_once(genai: Genai, folder: Path, point: str) -> None:
    """T10: memory runs out on one rank alone."""
    ended = run_two(genai, "train", *VAE, *SGD, f"run.dir={folder}/run", faults=("", f"{point}:oom:3"))
    assert [end.code for end in ended] == [9, 5]
    assert ended[1].err == ""
    (line,) = ended[0].err.splitlines()
    assert line.startswith("genai: another process of this run has ended: out of memory") and "(process 1)" in line


@pytest.mark.parametrize(
    ("rank", "point"),
    [
        (0, "step:kill:3"), (0, "loss.model:kill:4"), (0, "storage:kill:25"), (0, "evaluate:kill:1"),
        (1, "step:kill:3"), (1, "loss.model:kill:4"),
    ],
)  # fmt: skip
def test_killed_ranks_resume_to_the_same_bytes(
    genai: Genai, folder: Path, undisturbed: Path, rank: int, point: str
) -> None:
    """T09: SIGKILL of one of two ranks in a step, a gradient, a save or an evaluation; then the same command."""
    run, words = folder / "run", ("train", *VAE, *SGD)
    ended = run_two(genai, *words, f"run.dir={run}", faults=("", point) if rank else (point, ""))
    assert (ended[rank].code, ended[1 - rank].code) == (-9, 9)
    assert rank == 0 or "it left no word" in ended[0].err
    assert [end.code for end in run_two(genai, *words, f"run.dir={run}")] == [0, 0]
    assert final_files(run) == final_files(undisturbed)


def test_torchrun_trains_as_one_process(genai: Genai, folder: Path) -> None:
    """The true launcher and the true command."""
    assert genai.run("train", *VAE, *SGD, f"run.dir={folder}/one").code == 0
    launcher = [command()[0], "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={free_port()}"]
    words = ["-m", "genai_cli", "train", *VAE, *SGD, f"run.dir={folder}/two"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [*launcher, *words], capture_output=True, text=True, timeout=200, env=environment, cwd=folder
    )
    assert ended.returncode == 0, ended.stderr
    assert_same_training(folder / "one", folder / "two")


@pytest.mark.slow
def test_torchrun_starts_a_killed_run_again(genai: Genai, folder: Path, undisturbed: Path) -> None:
    """T09: each start gets some steps further before one process is killed; the last reaches the end."""
    launcher = [command()[0], "-m", "torch.distributed.run", "--nproc-per-node=2", "--max-restarts=3"]
    words = ["-m", "genai_cli", "train", *VAE, *SGD, "train.save_every=1", f"run.dir={folder}/run"]
    # Counts all steps of a process: both are killed at their fourth.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "GENAI_FAULT": "step:kill:4", "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [*launcher, f"--master-port={free_port()}", *words], capture_output=True, text=True, timeout=300,
        env=environment, cwd=folder,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    weights, expected = (load_newest(run / "checkpoints") for run in (folder / "run", undisturbed))
    assert weights is not None and expected is not None and weights.step == expected.step == 5
    assert all(torch.equal(weights.model[name], tensor) for name, tensor in expected.model.items())


@pytest.mark.slow
def test_sigterm_to_torchrun_saves(genai: Genai, folder: Path) -> None:
    launcher = [command()[0], "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={free_port()}"]
    words = [
        "-m",
        "genai_cli",
        "train",
        *VAE,
        *SGD[:2],
        "train.steps=1000000",
        "train.save_every=null",
        f"run.dir={folder}/run",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    log = folder / "run" / "metrics.jsonl"
    with subprocess.Popen([*launcher, *words], env=environment, cwd=folder, stdout=subprocess.DEVNULL) as process:
        while not log.is_file() and process.poll() is None:
            signal.sigtimedwait([], 0.1)
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    newest = load_newest(folder / "run" / "checkpoints")
    assert newest is not None and newest.step > 0
