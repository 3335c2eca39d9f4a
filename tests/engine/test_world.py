"""How the processes of a run find each other."""

import pytest
import torch.distributed as dist

from genai_cli.engine import distributed
from genai_cli.engine.distributed import join_world
from genai_cli.errors import RankLost


@pytest.fixture
def stores(monkeypatch):
    """The stores given to torch by each `join_world`, all on one common store, as torchrun has it."""
    common, given = dist.HashStore(), []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(distributed.dist, "rendezvous", lambda _: iter([(common, 0, 2)]))
    monkeypatch.setattr(distributed.dist, "init_process_group", lambda *_, store, **__: given.append(store))
    return given


def test_a_start_reads_nothing_of_the_start_before(stores, monkeypatch):
    """Under `torchrun --max-restarts` one store serves them all; an address in it may be of a process that is dead."""
    for start in ("0", "1"):
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", start)
        world = join_world("cpu")
        assert not stores[-1].check(["address"]) and not world.store.check(["words"])
        stores[-1].set("address", start)
        world.store.set("words", start)
    assert stores[0].get("address") == b"0" and stores[1].get("address") == b"1"


def test_a_process_that_cannot_be_reached_is_lost_and_no_bug(stores, monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("Gloo connectFullMesh failed: Connection refused")

    monkeypatch.setattr(distributed.dist, "init_process_group", refuse)
    with pytest.raises(RankLost, match="another process of this run has ended: it left no word"):
        join_world("cpu")
