"""A small model with everything in it that a checkpoint must carry, and a trainer for it without a command line.

Two players with optimizers of their own, batch normalisation, dropout, several batches a step, a monitored figure.
"""

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from genai_cli.config import Config, DeviceConfig, LoggerConfig, OptimizerConfig, TrainConfig
from genai_cli.data.base import Batch, Spec, TensorSplit
from genai_cli.engine.distributed import World
from genai_cli.engine.signals import Signals
from genai_cli.engine.trainer import Outcome, Trainer
from genai_cli.models.base import GenerativeModel, Metrics, Step
from genai_cli.nn.random import RowRandom

SPEC = Spec("points", (2,))
CPU = torch.device("cpu")


class Duel(GenerativeModel):
    """A generator that moves points, a critic that values them. Both losses are bounded; nothing here is a method."""

    modalities = ("points",)
    monitor = "error"
    batches_per_step = 2

    def __init__(self, spec: Spec):
        super().__init__(spec)
        self.generator = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Dropout(0.2), nn.Linear(4, 2))
        self.critic = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1))

    def train_step(self, step: Step) -> None:
        step.minimize("critic", self.critic_loss)
        step.minimize("generator", self.generator_loss, batch=1)

    def critic_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        fake = self.generator(batch.random.normal(2)).detach()
        loss = self.critic(fake).tanh().mean() - self.critic(batch["points"]).tanh().mean()
        return loss, {"size": fake.abs().mean()}

    def generator_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        fake = self.generator(batch.random.normal(2))
        return (fake - batch["points"]).square().mean() - self.critic(fake).tanh().mean(), {}

    def sample(self, random: RowRandom) -> Tensor:
        return self.generator(random.normal(2))

    def parameter_groups(self) -> dict[str, Iterable[Parameter]]:
        return {"critic": self.critic.parameters(), "generator": self.generator.parameters()}

    def ema_parameters(self) -> Iterable[Parameter]:
        return self.generator.parameters()

    def evaluate(self, batch: Batch) -> Metrics:
        return {"error": (self.sample(batch.random) - batch["points"]).square().sum(1)}


def points(count: int, seed: int) -> TensorSplit:
    return TensorSplit({"points": torch.randn(count, 2, generator=torch.Generator().manual_seed(seed))}, dict)


def make_config(*, optimizer: OptimizerConfig | None = None, seed: int = 3, **train: object) -> Config:
    defaults: dict[str, object] = {
        "steps": 8, "batch_size": 4, "accumulate": 2, "log_every": 3, "evaluate_every": 3, "sample_every": None,
        "save_every": 4, "ema": 0.9, "keep": 2, "num_samples": 4,
    }  # fmt: skip
    return Config(
        model={"name": "duel"},
        dataset={"name": "points"},
        optimizer=optimizer or OptimizerConfig(overrides={"critic": {"name": "sgd", "lr": 0.1, "momentum": 0.9}}),
        train=TrainConfig(**(defaults | train)),  # type: ignore[arg-type]
        device=DeviceConfig(name="cpu", workers=0),
        logger=LoggerConfig(tensorboard=False),
        seed=seed,
    )


def make_trainer(folder: Path, config: Config, model: GenerativeModel | None = None) -> Trainer:
    folder.mkdir(parents=True, exist_ok=True)
    if model is None:
        torch.manual_seed(0)
        model = Duel(SPEC)
    return Trainer(model, points(14, 1), points(6, 2), config, folder=folder, world=World(), device=CPU)


def train(folder: Path, config: Config, model: GenerativeModel | None = None) -> Outcome:
    """Train in `folder`, or go on with what is there."""
    return make_trainer(folder, config, model).run(Signals())
