"""T07: a disk that fails ends the run with a sentence; what was saved before is whole, and nothing half-done stays."""

import resource
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest

from genai_cli.engine.checkpoint import checkpoints, damage
from genai_cli.engine.storage import warning_of_little_space
from tests.reliability.harness import VAE, Genai, final_files, leftovers, log_lines

WORDS = ("train", *VAE, "train.steps=4", "train.keep=1")


@pytest.fixture(scope="module")
def undisturbed(genai: Genai, memory: Path) -> Path:
    run = memory / "undisturbed-by-disks"
    assert genai.run(*WORDS, f"run.dir={run}").code == 0
    return run


@pytest.fixture(scope="module")
def half_done(genai: Genai, memory: Path) -> Path:
    """Step 2 of 4 saved."""
    run = memory / "half-done"
    assert genai.run(*WORDS, f"run.dir={run}", fault="step:kill:3").code == -9
    return run


@pytest.mark.parametrize("kind", ["enospc", pytest.param("eio", marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
def test_a_failure_of_any_file_operation_leaves_what_was_saved(
    genai: Genai, folder: Path, half_done: Path, undisturbed: Path, kind: str
) -> None:
    for count in range(1, 1000):
        run = folder / "run"
        shutil.copytree(half_done, run)
        ended = genai.run("train", f"run={run}", fault=f"storage:{kind}:{count}")
        assert "Traceback" not in ended.err
        assert leftovers(run) == [] or ended.code == 0  # a purge that failed may leave what the next start removes
        assert [path.name for path in run.glob(".*.tmp")] == []
        assert {damage(path) for path in checkpoints(run / "checkpoints")} == {None}
        if ended.code == 0:
            assert final_files(run) == final_files(undisturbed)
            if ended.err == "":
                break
            assert "warning" in ended.err  # of the purge
        else:
            assert ended.code == 6, ended.err
            assert ended.err.startswith("genai: cannot write ")
            if kind == "enospc":
                assert "bytes needed" in ended.err and "free" in ended.err
            assert genai.run("train", f"run={run}").code == 0
            assert final_files(run) == final_files(undisturbed)
        shutil.rmtree(run)
    assert count > 20


def test_a_first_save_that_fails_leaves_a_run_that_can_go_on(genai: Genai, folder: Path, undisturbed: Path) -> None:
    for count in (1, 5, 14, 16, 20, 33, 34, 35):
        run = folder / f"run-{count}"
        assert genai.run(*WORDS, f"run.dir={run}", fault=f"storage:enospc:{count}").code == 6
        assert leftovers(run) == [] and list(run.glob(".*.tmp")) == []
        assert genai.run(*WORDS, f"run.dir={run}").code == 0
        assert final_files(run) == final_files(undisturbed)


def test_a_real_limit_of_file_size_is_a_storage_failure(
    genai: Genai, folder: Path, half_done: Path, undisturbed: Path
) -> None:
    run = folder / "run"
    shutil.copytree(half_done, run)
    process = genai.start("train", f"run={run}", fault="step:stop:1")
    process.wait_until_stopped()
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (400, 400))
    process.send(signal.SIGCONT)
    ended = process.wait()
    assert ended.code == 6, ended.err
    assert "cannot write" in ended.err
    assert {damage(path) for path in checkpoints(run / "checkpoints")} == {None}
    assert leftovers(run) == []
    assert genai.run("train", f"run={run}").code == 0


@pytest.mark.parametrize("broken", ["metrics.jsonl", "samples", "tensorboard"])
def test_a_log_that_cannot_be_written_costs_a_warning(
    genai: Genai, folder: Path, undisturbed: Path, broken: str
) -> None:
    """metrics.jsonl is a full device; samples and tensorboard are files where folders should be."""
    run = folder / "run"
    run.mkdir()
    words = (*WORDS, "train.sample_every=2", "logger.tensorboard=true", f"run.dir={run}")
    assert genai.run(*words, fault="step:term:1").code == 143
    (run / "metrics.jsonl").unlink(missing_ok=True)
    shutil.rmtree(run / "tensorboard", ignore_errors=True)
    if broken == "metrics.jsonl":
        (run / broken).symlink_to("/dev/full")
    else:
        (run / broken).write_text("in the way")
    ended = genai.run("train", f"run={run}")
    assert ended.code == 0, ended.err
    assert 1 <= ended.err.count("warning") <= 2  # of the loop, and of the words at the end
    assert "logs cannot be written" in ended.err
    weights = "checkpoints/step-00000004/model.safetensors"
    assert (run / weights).read_bytes() == (undisturbed / weights).read_bytes()


def test_a_torn_line_of_the_log_is_cut_off(genai: Genai, folder: Path, half_done: Path, undisturbed: Path) -> None:
    run = folder / "run"
    shutil.copytree(half_done, run)
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"step": 3, "model/loss": 1.0}\n{"step": 2, "mo')
    assert genai.run("train", f"run={run}").code == 0
    assert log_lines(run) == log_lines(undisturbed)


def test_little_space_is_told_before_training(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=19_999))
    assert warning_of_little_space(folder, checkpoint=9_999) is None
    warning = warning_of_little_space(folder, checkpoint=10_000)
    assert warning is not None and "19,999 bytes free" in warning and "10,000" in warning
