"""A second run beside the one that trains or is sampled, a teacher or a guide: it must be there, and fit."""

import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from genai_cli import cli, runs
from genai_cli.data.base import Spec
from genai_cli.engine.run import read_spec
from genai_cli.errors import ConfigError, ExitCode

TINY = (
    "train.steps=2", "train.batch_size=4", "train.evaluate_every=null", "train.sample_every=null",
    "optimizer.warmup_steps=0", "logger=none", "device=cpu",
)  # fmt: skip


def train(model: str, *words: str, folder: Path) -> int:
    return cli.run(["train", f"model={model}", "model.width=8", "model.levels=1", *words, *TINY, f"run.dir={folder}"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """`data`: images of three classes; `told`: a flow that was told them."""
    folder = tmp_path_factory.mktemp("another")
    for name in "abc":
        (folder / "data" / name).mkdir(parents=True)
        for shade in range(12):
            Image.new("L", (8, 8), 20 * shade).save(folder / "data" / name / f"{shade}.png")
    assert train("flow_matching", *data(folder), "model.condition=label", folder=folder / "told") == ExitCode.DONE
    return folder


def data(folder: Path) -> list[str]:
    words = {"path": folder / "data", "image_size": 8, "channels": 1, "validation": 0.3, "test": 0.3}
    return ["dataset=folder", *(f"dataset.{key}={value}" for key, value in words.items())]


@pytest.mark.parametrize("key", ["guide", "model.teacher"])
def test_a_run_of_another_number_of_classes_is_refused(folder: Path, key: str) -> None:
    spec = read_spec(folder / "told")
    assert len(spec.classes) == 3
    same, fewer = (Spec(**{**vars(spec), "classes": classes}) for classes in (("x", "y", "z"), ("x", "y")))
    runs.load_another(key, str(folder / "told"), same, torch.device("cpu"))
    words = f"{key}=.*told was told which of 3 classes it saw, but these data have 2: give a run of data with the same"
    with pytest.raises(ConfigError, match=words):
        runs.load_another(key, str(folder / "told"), fewer, torch.device("cpu"))


def test_a_teacher_must_be_there_at_the_start_and_when_a_run_goes_on(folder: Path, capsys) -> None:
    teacher, learner, aside = folder / "teacher", folder / "learner", folder / "aside"
    shutil.copytree(folder / "told", teacher)
    words = [*data(folder), "model.condition=label", f"model.teacher={teacher}", "model.pairs=4", "model.solver=euler"]
    assert train("flow_matching", *words, folder=learner) == ExitCode.DONE
    teacher.rename(aside)
    capsys.readouterr()
    assert cli.run(["train", f"run={learner}", "train.steps=4"]) == ExitCode.CONFIGURATION
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"genai: model.teacher={teacher} is no run directory") and "bring it back" in line
    assert train("flow_matching", *words, folder=folder / "new") == ExitCode.CONFIGURATION
    assert not (folder / "new").exists() and "give the directory of a trained" in capsys.readouterr().err
    aside.rename(teacher)
    assert cli.run(["train", f"run={learner}", "train.steps=4"]) == ExitCode.DONE


def test_a_run_goes_on_with_the_weights_of_its_teacher_that_it_began_with(folder: Path, capsys) -> None:
    teacher, learner = folder / "growing", folder / "steady"
    shutil.copytree(folder / "told", teacher)
    words = [*data(folder), "model.condition=label", f"model.teacher={teacher}", "model.pairs=4", "model.solver=euler"]
    runs = [folder / "undisturbed", folder / "steady"]
    for number, run in enumerate(runs):
        assert train("flow_matching", *words, folder=run) == ExitCode.DONE
        if number == 1:
            assert cli.run(["train", f"run={teacher}", "train.steps=4"]) == ExitCode.DONE  # which keeps step 2, too
        assert cli.run(["train", f"run={run}", "train.steps=6"]) == ExitCode.DONE
    ends = [(run / "checkpoints/step-00000006/model.safetensors").read_bytes() for run in runs]
    assert ends[0] == ends[1]

    kept = teacher / "checkpoints"
    shutil.rmtree(kept / "step-00000002")
    assert refusal(learner, capsys) == (
        f"genai: model.teacher={teacher} no longer keeps its step 2, from which {learner} learns: bring it back, or "
        "begin another run"
    )
    assert train("flow_matching", *words[:-3], "seed=7", folder=folder / "other") == ExitCode.DONE
    shutil.copytree(folder / "other/checkpoints/step-00000002", kept / "step-00000002")
    assert "has other weights at step 2 (" in refusal(learner, capsys)
    (learner / "teacher.json").write_text("[]")
    assert "does not say which weights the run learns from" in refusal(learner, capsys, ExitCode.DATA)


def refusal(run: Path, capsys, code: int = ExitCode.CONFIGURATION) -> str:
    """What is said where `run` cannot go on."""
    capsys.readouterr()
    assert cli.run(["train", f"run={run}", "train.steps=8"]) == code
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_what_a_run_left_that_never_began_does_not_count(folder: Path) -> None:
    begun = folder / "killed"
    begun.mkdir()
    (begun / "teacher.json").write_text('{"step": 99, "sha256": "of another teacher"}')  # and no config.yaml
    words = [*data(folder), "model.condition=label", f"model.teacher={folder / 'told'}", "model.pairs=4"]
    assert train("flow_matching", *words, "model.solver=euler", folder=begun) == ExitCode.DONE
    assert '"step": 2' in (begun / "teacher.json").read_text()
