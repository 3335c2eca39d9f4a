"""Averages made after training: what they are combined from, what they equal, and that resuming changes no byte."""

from pathlib import Path

import numpy
import pytest
import torch
from torch import nn

from genai_cli.engine import posthoc_ema
from genai_cli.engine.checkpoint import load, load_newest
from genai_cli.engine.posthoc_ema import PowerAverages, combination, exponent_of, keep, posthoc_average, product
from genai_cli.engine.signals import Signals
from genai_cli.errors import ConfigError
from tests.engine.duel import make_config, make_trainer, train

STEPS = 400


def wander(step: int) -> torch.Tensor:
    """Weights that drift, turn and tremble; a function of the step."""
    noise = torch.randn(6, generator=torch.Generator().manual_seed(step))
    return torch.linspace(-1, 1, 6) * step / STEPS + torch.linspace(0, 3, 6).add(step / 90).sin() + 0.3 * noise


def follow(averages: PowerAverages, weights: nn.Parameter, run: Path | None = None, every: int = 25) -> None:
    for step in range(1, STEPS + 1):
        weights.data.copy_(wander(step))
        averages.update(step)
        if run is not None and step % every == 0:
            keep(averages.state(), run, step, every=every)


@pytest.fixture(scope="module")
def snapshots(tmp_path_factory) -> Path:
    """A run directory in which the weights `wander` have been followed."""
    run, model = tmp_path_factory.mktemp("run"), nn.ParameterDict({"w": torch.zeros(6)})
    follow(PowerAverages(model, model.parameters()), model["w"], run)
    return run


def test_exponents_are_those_of_the_paper():
    assert exponent_of(0.05) == pytest.approx(16.97, abs=0.01)
    assert exponent_of(0.10) == pytest.approx(6.94, abs=0.01)
    for length in (0.01, 0.07, 0.2, 0.28):
        gamma = exponent_of(length)
        assert length == pytest.approx((gamma + 1) ** 0.5 / (gamma + 2) / (gamma + 3) ** 0.5)


def test_an_average_weighs_by_a_power_whose_spread_is_its_length():
    """One weight for each step: in the average of unit vectors stand the shares of the steps."""
    model = nn.ParameterDict({"w": torch.zeros(STEPS)})
    averages = PowerAverages(model, model.parameters())
    for step in range(1, STEPS + 1):
        model["w"].data.copy_(torch.eye(STEPS)[step - 1])
        averages.update(step)
    tau = torch.arange(1, STEPS + 1) - 0.5
    for length, average in averages.averages.items():
        shares = average["w"]
        assert shares.sum().item() == pytest.approx(1, abs=1e-4)
        mean = (shares * tau).sum()
        assert ((shares * (tau - mean) ** 2).sum().sqrt() / STEPS).item() == pytest.approx(length, rel=0.01)
        gamma = exponent_of(length)
        torch.testing.assert_close(shares, (gamma + 1) / STEPS * (tau / STEPS) ** gamma, rtol=0.05, atol=1e-3)


def test_the_product_of_profiles_is_their_integral():
    tau = (numpy.arange(200_000) + 0.5) / 1000
    one, other = (16.97, 150), (6.94, 200)
    profiles = [(gamma + 1) * tau**gamma / t ** (gamma + 1) * (tau < t) for gamma, t in (one, other)]
    assert product(one, other) == pytest.approx((profiles[0] * profiles[1]).sum() / 1000, rel=1e-4)
    assert product(one, other) == product(other, one)


def test_a_kept_average_is_combined_of_itself_alone(snapshots: Path):
    profiles = [(exponent_of(length), step) for step in (100, 200, 300) for length in posthoc_ema.LENGTHS]
    assert combination(profiles, profiles[3]) == pytest.approx([0, 0, 0, 1, 0, 0], abs=1e-6)
    kept = load(snapshots / posthoc_ema.FOLDER, "300").ema["0.05/w"]
    torch.testing.assert_close(posthoc_average(snapshots, 300, 0.05)["w"], kept, atol=1e-4, rtol=0)


@pytest.mark.parametrize("length", [0.07, 0.15, 0.25])
def test_any_other_is_close_to_the_one_that_was_followed_itself(snapshots: Path, length: float, monkeypatch):
    monkeypatch.setattr(posthoc_ema, "LENGTHS", (length,))
    model = nn.ParameterDict({"w": torch.zeros(6)})
    direct = PowerAverages(model, model.parameters())
    follow(direct, model["w"])
    monkeypatch.undo()
    made, followed = posthoc_average(snapshots, STEPS, length)["w"], direct.averages[length]["w"]
    apart = (load(snapshots / posthoc_ema.FOLDER, str(STEPS)).ema["0.1/w"] - followed).norm()
    assert (made - followed).norm() < 0.03 * followed.norm()
    assert (made - followed).norm() < 0.2 * apart, "nearer than the nearest kept one"


def test_a_run_without_snapshots_says_what_to_do(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"ema_length=0.1: .* train.posthoc_ema=true"):
        posthoc_average(tmp_path, 100, 0.1)


def contents(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in run.glob("averages/step-*/*")}


def test_a_resumed_run_ends_with_the_same_snapshots(tmp_path: Path):
    """Cut at step 5, between two of the period, after step 3 was the best so far."""
    config = make_config(posthoc_ema=True, steps=16)
    train(tmp_path / "whole", config)
    cut = make_trainer(tmp_path / "cut", config)
    signals = Signals()
    take = cut._take_step

    def take_five(received: Signals) -> None:
        take(received)
        if cut.done == 5:
            received.received = 15

    cut._take_step = take_five
    cut.run(signals)
    assert load_newest(tmp_path / "cut" / "checkpoints").step == 5
    train(tmp_path / "cut", config)
    assert contents(tmp_path / "whole") == contents(tmp_path / "cut")
    steps = {int(path.name[-8:]) for path in (tmp_path / "whole" / "averages").iterdir()}
    needed = {int(path.name[-8:]) for path in (tmp_path / "whole" / "checkpoints").iterdir()}
    assert steps == {4, 8, 12, 16} | needed


def test_what_another_future_left_behind_is_forgotten(tmp_path: Path):
    """Of a run that goes on from step 8, snapshots of later steps are made again."""
    config = make_config(posthoc_ema=True, steps=16)
    train(tmp_path, config)
    before = contents(tmp_path)
    for path in (tmp_path / "checkpoints").iterdir():
        if int(path.name[-8:]) > 12:
            for file in path.iterdir():
                file.unlink()
            path.rmdir()
    wrong = tmp_path / "averages" / "step-00000016" / "ema.safetensors"
    wrong.write_bytes(b"")
    train(tmp_path, config)
    assert contents(tmp_path) == before
