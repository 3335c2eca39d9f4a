"""T08: a loss or gradient that is NaN or infinite never reaches a weight, whatever the policy."""

from pathlib import Path

import pytest
import torch

from genai_cli.engine.checkpoint import first_non_finite, load_newest
from tests.reliability.harness import GAN, VAE, Genai, log_lines

STEPS = "train.steps=6"
PLACES = [
    (VAE, "loss.model"),
    (VAE, "gradient.model"),
    (GAN, "loss.discriminator"),
    (GAN, "gradient.discriminator"),
    (GAN, "loss.generator"),
    (GAN, "gradient.generator"),
]
PLACE_NAMES = [f"{model[0].removeprefix('model=')}-{place}" for model, place in PLACES]


def newest_is_finite(run: Path) -> bool:
    newest = load_newest(run / "checkpoints")
    assert newest is not None
    return all(first_non_finite(tensors) is None for tensors in (newest.model, newest.ema, newest.optimizer))


@pytest.mark.parametrize("kind", ["nan", "inf"])
@pytest.mark.parametrize(("model", "place"), PLACES, ids=PLACE_NAMES)
def test_stop_is_exit_4_with_the_last_checkpoint_standing(
    genai: Genai, folder: Path, model: tuple[str, ...], place: str, kind: str
) -> None:
    run = folder / "run"
    ended = genai.run("train", *model, STEPS, f"run.dir={run}", fault=f"{place}:{kind}:5")
    assert ended.code == 4
    quantity, group = place.split(".")
    assert f"the {quantity} of {group} is not finite at step 5" in ended.err
    assert "The checkpoint of step 4 stands" in ended.err
    assert "Traceback" not in ended.err
    assert newest_is_finite(run)


@pytest.mark.parametrize(("model", "place"), PLACES[1:5:3], ids=PLACE_NAMES[1:5:3])
def test_skip_gives_up_one_update_and_goes_on(genai: Genai, folder: Path, model: tuple[str, ...], place: str) -> None:
    run = folder / "run"
    ended = genai.run("train", *model, STEPS, "train.nonfinite=skip", f"run.dir={run}", fault=f"{place}:nan:5")
    assert ended.code == 0, ended.err
    assert [line["skipped_updates"] for line in log_lines(run) if "skipped_updates" in line] == [1]
    assert newest_is_finite(run)


@pytest.mark.parametrize(("model", "place"), PLACES[::4], ids=PLACE_NAMES[::4])
def test_skip_stops_after_too_many_in_a_row_though_the_other_player_is_well(
    genai: Genai, folder: Path, model: tuple[str, ...], place: str
) -> None:
    faults = ",".join(f"{place}:nan:{count}" for count in (3, 4, 5))
    words = ("train", *model, STEPS, "train.nonfinite=skip")
    limited = genai.run(*words, "train.nonfinite_limit=2", f"run.dir={folder}/two", fault=faults)
    assert limited.code == 4, limited.err
    assert genai.run(*words, "train.nonfinite_limit=3", f"run.dir={folder}/three", fault=faults).code == 0


@pytest.mark.parametrize(("model", "place"), PLACES[2::2], ids=PLACE_NAMES[2::2])
def test_rollback_goes_back_and_passes_the_step_over(
    genai: Genai, folder: Path, model: tuple[str, ...], place: str
) -> None:
    run = folder / "run"
    ended = genai.run("train", *model, STEPS, "train.nonfinite=rollback", f"run.dir={run}", fault=f"{place}:nan:6")
    assert ended.code == 0, ended.err
    assert "is not finite at step 6" in ended.out
    assert "back to step 4; that step will be passed over" in ended.out
    newest = load_newest(run / "checkpoints")
    assert newest is not None and newest.state["avoided"] == [5]
    assert newest_is_finite(run)
    steps = [line["step"] for line in log_lines(run)]
    assert steps == sorted(steps)


def test_rollback_without_a_checkpoint_stops(genai: Genai, folder: Path) -> None:
    words = ("train", *VAE, STEPS, "train.nonfinite=rollback", f"run.dir={folder}/run")
    ended = genai.run(*words, fault="loss.model:nan:1")
    assert ended.code == 4
    assert "there is no checkpoint to go back to" in ended.err


def test_a_weight_that_is_not_finite_is_not_saved(genai: Genai, folder: Path) -> None:
    """A learning rate of 1e38 makes weights infinite in one update, with a loss and gradient that were finite."""
    run = folder / "run"
    words = (
        "train",
        *VAE,
        STEPS,
        "optimizer=sgd",
        "optimizer.lr=1e38",
        "train.save_every=1",
        "train.evaluate_every=null",
    )
    ended = genai.run(*words, f"run.dir={run}")
    assert ended.code == 4, (ended.code, ended.err)
    assert not torch.isfinite(torch.tensor(1e39))
    assert list(run.glob("checkpoints/step-*")) == [] or newest_is_finite(run)
