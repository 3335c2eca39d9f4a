"""Run a function as two processes of one world (gloo, on this machine)."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, multiprocessing

from genai_cli.engine.distributed import World


def run_on_two_ranks(function: Callable[..., dict[str, Tensor]], *arguments: str) -> dict[str, Tensor]:
    """What rank 0 got from `function(*arguments, world)`, having checked that rank 1 got the same weights."""
    with tempfile.TemporaryDirectory() as folder:
        processes = [
            multiprocessing.get_context("fork").Process(target=_rank, args=(rank, folder, function, arguments))
            for rank in range(2)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(timeout=120)
        assert [process.exitcode for process in processes] == [0, 0]
        results = [torch.load(Path(folder) / f"{rank}.pt", weights_only=True) for rank in range(2)]
    assert all(torch.equal(results[0][key], results[1][key]) for key in results[0])
    return results[0]


def _rank(rank: int, folder: str, function: Callable[..., dict[str, Tensor]], arguments: tuple[str, ...]) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    torch.save(function(*arguments, World(rank, 2)), Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()
