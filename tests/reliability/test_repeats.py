"""T25, T29, T39, T41, T42: what a run leaves behind, and what it depends on and what not."""

import os
import sys
import threading
from pathlib import Path

import pytest

from genai_cli import cli
from tests.engine.duel import make_config, make_trainer
from tests.reliability.harness import GAN, VAE, Genai, final_files
from tests.reliability.test_signals import write_pictures

WORDS = ("train", *VAE, "train.steps=6")


@pytest.mark.parametrize("model", [VAE, GAN], ids=["vae", "gan"])
def test_the_same_seed_gives_the_same_bytes_and_another_one_others(
    genai: Genai, folder: Path, model: tuple[str, ...]
) -> None:
    for name, seed in {"one": 1, "again": 1, "other": 2}.items():
        assert genai.run("train", *model, "train.steps=6", f"seed={seed}", f"run.dir={folder}/{name}").code == 0
    one, again, other = (final_files(folder / name) for name in ("one", "again", "other"))
    assert one == again
    assert one["step-00000006/model.safetensors"] != other["step-00000006/model.safetensors"]


def test_the_number_of_loader_processes_changes_nothing(genai: Genai, folder: Path) -> None:
    write_pictures(folder / "pictures", 120)
    words = (
        "train", "model=vae", "model.width=4", "model.latent_dim=2", "dataset=folder",
        f"dataset.path={folder}/pictures", "dataset.memory_limit=1", "train.batch_size=4", "train.steps=4",
        "train.sample_every=null", "device=cpu", "logger.tensorboard=false",
    )  # fmt: skip
    for workers in (0, 1, 2):
        ended = genai.run(*words, f"device.workers={workers}", f"run.dir={folder}/{workers}")
        assert ended.code == 0, ended.err
    none, one, two = (final_files(folder / name) for name in ("0", "1", "2"))
    assert none == one == two


def test_no_secret_of_the_environment_is_written_anywhere(genai: Genai, folder: Path) -> None:
    secrets = {name: f"canary-{number}" for number, name in enumerate(("HF_TOKEN", "WANDB_API_KEY", "PASSWORD"))}
    run = folder / "run"
    assert genai.run(*WORDS, "logger.tensorboard=true", f"run.dir={run}", **secrets).code == 0
    failed = genai.run(*WORDS, f"run.dir={folder}/failed", fault="step:error:2", **secrets)
    assert failed.code == 1 and "canary-" not in failed.out + failed.err
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 10
    assert [path for path in files if b"canary-" in path.read_bytes()] == []


def resident() -> int:
    """Bytes of memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_five_hundred_steps_take_no_more_memory_than_a_hundred(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, make_config(steps=600, log_every=1000, evaluate_every=None, save_every=None))

    def go_to(step: int) -> tuple[int, int]:
        while trainer.done < step:
            trainer.step.run(trainer.done)
            trainer.done += 1
        return resident(), len(os.listdir("/proc/self/fd"))

    memory, files = go_to(100)
    later, more = go_to(600)
    assert later - memory < 5 << 20  # a megabyte for a hundred steps
    assert more == files


def test_runs_in_one_process_leave_no_file_open_and_no_thread(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = []
    for number in range(6):
        words = ["train", *VAE, "train.steps=4", "logger.tensorboard=true", "train.sample_every=2"]
        assert cli.run([*words, f"run.dir={tmp_path}/{number}"]) == 0
        counts.append((len(os.listdir("/proc/self/fd")), threading.active_count()))
    assert len(set(counts[1:])) == 1  # the first may open what stays


def test_a_broken_tensorboard_costs_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run([*WORDS, f"run.dir={tmp_path}/without"]) == 0
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert cli.run([*WORDS, "logger.tensorboard=true", f"run.dir={tmp_path}/broken"]) == 0
    assert capsys.readouterr().err.count("TensorBoard cannot be used") <= 2  # of the loop, and of the end
    broken, without = final_files(tmp_path / "broken"), final_files(tmp_path / "without")
    assert broken["step-00000006/model.safetensors"] == without["step-00000006/model.safetensors"]


def test_names_of_files_cannot_rewrite_a_terminal_or_break_a_line(genai: Genai, folder: Path) -> None:
    pictures = folder / "pictures"
    write_pictures(pictures, 60)
    for name in ("\x1b[31mred.png", "two\nlines.png", "<b>bold.png", "é" * 120 + ".png"):
        (pictures / name).write_bytes(b"no picture")
    words = ("train", "model=vae", "model.width=4", "dataset=folder", f"dataset.path={pictures}", "device=cpu")
    refused = genai.run(*words, f"run.dir={folder}/run")
    assert refused.code == 3
    assert "\x1b" not in refused.err and r"\x1b[31mred.png" in refused.err and r"two\nlines.png" in refused.err
    assert "<b>bold.png" in refused.err and len(refused.err.splitlines()) == 5
    allowed = genai.run(*words, "dataset.max_broken=0.5", "train.steps=2", f"run.dir={folder}/run")
    assert allowed.code == 0, allowed.err
    assert "\x1b" not in allowed.err + (folder / "run" / "provenance.json").read_text()
