"""The processes of a run: one, or as many as torchrun started.

No wrapper is put around the model: a method of a DDP-wrapped module called in place of `forward` leaves gradients
unsynchronised, silently. `step.minimize` averages one flat bucket a call instead.
"""

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class World:
    """This process (`rank`) among `size`; rank 0 alone writes files and speaks."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def average(self, tensors: list[Tensor]) -> None:
        """Replace each tensor, in place, by its mean over the ranks. One flat message for each dtype."""
        if self.size == 1:
            return
        for dtype in {tensor.dtype for tensor in tensors}:
            members = [tensor for tensor in tensors if tensor.dtype == dtype]
            flat = torch.cat([tensor.reshape(-1) for tensor in members])
            dist.all_reduce(flat)
            flat /= self.size
            parts = flat.split([tensor.numel() for tensor in members])
            for tensor, part in zip(members, parts, strict=True):
                tensor.copy_(part.view_as(tensor))

    def broadcast(self, value: object) -> object:
        """Rank 0's `value` (JSON-like), on every rank."""
        if self.size == 1:
            return value
        holder = [value]
        dist.broadcast_object_list(holder, src=0)
        return holder[0]

    def any(self, claim: bool) -> bool:
        """Whether `claim` holds on any rank."""
        if self.size == 1:
            return claim
        claims: list[object] = [None] * self.size
        dist.all_gather_object(claims, claim)
        return True in claims

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier()


def join_world(device_type: str) -> World:
    """Meet the other processes that torchrun started (gloo on CPU, NCCL on CUDA); alone, do nothing."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return World()
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device_type == "cuda" else "gloo")
    return World(rank=dist.get_rank(), size=size)


def leave_world() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
