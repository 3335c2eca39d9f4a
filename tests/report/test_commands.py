"""`genai doctor`, `genai report` and `genai compare` on small real runs of every modality, and what they refuse."""

import json
import sys
from pathlib import Path

import pytest
import torch

from genai_cli import cli
from genai_cli.commands import compare
from genai_cli.commands.sweep import Stop
from genai_cli.errors import ExitCode
from tests.report.test_html import Tree

TINY = (
    "train.steps=6", "train.batch_size=8", "train.log_every=2", "train.sample_every=2", "train.save_every=6",
    "train.num_samples=9", "train.evaluate_every=3", "train.evaluate_examples=8", "logger=none", "device=cpu",
)  # fmt: skip
RUNS = {
    "vae": ("model=vae", "dataset=mnist", "model.width=8", "model.latent_dim=3"),
    "gan": ("model=gan", "dataset=toy2d", "model.width=8", "model.latent_dim=3", "dataset.size=200"),
    "ddpm": ("model=ddpm", "dataset=toy2d", "dataset.size=200", "model.width=8"),
    "gpt": ("model=gpt", "dataset=text", "model.width=16", "model.depth=1", "model.heads=2", "dataset.length=24"),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for name, words in RUNS.items():
        assert cli.run(["train", *words, *TINY, f"run.dir={folder / name}"]) == ExitCode.DONE
    return folder


def titles(page: Tree) -> set[str]:
    return {attributes["id"] for tag, attributes in page.tags if tag == "section"}


EVERYWHERE = {
    "samples", "history", "doctor", "metrics", "curves", "nearest-training-data", "configuration-and-provenance",
}  # fmt: skip
MORE = {"vae": {"reconstruction", "interpolation", "traversal"}, "gan": {"interpolation"}, "ddpm": set(), "gpt": set()}


@pytest.mark.parametrize("name", RUNS)
def test_a_report_of_every_modality(runs: Path, name: str):
    assert cli.run(["report", f"run={runs / name}", "device=cpu", "examples=200"]) == ExitCode.DONE
    page = Tree((runs / name / "report.html").read_text(encoding="utf-8").partition("\n")[2])
    assert titles(page) == EVERYWHERE | MORE[name]
    frames = [attributes for tag, attributes in page.tags if tag == "figure" and attributes.get("class") == "frame"]
    assert len(frames) == 3, "steps 2, 4 and 6"
    sources = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert bool(sources) == (name != "gpt")


@pytest.mark.parametrize("name", RUNS)
def test_the_doctor_examines_every_modality(runs: Path, name: str, capsys):
    words = ["doctor", f"run={runs / name}", "device=cpu", "examples=200", "num_samples=32"]
    assert cli.run(words) == ExitCode.DONE
    record = json.loads((runs / name / "doctor.json").read_text())
    assert record["step"] == 6 and "samples/spread" in record["signs"]
    assert ("codes/active_units" in record["signs"]) == (name == "vae")
    assert "written to" in capsys.readouterr().out


def test_the_doctor_reads_the_log_of_a_run_that_was_never_saved(tmp_path: Path, capsys):
    words = [*RUNS["vae"], *TINY, "optimizer.lr=1e30", "train.evaluate_every=null", f"run.dir={tmp_path}"]
    assert cli.run(["train", *words]) == ExitCode.DIVERGED
    capsys.readouterr()
    assert cli.run(["doctor", f"run={tmp_path}", "device=cpu"]) == ExitCode.DONE
    assert "a number is not finite" in capsys.readouterr().out


def test_a_report_stays_inert_whatever_the_run_holds(runs: Path, tmp_path: Path):
    """The files of a run directory are no more to be trusted than its samples."""
    import shutil

    folder = tmp_path / "<b>run"
    shutil.copytree(runs / "vae", folder)
    (folder / "provenance.json").write_text(json.dumps({"command": "<script>x</script>\x1b[31m"}))
    (folder / "samples" / "step-00000002.png").write_bytes(b"<script>")
    (folder / "evaluation").mkdir()
    (folder / "evaluation" / "a.json").write_text('{"metrics": [{"name": "<script>"}], "notes": ["<script>"]}')
    with (folder / "metrics.jsonl").open("a") as log, (folder / "findings.jsonl").open("a") as findings:
        log.write('{"step": 3, "<script>": 1}\n{"step": 4, "<script>": 2}\n[]\n{"step": "x"}\n')
        findings.write('{"name": "overfitting", "step": 3, "since": 1, "evidence": "<script>"}\n{"name": "nothing"}\n')
    assert cli.run(["report", f"run='{folder}'", "device=cpu", "examples=50"]) == ExitCode.DONE
    page = Tree((folder / "report.html").read_text(encoding="utf-8").partition("\n")[2])
    assert "script" not in {tag for tag, _ in page.tags} and page.text.count("<script>") >= 4


def test_a_report_without_its_data_says_so(runs: Path, tmp_path: Path):
    import shutil

    folder = tmp_path / "run"
    shutil.copytree(runs / "gpt", folder)
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("path: null", f"path: {tmp_path / 'gone.txt'}"))
    assert cli.run(["report", f"run={folder}", "device=cpu"]) == ExitCode.DONE
    assert "The data are not at hand" in (folder / "report.html").read_text()


def test_compare_puts_runs_into_one_table(runs: Path, tmp_path: Path, capsys):
    out = tmp_path / "out"
    words = [f"runs=[{runs / 'gan'},{runs / 'ddpm'}]", "metrics=[frechet]", "num_samples=200", "device=cpu"]
    assert cli.run(["compare", *words, f"out={out}"]) == ExitCode.DONE
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("gan", "ddpm", "frechet", "parameters"))
    assert "Trained on toy2d. 200 samples each" in printed
    contestants = json.loads((out / "compare.json").read_text())
    assert [each["name"] for each in contestants] == ["gan", "ddpm"]
    assert all(each["metrics"]["frechet"]["interval"] for each in contestants)
    assert Tree((out / "frechet-by-parameters.svg").read_text()).tags[0][0] == "svg"
    assert (out / "frechet-by-parameters.png").read_bytes().startswith(b"\x89PNG")
    assert titles(Tree((out / "compare.html").read_text().partition("\n")[2])) >= {"table", "charts"}


def test_a_table_of_few_runs_has_a_column_for_each():
    header, rows = ["run", "steps", "kid", ""], [["a", "3", "0.1", ""], ["b", "4", "0.2", ""]]
    upright = ["run", "a", "b"], [["steps", "3", "4"], ["kid", "0.1", "0.2"]]
    assert compare._upright(header, rows) == upright
    assert compare._upright(header, rows * 2) == (header, rows * 2)


def test_compare_draws_quality_against_evaluations_for_each_solver(runs: Path, tmp_path: Path, capsys):
    out = tmp_path / "out"
    ways = ["sample.evaluations=[2,3]", "sample.solver=ddim"]
    words = [f"runs=[{runs / 'ddpm'}]", *ways, "num_samples=200", "device=cpu", "metrics=[frechet]"]
    assert cli.run(["compare", *words, f"out={out}"]) == ExitCode.DONE
    contestants = json.loads((out / "compare.json").read_text())
    assert [each["sampling"] for each in contestants] == [{"evaluations": n, "solver": "ddim"} for n in (2, 3)]
    used = [each["metrics"]["frechet"]["protocol"]["sampler"] for each in contestants]
    assert [(sampler["evaluations"], sampler["solver"]) for sampler in used] == [(2, "ddim"), (3, "ddim")]
    assert all("steps" not in sampler for sampler in used), "evaluations decide them"
    assert (out / "frechet-by-evaluations.svg").is_file() and (out / "frechet-by-evaluations.png").is_file()
    printed = capsys.readouterr().out
    assert "frechet by evaluations  2 " in printed and "Of as many real examples, frechet is " in printed


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sample.stpes=[2]"], "sample.stpes is no option of samples of model=ddpm; did you mean sample.steps?"),
        (["sample.steps=[2,0]"], "sample.steps=0 must be at least 1"),
        (["sample.steps=[]"], "an empty list is no value"),
        ([f"sample.steps=[{','.join(map(str, range(1, 102)))}]"], "101 ways of sampling model=ddpm; 100 are the most"),
    ],
)
def test_compare_refuses_ways_of_sampling_that_there_are_not(runs: Path, words, said, capsys, tmp_path):
    assert cli.run(["compare", f"runs=[{runs / 'ddpm'}]", *words, f"out={tmp_path}/out"]) == ExitCode.CONFIGURATION
    assert said in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_compare_trains_each_for_the_budget(tmp_path: Path):
    out = tmp_path / "out"
    words = [
        "model=[gan,vae]", "dataset=toy2d", "budget=1s", "metrics=[frechet]", "num_samples=200", "device=cpu",
        'options=["model.width=8","dataset.size=200","logger=none"]',
    ]  # fmt: skip
    assert cli.run(["compare", *words, f"out={out}"]) == ExitCode.DONE
    for each in json.loads((out / "compare.json").read_text()):
        assert each["step"] > 20 and 0 < each["seconds"] < 2 and not each["problem"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "compare what?"),
        (["runs=[nowhere]"], "run=nowhere does not exist"),
        (["model=[gan]"], "dataset is required"),
        (["model=[gan]", "dataset=mnist", "budget=soon"], "budget=soon must be a time such as 90s"),
        (["model=[gan]", "dataset=mnist", "budget=0min"], "budget=0min must be a time"),
        (["model=[gan,gan]", "dataset=mnist", "budget=1min"], "names one of them twice"),
        (["model=[gna]", "dataset=mnist", "budget=1min"], "did you mean model=gan?"),
        (["model=[gpt]", "dataset=mnist", "budget=1min"], "learns text"),
        (["model=[gan]", "dataset=mnist", "budget=1min", 'options=["train.stpes=3"]'], "did you mean train.steps?"),
        (["runs=[a]", "budget=1min"], "leave out budget"),
        (["model=[gan]", "dataset=mnist", "budget=1min", 'options=["train.steps=9"]'], "itself sets train.steps"),
        (["modle=[gan]"], "did you mean model?"),
    ],
)
def test_compare_refuses_in_a_sentence(words: list[str], said: str, capsys, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.run(["compare", *words]) == ExitCode.CONFIGURATION
    err = capsys.readouterr().err
    assert said in err and "Traceback" not in err
    assert not list(tmp_path.iterdir())


def test_a_device_that_is_not_there_is_refused_before_there_is_a_folder(
    runs: Path, capsys, tmp_path: Path, monkeypatch
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    words = ["compare", f"runs=[{runs}/vae]", "device=cuda", f"out={tmp_path}/out"]
    assert cli.run(words) == ExitCode.CONFIGURATION
    assert "device=cuda: torch sees no CUDA device here" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_run_whose_samples_do_not_fit_in_memory_costs_no_other(runs: Path, tmp_path: Path, monkeypatch, capsys):
    seconds = iter([torch.OutOfMemoryError("out of memory"), 0.5])

    def time_sampler(*_: object) -> float:
        found = next(seconds)
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(compare, "_time_sampler", time_sampler)
    monkeypatch.setattr(compare, "_run_child", lambda *_, **__: ExitCode.DONE)
    words = ["compare", f"runs=[{runs}/vae,{runs}/gan]", "device=cpu", f"out={tmp_path}/out"]
    assert cli.run(words) == ExitCode.SWEEP_FAILED
    vae, gan = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert vae["problem"].startswith("out of memory; try") and (gan["problem"], gan["sampling_seconds"]) == ("", 0.5)


@pytest.mark.parametrize("command", ["doctor", "report"])
def test_a_run_is_required(command: str, capsys):
    assert cli.run([command]) == ExitCode.CONFIGURATION
    assert "run is required" in capsys.readouterr().err
    assert cli.run([command, "run=nowhere", "exmaples=3"]) == ExitCode.CONFIGURATION
    assert "did you mean examples?" in capsys.readouterr().err


def test_a_child_that_was_leaving_when_asked_to_end_did_end(tmp_path: Path, monkeypatch):
    """A run that fills its budget to the last second dies of the request, having saved all."""
    monkeypatch.setattr(compare, "CHILD", [sys.executable, "-c", "import time; time.sleep(60)"])
    assert compare._run_child([], tmp_path / "log", Stop(), limit=0.1) == ExitCode.TERMINATED
    monkeypatch.setattr(compare, "CHILD", [sys.executable, "-c", "import os; os.kill(os.getpid(), 15)"])
    assert compare._run_child([], tmp_path / "log", Stop()) == -15, "nobody asked it"
