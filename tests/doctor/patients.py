"""Small runs for the doctor: real models on real digits, a fraction of a second each, and one defect at a time."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genai_cli import registry, runs
from genai_cli.config import Config, DeviceConfig, DoctorConfig, LoggerConfig, OptimizerConfig, TrainConfig
from genai_cli.data.base import Spec, TensorSplit
from genai_cli.data.mnist import Mnist
from genai_cli.data.pixels import image_spec, image_split
from genai_cli.data.tokenizers import CharTokenizer
from genai_cli.engine.distributed import World
from genai_cli.engine.signals import Signals
from genai_cli.engine.trainer import Outcome, Trainer
from genai_cli.models.base import GenerativeModel

SPEC = image_spec(1, 28, 28, [str(digit) for digit in range(10)])
POINTS = Spec("points", (2,))
TEXT = Spec("text", (16,), tokenizer=CharTokenizer("abcdefghij").to_json(), vocabulary_size=10)
CPU = torch.device("cpu")


@functools.cache
def mnist(split: str) -> dict[str, Tensor]:
    """Decompressed once: that takes longer than most of the runs here."""
    return Mnist().load(split).tensors


def digits(count: int, *, split: str = "train") -> TensorSplit:
    """The first `count` digits of a split of MNIST."""
    tensors = mnist(split)
    return image_split(tensors["image"][:count], tensors["label"][:count])


def eight_points(count: int, seed: int) -> TensorSplit:
    """Points around eight centres."""
    random = torch.Generator().manual_seed(seed)
    angle = torch.randint(8, (count,), generator=random) * (torch.pi / 4)
    centre = 2 * torch.stack([angle.cos(), angle.sin()], 1)
    return TensorSplit({"points": centre + 0.2 * torch.randn(count, 2, generator=random)}, dict)


def letters(count: int, seed: int) -> TensorSplit:
    """Windows of a text in which each letter is followed by one of three."""
    random = torch.Generator().manual_seed(seed)
    tokens = [torch.randint(10, (count,), generator=random)]
    for _ in range(TEXT.shape[0]):
        tokens.append((tokens[-1] + torch.randint(1, 4, (count,), generator=random)) % 10)
    mask = torch.ones(count, *TEXT.shape, dtype=torch.bool)
    return TensorSplit({"tokens": torch.stack(tokens, 1), "mask": mask}, dict)


def config_of(model: str, options: dict[str, Any] | None = None, **settings: Any) -> Config:
    """The smallest instance of a model; `optimizer` and `doctor` are mappings, all else are keys of `train`."""
    optimizer = OptimizerConfig(**settings.pop("optimizer", {"betas": (0.5, 0.999)}))
    doctor = DoctorConfig(**settings.pop("doctor", {}))
    defaults: dict[str, Any] = {
        "steps": 60, "batch_size": 16, "log_every": 4, "evaluate_every": 4, "sample_every": 4, "save_every": 4,
        "num_samples": 32, "evaluate_examples": 32, "keep": 20,
    }  # fmt: skip
    tiny = registry.define(registry.MODEL, model).tiny
    return Config(
        model={"name": model, **tiny, **(options or {})},
        dataset={"name": "mnist"},
        optimizer=optimizer,
        doctor=doctor,
        train=TrainConfig(**(defaults | settings)),
        device=DeviceConfig(name="cpu"),
        logger=LoggerConfig(tensorboard=False),
    )


def trainer_of(
    config: Config,
    folder: Path,
    *,
    train: TensorSplit | None = None,
    held_out: TensorSplit | None = None,
    spec: Spec = SPEC,
    world: World | None = None,
    defect: Callable[[GenerativeModel], None] = lambda model: None,
) -> Trainer:
    folder.mkdir(exist_ok=True)
    torch.manual_seed(config.seed)
    model = runs.build_model(config, spec)
    defect(model)
    train, held_out = train or digits(400), held_out or digits(200, split="validation")
    return Trainer(model, train, held_out, config, folder=folder, world=world or World(), device=CPU)


def treat(config: Config, folder: Path, **parts: Any) -> Outcome:
    """Train to the end."""
    return trainer_of(config, folder, **parts).run(Signals())


def findings(folder: Path) -> dict[str, dict[str, Any]]:
    """The lines of findings.jsonl, by name."""
    path = folder / "findings.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return {record["name"]: record for record in map(json.loads, lines)}
