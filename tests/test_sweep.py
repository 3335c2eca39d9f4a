"""Sweeps: each job a process of its own, whose failure touches no other, and one table at the end."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from genai_cli import cli
from genai_cli.commands import sweep
from genai_cli.errors import ExitCode

PAIR = ["model=vae", "dataset=mnist", "train.steps=5"]

# Stands in for `python -m genai_cli train ...`: what it does is told by its seed.
CHILD = """
import json, os, pathlib, signal, sys, time
words = dict(word.split("=", 1) for word in sys.argv[2:] if "=" in word)
folder = pathlib.Path(words["run.dir"].strip("'").replace("\\\\'", "'"))
seed = int(words["seed"])
print("job", seed, "speaks", flush=True)
(folder / "argv.json").write_text(json.dumps(sys.argv[1:]))
(folder / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\\n{"step": 2, "loss": %d.5}\\n' % seed)
if seed == 3:
    print("genai: loss is NaN at step 2", file=sys.stderr)
    sys.exit(4)
if seed == 4:
    os.kill(os.getpid(), signal.SIGKILL)
if seed == 5:
    print("ZeroDivisionError: oops", "genai: this is a bug", sep="\\n")
    sys.exit(1)
if seed == 9:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    (folder / "ready").touch()
    time.sleep(60)
"""


@pytest.fixture
def child(tmp_path):
    path = tmp_path / "child.py"
    path.write_text(CHILD)
    return (sys.executable, str(path))


@pytest.fixture
def genai(tmp_path, monkeypatch, capsys, child):
    """Run `genai train -m ...` with the stand-in for its jobs: exit code, output, errors, sweep directories."""
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.setattr(sweep, "CHILD", child)

    def run(*argv):
        code = cli.run(["train", "-m", *argv])
        captured = capsys.readouterr()
        return code, captured.out, captured.err, sorted(Path("outputs").glob("*/*"))

    return run


def test_every_combination_runs_in_a_directory_of_its_own(genai):
    code, out, _, (folder,) = genai(*PAIR, "seed=0,1", "optimizer.lr=1e-3,1e-4", "model.width=8")
    assert code == ExitCode.DONE
    jobs = json.loads((folder / "sweep.json").read_text())
    assert [job["overrides"] for job in jobs] == [
        ["seed=0", "optimizer.lr=0.001"],
        ["seed=0", "optimizer.lr=0.0001"],
        ["seed=1", "optimizer.lr=0.001"],
        ["seed=1", "optimizer.lr=0.0001"],
    ]
    directories = [Path(job["directory"]) for job in jobs]
    assert [path.name for path in directories] == ["0_0_0.001", "1_0_0.0001", "2_1_0.001", "3_1_0.0001"]
    argv = json.loads((directories[2] / "argv.json").read_text())
    assert argv[0] == "train" and {"model=vae", "seed=1", "optimizer.lr=0.001", "model.width=8"} <= set(argv)
    assert (directories[2] / "job.log").read_text() == "job 1 speaks\n"
    names = {path.name for path in folder.iterdir()}
    assert names == {"sweep.json", "sweep.csv", *(path.name for path in directories)}
    assert "loss 1.5" in out and "speaks" not in out


def test_failing_jobs_stop_no_other_and_are_named_in_the_table(genai):
    code, out, _, (folder,) = genai(*PAIR, "seed=0,3,1,4,2,5")
    assert code == ExitCode.SWEEP_FAILED
    jobs = json.loads((folder / "sweep.json").read_text())
    assert [job["status"] for job in jobs] == [
        "done", "diverged", "done", "killed by signal 9 (SIGKILL)", "done", "a bug (job.log)",
    ]  # fmt: skip
    table = out.splitlines()[-6:]
    assert "diverged: loss is NaN at step 2" in table[1] and "SIGKILL" in table[3] and "ZeroDivisionError" in table[5]
    with (folder / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["loss"] for row in rows] == ["0.5", "3.5", "1.5", "4.5", "2.5", "5.5"]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["model=vae,vea"], "model=vea is no choice of model; did you mean model=vae?"),
        (["seed=0,-1"], "seed=-1 must be at least 0"),
        (["train.batch_size=8,9", "train.accumulate=4"], "train.batch_size=9 must be divisible by train.accumulate=4"),
        (["dataset=mnist,shakespeare"], "dataset=shakespeare is text"),
        (["run.dir=here"], "makes a run directory of its own"),
        (["run=latest"], "makes a run directory of its own"),
        (["seed=0,1", "hydra.sweeper.max_batch_size=0"], "Hydra's sweeper or launcher failed"),
        (["seed=0,1", "hydra/launcher=none"], "Could not find 'hydra/launcher/none'"),
        (["seed=range(0,100000)"], "must stand for 1 to 10000 values"),
        (["model=glob(x*)"], "matches no choice of model"),
    ],
)
def test_an_invalid_combination_refuses_the_whole_sweep(genai, words, problem):
    typed = {word.partition("=")[0] for word in words}
    code, _, err, folders = genai(*(word for word in PAIR if word.partition("=")[0] not in typed), *words)
    assert (code, folders) == (ExitCode.CONFIGURATION, []) and problem in err
    assert not list(Path.cwd().rglob("*_sweep*"))


def test_a_sweep_is_not_started_by_each_of_several_processes(genai, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "-m under torchrun" in genai(*PAIR, "seed=0,1")[2]


def test_ranges_and_globs_are_swept_too(genai):
    assert genai("model=glob(va?)", *PAIR[1:], "seed=range(0,3)")[0] == ExitCode.DONE
    (folder,) = Path("outputs").glob("*/*")
    assert [path.name for path in sorted(folder.glob("*_*"))] == ["0_0", "1_1", "2_2"]


def test_a_sweep_may_be_written_in_a_users_yaml(genai, tmp_path):
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    lines = "# @package _global_\nhydra:\n  sweeper:\n    params:\n      seed: 0,1\n      model.width: 8,16\n"
    (tmp_path / "mine" / "experiment" / "seeds.yaml").write_text(lines)
    code, _, err, (folder,) = genai(*PAIR, "experiment=seeds", "--config-dir", str(tmp_path / "mine"), "model.width=4")
    assert code == ExitCode.DONE, err
    assert len(json.loads((folder / "sweep.json").read_text())) == 2
    assert "--config-dir" in json.loads((next(folder.glob("0_*")) / "argv.json").read_text())


def test_the_directory_can_be_named_and_holds_odd_characters(genai, tmp_path):
    folder = tmp_path / "a 'b' $c,d"
    words = [*PAIR, "seed=0,1", f'hydra.sweep.dir="{folder}"']
    assert genai(*words)[0] == ExitCode.DONE and (folder / "sweep.json").is_file()
    assert "exists already" in genai(*words)[2]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_reaches_the_job_and_the_table_is_still_printed(tmp_path, child, number, code):
    program = f"from genai_cli import cli; from genai_cli.commands import sweep; sweep.CHILD = {child!r}; cli.main()"
    environment = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[1])}
    driver = subprocess.Popen(
        [sys.executable, "-c", program, "train", "-m", *PAIR, "seed=0,9,1"],
        cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 30
    while not list(tmp_path.glob("outputs/*/*/1_9/ready")) and time.monotonic() < deadline:
        time.sleep(0.02)
    driver.send_signal(number)
    out, _ = driver.communicate(timeout=30)
    (folder,) = tmp_path.glob("outputs/*/*")
    jobs = json.loads((folder / "sweep.json").read_text())
    assert driver.returncode == code
    assert [job["number"] for job in jobs] == [0, 1] and not (folder / "2_1").exists()
    assert jobs[1]["exit_code"] in (143, -signal.SIGINT, 1) and "directory" in out
