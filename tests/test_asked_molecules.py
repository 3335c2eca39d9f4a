"""Molecules that are asked to have a property, as typed; and what is said of molecules beside held-out ones."""

import json
from pathlib import Path

import pytest

from genai_cli.cli import run
from genai_cli.errors import ExitCode
from tests.molecules import write_molecules
from tests.test_sample_tokens import SMALL


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A run that knows of logP, and one that does not."""
    folder = tmp_path_factory.mktemp("runs")
    data = ["dataset=smiles", f"dataset.path={write_molecules(folder / 'molecules.smi')}"]
    for name, words in {"asked": ["dataset.condition=logp"], "plain": []}.items():
        assert run(["train", "model=gpt", *data, *words, *SMALL, f"run.dir={folder}/{name}"]) == ExitCode.DONE
    return folder


def sample(*words: str) -> int:
    return run(["sample", "device=cpu", "num_samples=30", "grammar=true", *words])


def test_what_is_asked_for_changes_what_is_drawn(folder) -> None:
    texts = {}
    for name, words in {"low": ["condition.logp=-1"], "high": ["condition.logp=5"], "any": []}.items():
        assert sample(f"run={folder}/asked", *words, f"out={folder}/{name}") == ExitCode.DONE
        texts[name] = (folder / name / "samples.smi").read_text()
    assert len(set(texts.values())) == 3
    record = json.loads((folder / "low" / "sample.json").read_text())
    assert record["condition"] == {"logp": -1.0}


def test_a_condition_goes_with_the_beginning_of_a_molecule(folder) -> None:
    words = [f"run={folder}/asked", "condition.logp=2", "prompt=CCO", f"out={folder}/begun"]
    assert sample(*words) == ExitCode.DONE
    assert all(line.startswith("CCO") for line in (folder / "begun" / "samples.smi").read_text().splitlines())


def test_what_cannot_be_asked_for_is_refused(folder, capsys) -> None:
    for words, reason in (
        (["run={}/plain", "condition.logp=2"], "learned no property"),
        (["run={}/asked", "condition.qed=0.5"], "learned logp, and nothing else"),
        (["run={}/asked", "condition.logp=2", "prompts=[C,O]"], "not with prompts"),
        (["run={}/asked", "condition.logp=much"], "condition"),
    ):
        assert sample(*(word.format(folder) for word in words)) == ExitCode.CONFIGURATION
        assert reason in capsys.readouterr().err


def test_evaluate_says_how_far_from_what_was_asked_and_how_near_to_held_out_molecules(folder) -> None:
    options = ["device=cpu", "num_samples=12", "grammar=true"]
    assert run(["evaluate", f"run={folder}/asked", "metrics=[condition,benchmark]", *options]) == ExitCode.DONE
    (path,) = (folder / "asked" / "evaluation").glob("*.json")
    metrics = {metric["name"]: metric for metric in json.loads(path.read_text())["metrics"]}
    error = metrics["logp_error"]
    assert error["controls"]["real"] < 0.13 < error["value"]  # half a bin of a quarter
    assert metrics["logp_correlation"]["controls"]["real"] > 0.99
    assert {"snn", "fragments", "scaffolds", "fcd"} <= set(metrics)
    assert not metrics["fcd"]["believed"]
