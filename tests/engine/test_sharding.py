"""Weights divided among two processes (FSDP2 over gloo): less memory for each, and else no difference."""

import dataclasses
from pathlib import Path

import pytest
import torch
import torch.distributed.fsdp  # here, so that the processes that are forked have it
from torch import Tensor

from genai_cli import models
from genai_cli.config import OptimizerConfig
from genai_cli.engine.checkpoint import load_newest
from genai_cli.engine.distributed import World
from genai_cli.engine.signals import Signals
from genai_cli.engine.trainer import Trainer
from tests.models.ranks import run_on_two_ranks
from tests.models.test_contract import CPU, SPECS, build, model_name, pairs, series, tiny_config, tiny_split

MODELS = [
    path.stem for path in sorted(Path(models.__file__).parent.glob("*.py")) if "def shard_units" in path.read_text()
]
DIVISIBLE = {model_name(preset): (preset, kind) for preset, kind in reversed(list(pairs()))}  # the first of each


def trainer(preset: str, kind: str, folder: str, steps: str, optimizer: str, shard: str, world: World) -> Trainer:
    config, spec = (
        tiny_config(preset, kind, steps=int(steps), evaluate_every=3, sample_every=2, clip_norm=0.5),
        SPECS[kind],
    )
    config = dataclasses.replace(
        config,
        optimizer=OptimizerConfig(name=optimizer, lr=2e-3, weight_decay=0.1 if optimizer == "adamw" else 0.0),
        device=dataclasses.replace(config.device, shard=shard == "true"),
    )
    Path(folder).mkdir(exist_ok=True)
    splits = tiny_split(spec), tiny_split(spec, 6)
    return Trainer(build(config, spec), *splits, config, folder=Path(folder), world=world, device=CPU)


def train(*words: str) -> dict[str, Tensor]:
    *arguments, world = words
    run = trainer(*arguments, world)
    run.run(Signals())
    return {}


def holds_half(*words: str) -> dict[str, Tensor]:
    """Whether this process has half of the bytes of weights, average and optimizer states."""
    *arguments, world = words
    run = trainer(*arguments, world)
    run.run(Signals())
    tensors = [*run.model.parameters(), *run.ema.state().values(), *run.step.optimizer_state().values()]
    held = sum(tensor.to_local().nbytes if hasattr(tensor, "to_local") else tensor.nbytes for tensor in tensors)
    share = held / sum(tensor.nbytes for tensor in tensors)
    return {"is_half": torch.tensor(0.45 < share < 0.55)}


def assert_same_runs(one: Path, two: Path) -> None:
    for single, double in zip(series(one), series(two), strict=True):
        assert double == pytest.approx(single, abs=1e-5)
    first, second = load_newest(one / "checkpoints"), load_newest(two / "checkpoints")
    for name in ("model", "ema", "optimizer"):
        expected, found = getattr(first, name), getattr(second, name)
        assert expected.keys() == found.keys()
        for key, tensor in expected.items():
            torch.testing.assert_close(found[key], tensor, atol=1e-5, rtol=1e-4)
    assert first.step == second.step


@pytest.mark.parametrize("model", sorted(set(MODELS) - {"base"}))
def test_divided_weights_train_as_whole_ones(model: str, tmp_path: Path) -> None:
    """Losses, norms, evaluations, the average and the states; clipped, sampled and saved on the way."""
    preset, kind = DIVISIBLE[model]
    train(preset, kind, f"{tmp_path}/one", "4", "sgd", "false", World())
    run_on_two_ranks(train, preset, kind, f"{tmp_path}/two", "4", "sgd", "true")
    assert_same_runs(tmp_path / "one", tmp_path / "two")


def test_each_process_holds_its_half(tmp_path: Path) -> None:
    assert run_on_two_ranks(holds_half, "gpt", "text", f"{tmp_path}/run", "2", "adamw", "true")["is_half"]
