"""The score of the training loop: cheap, repeatable, and it keeps the good checkpoint through a late collapse."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from genai_cli import cli, runs
from genai_cli.config import Config, DeviceConfig, LoggerConfig, OptimizerConfig, TrainConfig
from genai_cli.data.base import Batch, Spec, TensorSplit
from genai_cli.engine import checkpoint as checkpoints
from genai_cli.engine.distributed import World
from genai_cli.engine.signals import Signals
from genai_cli.engine.trainer import Trainer
from genai_cli.metrics.quick import QuickScore
from genai_cli.models.base import GenerativeModel
from genai_cli.nn.random import RowRandom

CPU = torch.device("cpu")
POINTS, IMAGES = Spec("points", (2,)), Spec("image", (1, 28, 28), (-1.0, 1.0))


def split_of(spec: Spec, count: int, *, seed: int) -> TensorSplit:
    generator = torch.Generator().manual_seed(seed)
    return TensorSplit({spec.key: torch.randn(count, *spec.shape, generator=generator).clamp(-1, 1)}, dict)


@pytest.mark.parametrize("spec", [POINTS, IMAGES], ids=["points", "images"])
def test_score_grows_with_distance_and_repeats(spec):
    quick = QuickScore(spec, split_of(spec, 300, seed=0), num_examples=200, device=CPU)
    other = split_of(spec, 300, seed=1).tensors[spec.key]
    same, shifted, collapsed = (
        quick.score(lambda count, x=x: x[:count])["frechet"] for x in (other, other + 0.5, other[:1].expand_as(other))
    )
    assert 0 <= same < shifted and same < collapsed
    again = QuickScore(spec, split_of(spec, 300, seed=0), num_examples=200, device=CPU)
    assert again.score(lambda count: other[:count]) == {"frechet": same}


def test_samples_that_are_not_finite_score_infinity():
    quick = QuickScore(POINTS, split_of(POINTS, 50, seed=0), num_examples=50, device=CPU)
    assert quick.score(lambda count: torch.full((count, 2), torch.nan)) == {"frechet": float("inf")}


class Collapses(GenerativeModel):
    """Samples ever better points for six steps, and one and the same point after that."""

    modalities = ("points",)

    def __init__(self, spec: Spec):
        super().__init__(spec)
        self.weight = nn.Parameter(torch.zeros(1))

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        return -self.weight.sum(), {}  # of gradient -1: SGD counts the steps

    def sample(self, random: RowRandom) -> Tensor:
        noise = random.normal(2).clamp(-1, 1)
        return 0 * noise + 1 if self.weight.item() > 6.5 else noise + 1 - self.weight / 6


def test_a_late_collapse_does_not_cost_the_good_checkpoint(tmp_path: Path):
    config = Config(
        model={"name": "gan"}, dataset={"name": "toy2d"},
        optimizer=OptimizerConfig(name="sgd", lr=1.0),
        train=TrainConfig(
            steps=12, batch_size=8, log_every=4, evaluate_every=2, sample_every=None, save_every=2, keep=1
        ),
        device=DeviceConfig(name="cpu"), logger=LoggerConfig(tensorboard=False),
    )  # fmt: skip
    trainer = Trainer(
        Collapses(POINTS), split_of(POINTS, 64, seed=0), split_of(POINTS, 400, seed=1), config,
        folder=tmp_path, world=World(), device=CPU,
    )  # fmt: skip
    trainer.run(Signals())
    assert checkpoints.load(tmp_path / "checkpoints", "best").step == 6
    assert checkpoints.load(tmp_path / "checkpoints", "last").step == 12


def test_gan_presets_are_scored():
    from genai_cli.configure import configure
    from genai_cli.overrides import Overrides

    for preset in ("gan", "dcgan"):
        overrides = Overrides([f"model={preset}", "dataset=mnist"])
        config = configure("train", next(overrides.jobs()), overrides).config
        model = runs.build_model(config, IMAGES)
        assert config.train.evaluate_every and model.monitor is None


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["model=gpt", "dataset=text", "train.evaluate_every=2"], "text has no score"),
        (["model=gan", "dataset=toy2d", "train.evaluate_every=null"], "needs train.evaluate_every"),
    ],
)
def test_a_score_that_would_never_be_computed_is_refused(words, expected, tmp_path, capsys):
    words = [*words, "train.score_samples=20", "train.steps=2", f"run.dir={tmp_path}/run", "device=cpu"]
    assert cli.run(["train", *words]) == 2
    assert expected in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_a_score_that_is_asked_for_chooses_the_best_of_a_model_with_a_figure(tmp_path):
    words = ["model=vae", "dataset=toy2d", "dataset.held_out=60", "model.width=4", "train.epochs=null", "train.steps=4"]
    period = ["train.evaluate_every=2", "train.score_samples=40", "train.sample_every=null", f"run.dir={tmp_path}/run"]
    assert cli.run(["train", *words, *period, "device=cpu", "logger=none"]) == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    scores = {line["step"]: line["validation/frechet"] for line in lines if "validation/frechet" in line}
    best = checkpoints.load(tmp_path / "run" / "checkpoints", "best").state["best"]
    assert best == {"step": min(scores, key=scores.get), "value": min(scores.values())}
