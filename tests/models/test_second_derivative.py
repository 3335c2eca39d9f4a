"""A loss that holds a derivative is declared, so that `device.compile`, which cannot differentiate it, is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch

from genai_cli import cli
from tests.models.test_contract import SPECS, pairs, tiny_config, trainer


@pytest.mark.parametrize(("preset", "kind"), dict(pairs()).items(), ids=str)
def test_a_model_declares_what_its_step_does(
    preset: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, asked = torch.autograd.grad, []

    def grad(*arguments: Any, create_graph: bool = False, **options: Any) -> Any:
        asked.append(create_graph)
        return plain(*arguments, create_graph=create_graph, **options)

    training = trainer(tiny_config(preset, kind), SPECS[kind], tmp_path)
    monkeypatch.setattr(torch.autograd, "grad", grad)
    training.model.train()
    training.step.run(0)
    assert (True in asked) == training.model.differentiates_twice


@pytest.mark.parametrize(
    "words", [("model=wgan_gp", "dataset=mnist"), ("model=ae", "model.contraction=0.1", "dataset=toy2d")]
)
def test_compiling_a_penalty_is_refused_before_any_work(
    words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert cli.run(["train", *words, "device.compile=true", f"run.dir={run}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "device.compile=true" in line and "set device.compile=false" in line
    assert not run.exists()
