"""The pool of earlier fakes: it fills, then exchanges half, and is the same for one rank as for two."""

import torch
from torch import Tensor

from genai_cli.engine.distributed import World
from genai_cli.nn.history import History
from genai_cli.nn.random import BatchRandom
from tests.models.ranks import run_on_two_ranks


def numbered(start: int, count: int) -> Tensor:
    return torch.arange(start, start + count, dtype=torch.float32).view(count, 1)


def test_it_fills_before_it_exchanges() -> None:
    pool = History(6, (1,))
    for step in range(2):
        fakes = numbered(3 * step, 3)
        assert torch.equal(pool(fakes, BatchRandom(step, stop=3)), fakes)
    assert int(pool.count) == 6 and pool.images.flatten().tolist() == [0, 1, 2, 3, 4, 5]


def test_half_are_earlier_ones_and_none_is_lost_or_doubled() -> None:
    """What was put in is what came out and what is there: in all, each fake once, but for those passed through."""
    pool, returned, batch = History(50, (1,)), [], 16
    for step in range(200):
        returned += pool(numbered(batch * step, batch), BatchRandom(step, stop=batch)).flatten().tolist()
    given = list(range(50, 200 * batch))
    is_earlier = [out != now for out, now in zip(returned[50:], given, strict=True)]
    assert abs(sum(is_earlier) / len(is_earlier) - 0.5) < 0.03
    ages = [now - out for out, now in zip(returned[50:], given, strict=True) if out != now]
    assert abs(sum(ages) / len(ages) / 100 - 1) < 0.1  # each of 50 places is exchanged once in 100 fakes
    kept = pool.images.flatten().tolist()
    assert sorted([*returned[50:], *kept]) == sorted(range(200 * batch))


def test_a_size_of_nothing_remembers_nothing() -> None:
    fakes = numbered(0, 3)
    assert History(0, (1,))(fakes, BatchRandom(0, stop=3)) is fakes


def history_of_two_batches(world: World) -> dict[str, Tensor]:
    pool, rows = History(5, (1,)), 8 // world.size
    for step in range(4):
        start = world.rank * rows
        random = BatchRandom(step, start=start, stop=start + rows, total=8)
        pool(numbered(8 * step + start, rows), random)
    return {"images": pool.images, "count": pool.count}


def test_two_ranks_remember_what_one_does() -> None:
    alone, together = history_of_two_batches(World()), run_on_two_ranks(history_of_two_batches)
    assert all(torch.equal(alone[key], together[key]) for key in alone)
