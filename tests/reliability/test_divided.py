"""Weights divided among two processes (`device.shard=true`): one format of checkpoint, and failures as without."""

from pathlib import Path

import pytest

from genai_cli import cli
from genai_cli.engine.checkpoint import load_newest
from genai_cli.errors import ExitCode
from tests.reliability.harness import TINY, Genai, final_files
from tests.reliability.test_two_ranks import SGD, assert_same_training, run_two

FLOW = ("model=flow_matching", "model.width=8", *TINY, *SGD, "optimizer.warmup_steps=0", "train.clip_norm=1")
DIVIDED = ("train", *FLOW, "device.shard=true")


@pytest.fixture(scope="module")
def undisturbed(genai: Genai, memory: Path) -> Path:
    run = memory / "undisturbed-divided"
    ended = run_two(genai, *DIVIDED, f"run.dir={run}")
    assert [end.code for end in ended] == [0, 0], ended[0].err + ended[1].err
    return run


def test_a_run_goes_on_divided_and_whole(genai: Genai, folder: Path) -> None:
    """Two processes, then one, which has it all, then two: as one alone that never heard of it."""
    run = folder / "changing"
    assert genai.run("train", *FLOW, f"run.dir={folder}/one").code == 0
    for fault in ("step:term:2", "step:term:1", ""):
        if fault != "step:term:1":
            ended = run_two(genai, *DIVIDED, f"run.dir={run}", faults=(fault, fault))
            assert [end.code for end in ended] == [143 if fault else 0] * 2, ended[0].err + ended[1].err
        else:
            assert genai.run("train", f"run={run}", "device.shard=false", fault=fault).code == 143
            assert genai.run("train", f"run={run}", "device.shard=true", fault=fault).code == 143
    assert_same_training(folder / "one", run)


@pytest.mark.parametrize("point", ["step:kill:3", "loss.model:kill:4", "storage:kill:25"])
def test_killed_ranks_resume_to_the_same_bytes(genai: Genai, folder: Path, undisturbed: Path, point: str) -> None:
    rank = 0 if "storage" in point else 1
    run = folder / "run"
    ended = run_two(genai, *DIVIDED, f"run.dir={run}", faults=("", point) if rank else (point, ""))
    assert (ended[rank].code, ended[1 - rank].code) == (-9, 9), ended[1 - rank].err
    assert rank == 0 or "it left no word" in ended[0].err
    assert [end.code for end in run_two(genai, *DIVIDED, f"run.dir={run}")] == [0, 0]
    assert final_files(run) == final_files(undisturbed)


@pytest.mark.parametrize("fault", ["loss.model:nan:9", "gradient.model:nan:5"])
def test_a_nan_on_one_rank_stops_both(genai: Genai, folder: Path, fault: str) -> None:
    first, second = run_two(genai, *DIVIDED, f"run.dir={folder}/run", faults=("", fault))
    assert (first.code, second.code) == (4, 4), first.err + second.err
    assert "not finite at step 5" in first.err and second.err == ""
    newest = load_newest(folder / "run" / "checkpoints")
    assert newest is not None and newest.step == 4


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["model=gan"], "model=gan cannot be divided: it has several players"),
        (["model=meanflow"], "model=meanflow cannot be divided: its loss"),
        (["model=vae"], "model=vae cannot be divided: its loss does more than call one module"),
        ([*FLOW, "train.accumulate=auto"], "with train.accumulate=auto"),
        ([*FLOW, "device.compile=true"], "device.compile=true would pass by what gathers weights"),
    ],
)
def test_what_cannot_be_divided_is_refused_before_work_starts(
    words: list[str], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    code = cli.run(["train", *words, *TINY, "device.shard=true", f"run.dir={run}"])
    assert code == ExitCode.CONFIGURATION and not run.exists()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("genai: device.shard=true: ") and reason in line
