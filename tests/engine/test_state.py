"""T02: nothing in a checkpoint is idle. Each item, dropped or reset, makes the resumed run end in other bytes."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from genai_cli.config import Config
from genai_cli.data.base import Batch
from genai_cli.engine import checkpoint as checkpoints
from genai_cli.engine.checkpoint import Checkpoint, load_newest
from genai_cli.engine.signals import Signals
from tests.engine.duel import SPEC, Duel, make_config, make_trainer, train

Mutation = Callable[[Checkpoint], None]


class Dice(Duel):
    """A duel whose losses are NaN at chosen moments, whatever the process: so rollbacks happen again after a kill."""

    nan_at = frozenset({(1, "critic"), (2, "generator"), (6, "critic"), (7, "critic"), (8, "critic")})

    def train_step(self, step: Any) -> None:
        self.now = step.number
        super().train_step(step)

    def critic_loss(self, batch: Batch) -> Any:
        loss, metrics = super().critic_loss(batch)
        return (loss * torch.nan if (self.now, "critic") in self.nan_at else loss), metrics

    def generator_loss(self, batch: Batch) -> Any:
        loss, metrics = super().generator_loss(batch)
        return (loss * torch.nan if (self.now, "generator") in self.nan_at else loss), metrics


def dice() -> Dice:
    torch.manual_seed(0)
    return Dice(SPEC)


def result(folder: Path) -> dict[str, bytes | list[Any]]:
    """All files of all checkpoints at or after step 8, and the log without times."""
    files: dict[str, Any] = {
        f"{path.parent.name}/{path.name}": path.read_bytes()
        for path in folder.glob("checkpoints/step-*/*")
        if int(path.parent.name[-8:]) >= 8
    }
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    files["log"] = [{key: line[key] for key in line if not key.startswith("time/")} for line in lines]
    return files


def zero(tensors: dict[str, torch.Tensor], name: str) -> None:
    assert tensors[name].count_nonzero() > 0, f"{name} is zero already"
    tensors[name] = torch.zeros_like(tensors[name])


def drop(tensors: dict[str, torch.Tensor], prefix: str) -> None:
    for name in [name for name in tensors if name.startswith(prefix)]:
        del tensors[name]


def average_is_raw(saved: Checkpoint) -> None:
    saved.ema = {name: saved.model[name] for name in saved.ema}


def swap_average_in(saved: Checkpoint) -> None:
    saved.model |= saved.ema


MUTATIONS: dict[str, Mutation] = {
    "a weight of the generator": lambda saved: zero(saved.model, "generator.0.weight"),
    "a weight of the critic": lambda saved: zero(saved.model, "critic.0.weight"),
    "the running mean": lambda saved: zero(saved.model, "generator.1.running_mean"),
    "the running variance": lambda saved: zero(saved.model, "generator.1.running_var"),
    "the count of batches": lambda saved: zero(saved.model, "generator.1.num_batches_tracked"),
    "one average": lambda saved: zero(saved.ema, "generator.0.bias"),
    "the averages": average_is_raw,
    "averages for weights": swap_average_in,
    "adam's first moment": lambda saved: zero(saved.optimizer, "generator/generator.0.weight/exp_avg"),
    "adam's second moment": lambda saved: zero(saved.optimizer, "generator/generator.0.weight/exp_avg_sq"),
    "adam's step": lambda saved: zero(saved.optimizer, "generator/generator.0.weight/step"),
    "the generator's optimizer": lambda saved: drop(saved.optimizer, "generator/"),
    "the critic's momentum": lambda saved: zero(saved.optimizer, "critic/critic.0.weight/momentum_buffer"),
    "the critic's optimizer": lambda saved: drop(saved.optimizer, "critic/"),
    "the step": lambda saved: setattr(saved, "step", saved.step - 1),
    "the sums since the last log line": lambda saved: saved.state["averages"].clear(),
    "the best": lambda saved: saved.state.update(best=None),
    "the skipped updates": lambda saved: saved.state.update(skipped=0),
    "the skipped updates in a row": lambda saved: saved.state.update(skipped_in_a_row={"critic": 0, "generator": 0}),
    "the pending work": lambda saved: saved.state.update(work_pending=not saved.state["work_pending"]),
}  # fmt: skip


class StopAfter(Signals):
    """A SIGTERM in the middle of the step with `step` steps before it."""

    def stop_in(self, trainer: Any, step: int) -> None:
        run = trainer.step.run

        def run_and_signal(number: int) -> None:
            run(number)
            if number == step:
                self.received = 15

        trainer.step.run = run_and_signal


def stopped(folder: Path, *, step: int) -> Config:
    """A run that a signal ended during the step with `step` steps before it. Returns its configuration."""
    config = make_config(nonfinite="skip", steps=9, save_every=8)
    signals = StopAfter()
    trainer = make_trainer(folder, config, dice())
    signals.stop_in(trainer, step)
    trainer.run(signals)
    return config


# Where it matters, the step during which the signal comes: after step 3 the work of a log line is pending, after 7 the
# best is of step 6 and the first of three skipped updates in a row is counted. Else after 5: nothing is pending, and
# the sums since the last line hold two steps.
SIGNALLED_IN = {"the pending work": 2, "the skipped updates in a row": 6, "the best": 6}


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutant_of_the_saved_state_is_noticed(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = stopped(tmp_path / "undisturbed", step=99)
    results = []
    for mutate in (None, MUTATIONS[name]):
        folder = tmp_path / ("honest" if mutate is None else "mutant")
        stopped(folder, step=SIGNALLED_IN.get(name, 4))

        def load(path: Path, mutate: Mutation | None = mutate) -> Checkpoint | None:
            saved = copy.deepcopy(load_newest(path))
            if mutate is not None and saved is not None:
                mutate(saved)
            return saved

        monkeypatch.setattr(checkpoints, "load_newest", load)
        train(folder, config, dice())
        monkeypatch.undo()
        results.append(result(folder))
    assert results[0] == result(tmp_path / "undisturbed")
    assert results[1] != results[0]


def test_the_steps_that_a_rollback_avoids_are_remembered(tmp_path: Path) -> None:
    """The one item of which `skip` makes no use. Forgotten, the next run would diverge at the same steps again."""
    config = make_config(nonfinite="rollback", save_every=1, steps=8, keep=20)
    train(tmp_path, config, dice())
    newest = load_newest(tmp_path / "checkpoints")
    assert newest is not None
    assert newest.state["avoided"] == [1, 2, 6, 7]


def test_a_rollback_and_a_kill_end_in_the_same_bytes(tmp_path: Path) -> None:
    """Killed after the rollback and before the next save: it diverges again, and goes back again."""
    config = make_config(nonfinite="rollback", save_every=4, steps=8, nonfinite_limit=5, evaluate_every=None)

    class Late(Dice):
        nan_at = frozenset({(4, "critic"), (6, "generator")})

    class Killed(Exception):
        pass

    def late() -> Late:
        torch.manual_seed(0)
        return Late(SPEC)

    train(tmp_path / "undisturbed", config, late())
    trainer = make_trainer(tmp_path / "killed", config, late())
    run = trainer.step.run

    def run_or_die(number: int) -> None:
        if number == 5 and trainer.avoided == [4]:
            raise Killed
        run(number)

    trainer.step.run = run_or_die  # type: ignore[method-assign]
    with pytest.raises(Killed):
        trainer.run(Signals())
    train(tmp_path / "killed", config, late())
    assert result(tmp_path / "killed") == result(tmp_path / "undisturbed")


def test_a_rollback_to_a_checkpoint_with_pending_work_does_that_work(tmp_path: Path) -> None:
    """A signal saved step 3 before its log line was written; going on, step 5 diverges and goes back to step 3."""

    class Late(Dice):
        nan_at = frozenset({(4, "critic")})

    def late() -> Late:
        torch.manual_seed(0)
        return Late(SPEC)

    config = make_config(nonfinite="rollback", save_every=None, steps=9, evaluate_every=None)
    signals = StopAfter()
    trainer = make_trainer(tmp_path, config, late())
    signals.stop_in(trainer, 2)
    trainer.run(signals)
    train(tmp_path, config, late())
    lines = result(tmp_path)["log"]
    assert [line["step"] for line in lines] == [3, 6, 9]
    assert load_newest(tmp_path / "checkpoints").state["avoided"] == [4]  # type: ignore[union-attr]


def test_raw_weights_are_stored_while_the_average_is_swapped_in(tmp_path: Path) -> None:
    """T28: evaluation and sampling use the average; a signal in the middle of them saves the raw weights."""
    from genai_cli.engine import faults

    config = make_config(evaluate_every=4, ema=0.5, nonfinite="stop")
    train(tmp_path / "undisturbed", config)
    signals = Signals()
    faults.plan("evaluate:term:1")
    try:
        with signals.installed():
            make_trainer(tmp_path / "stopped", config).run(signals)
    finally:
        faults.plan("")
    for folder in ("undisturbed", "stopped"):
        saved = checkpoints.load(tmp_path / folder / "checkpoints", "4")
        assert not any(torch.equal(saved.ema[name], saved.model[name]) for name in saved.ema)
    undisturbed = checkpoints.load(tmp_path / "undisturbed" / "checkpoints", "4")
    for name, tensor in undisturbed.model.items():
        assert torch.equal(saved.model[name], tensor)
    train(tmp_path / "stopped", config)
    assert result(tmp_path / "stopped") == result(tmp_path / "undisturbed")


def test_a_longer_run_goes_on_where_the_shorter_one_ended(tmp_path: Path) -> None:
    train(tmp_path / "long", make_config(steps=12))
    train(tmp_path / "extended", make_config(steps=8))
    train(tmp_path / "extended", make_config(steps=12))
    long, extended = (load_newest(tmp_path / name / "checkpoints") for name in ("long", "extended"))
    assert long is not None and extended is not None
    for tensors, others in (
        (long.model, extended.model),
        (long.ema, extended.ema),
        (long.optimizer, extended.optimizer),
    ):
        assert all(torch.equal(tensors[name], others[name]) for name in tensors)


def test_a_finished_run_does_nothing(tmp_path: Path) -> None:
    train(tmp_path, make_config())
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert train(tmp_path, make_config()).did_nothing
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


class Clockwork(Duel):
    """Its figure is best after six steps, in which batches were normalised 24 times."""

    def evaluate(self, batch: Batch) -> Any:
        passed = self.generator[1].num_batches_tracked
        return {"error": (passed - 24.0).square().expand(batch.size)}


def test_the_best_checkpoint_outlives_the_purges(tmp_path: Path) -> None:
    torch.manual_seed(0)
    train(tmp_path, make_config(steps=12, evaluate_every=2, save_every=1, keep=1), Clockwork(SPEC))
    newest = load_newest(tmp_path / "checkpoints")
    assert newest is not None and newest.state["best"] == {"step": 6, "value": 0.0}
    assert sorted(path.name for path in tmp_path.glob("checkpoints/*")) == ["step-00000006", "step-00000012"]
    assert checkpoints.load(tmp_path / "checkpoints", "best").step == 6


class Hopeless(Duel):
    """Its figure is never a number, and neither is a metric of its training."""

    def evaluate(self, batch: Batch) -> Any:
        return {"error": super().evaluate(batch)["error"] * torch.nan}

    def critic_loss(self, batch: Batch) -> Any:
        loss, metrics = super().critic_loss(batch)
        return loss, metrics | {"odd": loss.detach() * torch.inf}


def test_nan_is_never_the_best_and_a_metric_that_is_not_finite_can_be_saved(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = make_config(steps=5, log_every=4, save_every=1, evaluate_every=2)
    train(tmp_path, config, Hopeless(SPEC))
    newest = load_newest(tmp_path / "checkpoints")
    assert newest is not None and newest.state["best"] is None
    saved = checkpoints.load(tmp_path / "checkpoints", "4").state["averages"]
    assert saved == {}  # written at step 4
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["critic/odd"] for line in lines if "critic/odd" in line] == [None, None]
