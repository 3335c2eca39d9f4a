import multiprocessing

import pytest
import torch
from torch import Tensor

from genai_cli.data.base import Split, TensorSplit
from genai_cli.engine.batches import Batches, Order

LENGTH = 30


class Counted(TensorSplit):
    """Examples that are their own positions."""

    def __init__(self, *, streams: bool = False):
        super().__init__({"points": torch.arange(LENGTH)}, dict)
        self.is_stream = streams

    @property
    def streams(self) -> bool:
        return self.is_stream


def seen(
    split: Split, *, steps: range, accumulate: int = 1, world_size: int = 1, batches: int = 1, **options: int
) -> list[Tensor]:
    """What each batch holds, put together from the micro-batches of all ranks."""
    ranks = [
        Batches(
            split, seed=5, batch_size=12, accumulate=accumulate, batches_per_step=batches, rank=rank,
            world_size=world_size, **options,
        )
        for rank in range(world_size)
    ]  # fmt: skip
    return [
        torch.cat([rank.fetch(step, batch, micro)["points"] for rank in ranks for micro in range(accumulate)])
        for step in steps
        for batch in range(batches)
    ]


@pytest.mark.parametrize("batches", [1, 3])
@pytest.mark.parametrize(("accumulate", "world_size"), [(1, 1), (3, 1), (1, 2), (2, 3), (6, 2)])
def test_every_example_is_seen_once_an_epoch(accumulate: int, world_size: int, batches: int) -> None:
    """60 batches of 12 are 24 epochs of 30; most epochs begin in the middle of a batch."""
    stream = torch.cat(
        seen(Counted(), steps=range(60 // batches), accumulate=accumulate, world_size=world_size, batches=batches)
    )
    epochs = stream.view(-1, LENGTH)
    assert torch.equal(epochs.sort(1).values, torch.arange(LENGTH).expand(24, LENGTH))
    assert len({tuple(epoch.tolist()) for epoch in epochs}) == 24  # each in an order of its own


@pytest.mark.parametrize(("accumulate", "world_size"), [(3, 1), (1, 2), (2, 3)])
def test_ranks_and_micro_batches_share_one_batch_in_order(accumulate: int, world_size: int) -> None:
    whole = seen(Counted(), steps=range(7))
    shared = seen(Counted(), steps=range(7), accumulate=accumulate, world_size=world_size)
    assert all(torch.equal(one, other) for one, other in zip(whole, shared, strict=True))


def test_another_seed_is_another_order() -> None:
    assert not torch.equal(Order(100, seed=0).positions(0, 100), Order(100, seed=1).positions(0, 100))


def test_positions_do_not_depend_on_what_was_asked_before() -> None:
    order = Order(LENGTH, seed=0)
    late = order.positions(70, 95)
    order.positions(0, 10)
    assert torch.equal(order.positions(70, 95), late)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_loader_reads_what_is_fetched_directly(workers: int) -> None:
    """However many workers read ahead, and also after a jump forth (a resume) and back (a rollback)."""
    streamed = Batches(Counted(streams=True), seed=5, batch_size=12, accumulate=2, batches_per_step=2, workers=workers)
    direct = Batches(Counted(), seed=5, batch_size=12, accumulate=2, batches_per_step=2)
    for step in (0, 1, 2, 7, 8, 3):
        for batch in range(2):
            for micro in range(2):
                assert torch.equal(
                    streamed.fetch(step, batch, micro)["points"], direct.fetch(step, batch, micro)["points"]
                )
    streamed.close()
    assert multiprocessing.active_children() == []


def test_players_share_the_rows_of_a_step_and_the_stream_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two players ask for the same batch: it is read once, and no player's turn starts the workers again."""
    batches = Batches(Counted(streams=True), seed=5, batch_size=4, accumulate=2)
    make, started = batches._read_ahead, []
    monkeypatch.setattr(batches, "_read_ahead", lambda place: started.append(place) or make(place))
    for step in range(5):
        first, second = ([batches.fetch(step, 0, micro) for micro in range(2)] for _ in range(2))
        assert all(mine is yours for mine, yours in zip(first, second, strict=True))
    assert started == [(0, 0, 0)]
