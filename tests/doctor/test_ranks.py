"""Two processes heed the doctor as one: they go back together, or stop together."""

from pathlib import Path

import torch
from torch import Tensor

from genai_cli.engine.distributed import World
from genai_cli.engine.signals import Signals
from genai_cli.errors import Unhealthy
from genai_cli.nn.random import RowRandom
from tests.doctor.patients import POINTS, config_of, eight_points, trainer_of
from tests.models.ranks import run_on_two_ranks


def heed(policy: str, folder: str, world: World) -> dict[str, Tensor]:
    """Train with samples that are all the same in steps 20 to 40, until the first rollback; what became of it."""
    config = config_of("gan", steps=40, doctor={"mode_collapse": policy})
    trainer = trainer_of(
        config, Path(folder), spec=POINTS, train=eight_points(100, 0), held_out=eight_points(50, 1), world=world
    )

    def sample(random: RowRandom) -> Tensor:
        is_sick = trainer.done >= 20 and not trainer.watch.rollbacks
        return torch.zeros(random.size, 2) if is_sick else random.normal(2)

    trainer.model.sample = sample
    has_stopped = False
    try:
        trainer.run(Signals())
    except Unhealthy:
        has_stopped = True
    weights = {f"weight/{key}": tensor for key, tensor in trainer.model.state_dict().items()}
    return {
        **weights,
        "done": torch.tensor(trainer.done),
        "avoided": torch.tensor(trainer.avoided),
        "has_stopped": torch.tensor(has_stopped),
    }


def test_both_go_back(tmp_path: Path) -> None:
    ended = run_on_two_ranks(heed, "rollback", str(tmp_path))
    assert ended["done"] == 40 and not ended["has_stopped"]
    assert ended["avoided"].tolist() == list(range(16, 28))


def test_both_stop(tmp_path: Path) -> None:
    ended = run_on_two_ranks(heed, "stop", str(tmp_path))
    assert ended["done"] == 28 and ended["has_stopped"]
