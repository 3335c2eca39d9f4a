"""What cannot be in memory is refused before work; what is only more than there are data is not."""

from pathlib import Path

import pytest
import torch

from genai_cli import cli
from genai_cli.commands import train
from genai_cli.config import DeviceConfig
from genai_cli.data.base import Spec
from genai_cli.engine import device
from genai_cli.engine.memory import bytes_of, memory_of
from genai_cli.errors import ExitCode

CPU = torch.device("cpu")
WORDS = ("train", "model=gan", "dataset=toy2d", "dataset.size=5", "dataset.held_out=5", "device=cpu", "model.width=4",
         "train.steps=1", "run.dir=run")  # fmt: skip


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("key", ["batch_size", "num_samples"])
def test_more_rows_than_fit_are_refused_before_there_is_a_directory(key: str, folder: Path, capsys) -> None:
    assert cli.run([*WORDS, f"train.{key}=1e15"]) == ExitCode.CONFIGURATION
    error = capsys.readouterr().err
    assert f"train.{key}=1000000000000000: 1,000,000,000,000,000 examples at once are 8,000,000 GB" in error
    assert not list(folder.iterdir())


def test_rows_are_those_of_a_micro_batch(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(train, "memory_of", lambda device: 64.0)  # eight points
    assert cli.run([*WORDS, "train.batch_size=16", "train.num_samples=8"]) == ExitCode.CONFIGURATION
    assert "16 examples at once" in capsys.readouterr().err
    for parts in ("2", "auto"):
        words = [*WORDS[:-1], f"run.dir=in_{parts}", "train.num_samples=8"]
        assert cli.run([*words, "train.batch_size=16", f"train.accumulate={parts}"]) == ExitCode.DONE


def test_a_batch_may_be_larger_than_the_data(folder: Path) -> None:
    assert cli.run([*WORDS, "train.batch_size=64", "train.num_samples=1"]) == ExitCode.DONE
    assert (folder / "run" / "checkpoints").is_dir()


def test_memory_is_what_the_machine_has_or_the_least_that_a_container_allows(folder: Path) -> None:
    installed = memory_of(CPU, [])
    assert 1e8 < installed < 1e15
    (folder / "max").write_text("max\n")
    (folder / "limit").write_text("2097152\n")
    assert memory_of(CPU, [folder / "max", folder / "none"]) == installed
    assert memory_of(CPU, [folder / "max", folder / "limit"]) == 2097152


def test_bytes_are_those_of_what_a_model_sees() -> None:
    image = Spec("image", (3, 8, 8), (-1.0, 1.0))
    text = Spec("text", (7,), vocabulary_size=3)
    assert bytes_of(image) == 4 * 192
    assert bytes_of(text) == 8 * 8
    assert bytes_of(Spec("image", (1, 8, 8), (-1.0, 1.0), source=image)) == 4 * 64 + 4 * 192


def test_whatever_chooses_a_device_keeps_the_pages_that_it_frees(monkeypatch):
    """Evaluation, too: four of ten seconds of a bound of many draws went into faulting them in again."""
    kept = []
    monkeypatch.setattr(device, "keep_freed_pages", lambda: kept.append(True))
    device.choose_device(DeviceConfig(name="cpu"))
    assert kept == [True]
