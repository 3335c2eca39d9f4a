"""T04 and T32 without a process: every kind of damage to every file of a checkpoint is found out; purges and places."""

import json
import os
from pathlib import Path

import pytest
import torch
from torch import nn

from genai_cli.data.base import Spec
from genai_cli.engine import checkpoint as checkpoints
from genai_cli.engine import faults
from genai_cli.engine.checkpoint import Checkpoint, damage, load, load_newest, read, save
from genai_cli.engine.storage import replace_durably
from genai_cli.errors import ConfigError, StorageError
from tests.engine.duel import SPEC, Duel, make_config, make_trainer, train

FILES = ["manifest.json", "state.json", "model.safetensors", "ema.safetensors", "optimizer.safetensors"]


def make(step: int, *, value: float = 1.0, **state: object) -> Checkpoint:
    weights = torch.arange(12.0).view(3, 4) * value
    return Checkpoint(
        step,
        {"weight": weights, "tied": weights},
        {"weight": weights + 1},
        {"g/weight/step": torch.tensor(3.0)},
        dict(state),
    )


def two(folder: Path) -> Path:
    """Checkpoints of steps 5 and 10. Returns the newer."""
    save(make(5), folder, keep=2)
    return save(make(10, value=2.0), folder, keep=2)


def test_one_that_its_run_purges_meanwhile_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two(tmp_path)
    sum_of = checkpoints.sha256_of

    def purged_meanwhile(file: Path) -> str:
        if file.parent.name == "step-00000005":
            checkpoints.discard([file.parent])
        return sum_of(file)

    monkeypatch.setattr(checkpoints, "sha256_of", purged_meanwhile)
    assert load(tmp_path, "last").step == 10
    assert not (tmp_path / "step-00000005").exists()


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    saved = make(7, best={"step": 5, "value": 0.1}, averages={"loss": [0.1, 3]})
    back = read(save(saved, tmp_path, keep=1))
    assert (back.step, back.state) == (7, saved.state)
    for tensors, others in ((back.model, saved.model), (back.ema, saved.ema), (back.optimizer, saved.optimizer)):
        assert tensors.keys() == others.keys()
        assert all(torch.equal(tensors[name], others[name]) for name in tensors)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kept", ["nothing", "a byte", "half", "all but a byte", "one byte more", "missing"])
def test_a_file_of_another_length_is_noticed(tmp_path: Path, name: str, kept: str) -> None:
    file = two(tmp_path) / name
    content = file.read_bytes()
    sizes = {"nothing": 0, "a byte": 1, "half": len(content) // 2, "all but a byte": len(content) - 1}
    if kept == "missing":
        file.unlink()
    else:
        file.write_bytes(content + b"\n" if kept == "one byte more" else content[: sizes[kept]])
    if name == "manifest.json" and kept in ("one byte more", "all but a byte"):
        assert damage(file.parent) is None  # the end of line at its end says nothing
    else:
        problem = damage(file.parent)
        assert problem is not None and str(file) in problem
        newest = load_newest(tmp_path)
        assert newest is not None and newest.step == 5


@pytest.mark.parametrize("name", FILES)
def test_every_flipped_bit_is_noticed(tmp_path: Path, name: str) -> None:
    """One in three bits of the manifest, one in seven of the rest. A flip that changes no meaning is no damage."""
    file = two(tmp_path) / name
    content = file.read_bytes()
    for position in range(0, 8 * len(content), 3 if name == "manifest.json" else 7):
        flipped = bytearray(content)
        flipped[position // 8] ^= 1 << position % 8
        file.write_bytes(flipped)
        problem = damage(file.parent)
        if problem is None:
            assert json.loads(flipped) == json.loads(content)
        else:
            assert str(file) in problem or name == "manifest.json"


def test_a_checkpoint_under_the_name_of_another_step_is_noticed(tmp_path: Path) -> None:
    two(tmp_path).rename(tmp_path / "step-00000012")
    newest = load_newest(tmp_path)
    assert newest is not None and newest.step == 5


def test_damaged_ones_are_kept_aside_under_free_names(tmp_path: Path) -> None:
    for _ in range(3):
        (two(tmp_path) / "state.json").write_text("{}")
        load_newest(tmp_path)
    assert sorted(path.name for path in tmp_path.glob("*.corrupt*")) == [
        "step-00000010.corrupt", "step-00000010.corrupt-2", "step-00000010.corrupt-3",
    ]  # fmt: skip


def test_no_checkpoint_is_none_and_none_valid_is_an_error(tmp_path: Path) -> None:
    assert load_newest(tmp_path) is None
    assert load_newest(tmp_path / "nowhere") is None
    (save(make(1), tmp_path, keep=1) / "manifest.json").unlink()
    for _ in range(2):
        with pytest.raises(StorageError, match="no valid checkpoint is left"):
            load_newest(tmp_path)


def test_a_run_without_a_checkpoint_says_whether_it_ever_had_one(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    with pytest.raises(StorageError, match=rf"none is saved yet; genai train run={tmp_path}/run goes on with it"):
        load(folder, "last")
    (save(make(1), folder, keep=1) / "manifest.json").unlink()
    with pytest.raises(StorageError, match="none is whole"):
        load(folder, "last")


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    for step in range(1, 8):
        save(make(step), tmp_path, keep=2, best_step=3 if step >= 3 else None)
    assert [path.name for path in checkpoints.checkpoints(tmp_path)] == [
        "step-00000003",
        "step-00000006",
        "step-00000007",
    ]


def test_a_purge_that_fails_only_warns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(make(1), tmp_path, keep=1)
    faults.plan("storage:eio:21")  # after the 20 operations of a save
    try:
        save(make(2), tmp_path, keep=1)
    finally:
        faults.plan("")
    assert "cannot delete the old checkpoint" in capsys.readouterr().err
    newest = load_newest(tmp_path)
    assert newest is not None and newest.step == 2
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000002"]


def test_saving_the_same_step_again_replaces_what_differs_and_only_that(tmp_path: Path) -> None:
    path = save(make(3, work_pending=True), tmp_path, keep=2)
    before = path.stat().st_ino
    save(make(3, work_pending=True), tmp_path, keep=2)
    assert path.stat().st_ino == before
    save(make(3, work_pending=False), tmp_path, keep=2)
    assert read(path).state == {"work_pending": False}
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_replacement_that_fails_leaves_the_checkpoint(tmp_path: Path) -> None:
    path = save(make(3, work_pending=True), tmp_path, keep=1)
    for count in range(1, 19):
        faults.plan(f"storage:eio:{count}")
        try:
            with pytest.raises(StorageError):
                save(make(3, work_pending=False), tmp_path, keep=1)
        finally:
            faults.plan("")
        assert read(path).state == {"work_pending": True}
        assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_user_names_a_checkpoint(tmp_path: Path) -> None:
    two(tmp_path)
    save(make(15, best={"step": 10, "value": 0.0}), tmp_path, keep=3)
    assert [load(tmp_path, which).step for which in ("last", "best", "5")] == [15, 10, 5]
    with pytest.raises(ConfigError, match="one of the steps 5, 10, 15"):
        load(tmp_path, "7")
    save(make(20, best=None), tmp_path, keep=4)
    with pytest.raises(ConfigError, match="this run kept none"):
        load(tmp_path, "best")


def test_naming_a_checkpoint_changes_nothing(tmp_path: Path) -> None:
    (two(tmp_path) / "state.json").unlink()
    before = sorted(os.listdir(tmp_path))
    assert load(tmp_path, "last").step == 5
    assert sorted(os.listdir(tmp_path)) == before


def test_replacing_a_file_leaves_the_old_one_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    replace_durably(path, b"old")
    for count in range(1, 6):
        faults.plan(f"storage:enospc:{count}")
        try:
            with pytest.raises(StorageError, match=r"3 bytes needed, [\d,]+ free"):
                replace_durably(path, b"new")
        finally:
            faults.plan("")
        assert path.read_bytes() == (b"new" if count >= 4 else b"old")
        assert os.listdir(tmp_path) == ["config.yaml"]
        path.write_bytes(b"old")


def test_the_size_of_a_checkpoint_is_known_before_training(tmp_path: Path) -> None:
    class Large(Duel):
        """Of which weights, not headers and counters, take the space."""

        def __init__(self, spec: Spec):
            super().__init__(spec)
            self.generator[-1] = nn.Sequential(nn.Linear(4, 20_000), nn.Linear(20_000, 2))

    config = make_config(steps=1, ema=0.9)
    expected = make_trainer(tmp_path, config, Large(SPEC)).checkpoint_bytes()
    train(tmp_path, config, Large(SPEC))
    (saved,) = (tmp_path / "checkpoints").glob("step-*")
    assert sum(path.stat().st_size for path in saved.iterdir()) == pytest.approx(expected, rel=0.1)
