"""Each defect is found within a few evaluations and by its name; healthy runs have none."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from genai_cli.data.base import TensorSplit
from genai_cli.doctor.symptoms import TESTS
from genai_cli.engine.checkpoint import load_newest
from genai_cli.engine.signals import Signals
from genai_cli.engine.trainer import Trainer
from genai_cli.errors import Diverged, ExitCode, Unhealthy
from genai_cli.models.base import GenerativeModel
from genai_cli.nn.random import RowRandom
from tests.doctor.patients import (
    POINTS,
    SPEC,
    TEXT,
    config_of,
    digits,
    eight_points,
    findings,
    letters,
    trainer_of,
    treat,
)

CONSTANT = torch.zeros(1, *SPEC.shape)
RARELY = {"sample_every": None, "evaluate_every": None, "save_every": None}


def make_constant(model: GenerativeModel) -> None:
    model.sample = lambda random: CONSTANT.expand(random.size, *SPEC.shape)


def forget_codes(model: GenerativeModel) -> None:
    """KL(q || p) = 0 whatever x is."""
    model.posterior = lambda x: (torch.zeros(len(x), model.latent_dim),) * 2


def poisoned(value: float, *, place: int = 17) -> TensorSplit:
    """400 digits, one of which has every pixel at `value`."""
    rows = digits(400).fetch(torch.arange(400))
    rows["image"][place] = value
    return TensorSplit(rows, dict)


def test_a_constant_generator_is_a_mode_collapse(tmp_path: Path) -> None:
    treat(config_of("gan"), tmp_path, defect=make_constant)
    found = findings(tmp_path)["mode_collapse"]
    assert found["step"] <= 60 // 5 + 3 * 4, "three samples after the first fifth of the run"
    assert "0 of what it is in held-out data" in found["evidence"]


def test_eight_images_are_memorised(tmp_path: Path) -> None:
    config = config_of(
        "vae", {"width": 64, "latent_dim": 2}, steps=400, batch_size=8, log_every=20, evaluate_every=20,
        sample_every=20, save_every=400, optimizer={"lr": 3e-3},
    )  # fmt: skip
    treat(config, tmp_path, train=digits(8))
    assert {"memorisation", "overfitting"} <= set(findings(tmp_path))


def test_codes_without_information_are_a_posterior_collapse(tmp_path: Path) -> None:
    treat(config_of("vae"), tmp_path, defect=forget_codes)
    assert findings(tmp_path)["posterior_collapse"]["step"] <= 60 // 5 + 3 * 4


def test_a_strong_kl_term_collapses_the_posterior(tmp_path: Path) -> None:
    treat(config_of("vae", {"beta": 1e3}), tmp_path)
    assert "posterior_collapse" in findings(tmp_path)


@pytest.mark.parametrize("player", ["discriminator", "generator"])
def test_a_frozen_player_is_named(tmp_path: Path, player: str) -> None:
    treat(config_of("gan", optimizer={"overrides": {player: {"lr": 0.0}}}, steps=20), tmp_path)
    found = findings(tmp_path)["frozen_player"]
    assert f"the weights of {player} are what they were" in found["evidence"]
    assert found["step"] <= 16


def test_a_discriminator_whose_generator_stands_still_wins(tmp_path: Path) -> None:
    still = {"lr": 2e-3, "overrides": {"generator": {"lr": 0.0}}}
    treat(config_of("gan", {"width": 64}, optimizer=still, steps=80, **RARELY), tmp_path)
    assert "gives data a probability of" in findings(tmp_path)["discriminator_wins"]["evidence"]


def test_a_generator_whose_discriminator_stands_still_wins(tmp_path: Path) -> None:
    still = {"lr": 2e-3, "overrides": {"discriminator": {"lr": 0.0}}}
    treat(config_of("gan", {"width": 64}, optimizer=still, steps=80, **RARELY), tmp_path)
    assert "gives fakes a probability" in findings(tmp_path)["generator_wins"]["evidence"]


def test_an_encoder_that_says_one_thing_leaves_the_codebook_dead(tmp_path: Path) -> None:
    def silence(model: GenerativeModel) -> None:
        model.encoder.register_forward_hook(lambda module, inputs, output: 0 * output)

    treat(config_of("vqvae", {"num_codes": 64}, steps=20, **RARELY), tmp_path, defect=silence)
    found = findings(tmp_path)["dead_codebook"]
    assert "1.0 of 64 entries" in found["evidence"] and found["step"] <= 16


def test_a_loss_that_reaches_no_weight_any_more_is_a_vanishing_gradient(tmp_path: Path) -> None:
    def fade(model: GenerativeModel) -> None:
        whole, calls = model.loss, []

        def loss(batch, **options):
            calls.append(None)
            value, metrics = whole(batch, **options)
            return (value if len(calls) < 8 else 0 * value), metrics

        model.loss = loss

    treat(config_of("vae", steps=28, **RARELY), tmp_path, defect=fade)
    found = findings(tmp_path)["vanishing_gradients"]
    assert "gradient norm of model is 0" in found["evidence"] and found["step"] <= 20


def test_a_learning_rate_that_is_too_high_is_found_at_once(tmp_path: Path) -> None:
    treat(config_of("vae", optimizer={"lr": 3.0}, steps=20), tmp_path)
    assert findings(tmp_path)["high_learning_rate"]["step"] == 4


@pytest.mark.parametrize("model", ["gan", "vae"])
def test_a_broken_example_is_named(tmp_path: Path, model: str) -> None:
    with pytest.raises(Diverged, match="the data themselves are not: image of row"):
        treat(config_of(model), tmp_path, train=poisoned(math.nan))
    assert "image of row" in findings(tmp_path)["not_finite"]["evidence"]


def test_a_batch_far_out_of_range_makes_gradients_explode(tmp_path: Path) -> None:
    treat(config_of("gan", steps=40), tmp_path, train=poisoned(1e5, place=150))
    assert "discriminator" in findings(tmp_path)["exploding_gradients"]["evidence"]


def test_the_first_bad_module_is_named(tmp_path: Path) -> None:
    def break_decoder(model: GenerativeModel) -> None:
        layer = model.decoder[2]
        layer.register_forward_hook(lambda module, inputs, output: output / (output - output))

    with pytest.raises(Diverged, match=r"the first bad output is of decoder\.2 \(\w+\), whose inputs are finite"):
        treat(config_of("vae"), tmp_path, defect=break_decoder)


# Of each model of the trunk, enough of it and of a run to learn something.
PERIODS = {"log_every": 20, "evaluate_every": 20, "sample_every": 20, "save_every": 400, "steps": 200}
FEW = {"log_every": 4, "evaluate_every": 4, "sample_every": 8, "num_samples": 8, "evaluate_examples": 8, "steps": 40}
FAST = {"optimizer": {"lr": 2e-3}}
HEALTHY = {
    "gan": (POINTS, {"width": 64, "latent_dim": 8}, {**PERIODS, "num_samples": 256, "batch_size": 64}),
    "dcgan": (SPEC, {"width": 8, "latent_dim": 8}, {**PERIODS, "optimizer": {"lr": 1e-3, "betas": (0.5, 0.999)}}),
    "vae": (SPEC, {"width": 64, "latent_dim": 8}, PERIODS | FAST),
    "ae": (SPEC, {"width": 64, "latent_dim": 8}, {**PERIODS, **FAST, "steps": 500}),
    "ddpm": (SPEC, {}, FEW),
    "gpt": (TEXT, {}, PERIODS | FAST),
}


@pytest.mark.parametrize("model", HEALTHY)
def test_nothing_is_found_in_a_healthy_run(tmp_path: Path, model: str) -> None:
    spec, options, train = HEALTHY[model]
    if spec is SPEC:
        splits = {"train": digits(2000)}
    else:
        draw = eight_points if spec is POINTS else letters
        splits = {"train": draw(2000, 0), "held_out": draw(500, 1)}
    treat(config_of(model, options, **train), tmp_path, spec=spec, **splits)
    assert findings(tmp_path) == {}


def test_stop_saves_and_the_run_may_go_on_all_the_same(tmp_path: Path) -> None:
    config = config_of("gan", doctor={"mode_collapse": "stop"})
    with pytest.raises(Unhealthy, match="mode collapse since step 16") as stopped:
        treat(config, tmp_path, defect=make_constant)
    assert stopped.value.exit_code == ExitCode.UNHEALTHY
    newest = load_newest(tmp_path / "checkpoints")
    assert newest is not None and newest.step == findings(tmp_path)["mode_collapse"]["step"]
    assert treat(config, tmp_path, defect=make_constant).exit_code == ExitCode.DONE


class Sick:
    """Samples that are constant in the steps from `first` to `last`, and random in others."""

    def __init__(self, first: int, last: int):
        self.first, self.last = first, last

    def infect(self, trainer: Trainer) -> None:
        def sample(random: RowRandom) -> Tensor:
            is_sick = self.first <= trainer.done <= self.last and not trainer.watch.rollbacks
            return CONSTANT.expand(random.size, *SPEC.shape) if is_sick else random.normal(*SPEC.shape).tanh()

        trainer.model.sample = sample


def test_rollback_goes_back_to_before_it_began(tmp_path: Path) -> None:
    config = config_of("gan", steps=40, doctor={"mode_collapse": "rollback"})
    trainer = trainer_of(config, tmp_path)
    Sick(20, 40).infect(trainer)
    assert trainer.run(Signals()).exit_code == ExitCode.DONE
    found = findings(tmp_path)["mode_collapse"]
    assert (found["since"], found["step"]) == (20, 28)
    assert trainer.avoided == list(range(16, 28)), "back to the checkpoint of step 16"
    newest = load_newest(tmp_path / "checkpoints")
    assert newest is not None and newest.state["doctor"]["rollbacks"] == 1 and newest.step == 40


def test_too_many_rollbacks_stop(tmp_path: Path) -> None:
    config = config_of("gan", steps=60, doctor={"mode_collapse": "rollback", "rollbacks": 2})
    with pytest.raises(Unhealthy, match="after 2 rollbacks"):
        treat(config, tmp_path, defect=make_constant)


def test_rollback_without_an_earlier_checkpoint_stops(tmp_path: Path) -> None:
    config = config_of("gan", save_every=None, evaluate_every=None, doctor={"mode_collapse": "rollback"})
    with pytest.raises(Unhealthy, match="no checkpoint is from before it began"):
        treat(config, tmp_path, defect=make_constant)


def test_what_is_ignored_is_not_found(tmp_path: Path) -> None:
    treat(config_of("gan", steps=30, doctor={"mode_collapse": "ignore"}), tmp_path, defect=make_constant)
    assert "mode_collapse" not in findings(tmp_path)


def test_an_interrupted_run_finds_the_same_in_the_same_bytes(tmp_path: Path) -> None:
    """The doctor's memory is in the checkpoint: a run in three pieces ends as a run in one."""
    config = config_of("gan", steps=28)
    treat(config, tmp_path / "whole", defect=make_constant)
    for stop in (10, 21, None):
        signals = Signals()
        trainer = trainer_of(config, tmp_path / "parts", defect=make_constant)
        terminate_in(trainer, signals, stop)
        trainer.run(signals)
    whole, parts = (load_newest(tmp_path / name / "checkpoints") for name in ("whole", "parts"))
    assert whole is not None and parts is not None
    assert whole.state == parts.state and whole.state["doctor"]["standing"] == {"mode_collapse": 16}
    lines = [(tmp_path / name / "findings.jsonl").read_text() for name in ("whole", "parts")]
    assert lines[0] == lines[1] != ""


def terminate_in(trainer: Trainer, signals: Signals, step: int | None) -> None:
    """A SIGTERM during the step with `step` steps before it."""
    run = trainer.step.run

    def run_and_signal(number: int) -> None:
        run(number)
        if number == step:
            signals.received = 15

    trainer.step.run = run_and_signal


def test_every_finding_is_proved_by_a_fault() -> None:
    """Each name of the doctor's is asserted in this file, from a run with that defect."""
    source = Path(__file__).read_text(encoding="utf-8")
    assert [name for name in TESTS if f'"{name}"' not in source] == []
