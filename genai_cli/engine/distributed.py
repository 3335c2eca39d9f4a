"""The processes of a run: one, or as many as torchrun started.

No wrapper is put around the model: a method of a DDP-wrapped module called in place of `forward` leaves gradients
unsynchronised, silently. `step.minimize` averages one flat bucket a call instead.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from genai_cli.errors import ExitCode, RankLost, explain

_LAST_WORDS = "genai/last-words"  # key of the processes' common store: why the first that failed did so


@dataclass(frozen=True)
class World:
    """This process (`rank`) among `size`; rank 0 alone writes files and speaks.

    Whatever needs the others raises RankLost if one of them has ended, with its reason where it left one.
    """

    rank: int = 0
    size: int = 1
    store: dist.Store | None = None  # small words that all processes can read

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
            with self.together():
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
        with self.together():
            dist.broadcast_object_list(holder, src=0)
        return holder[0]

    def any(self, claim: bool) -> bool:
        """Whether `claim` holds on any rank."""
        if self.size == 1:
            return claim
        claims: list[object] = [None] * self.size
        with self.together():
            dist.all_gather_object(claims, claim)
        return True in claims

    def barrier(self) -> None:
        if self.size > 1:
            with self.together():
                dist.barrier()

    @contextmanager
    def leaving_word(self) -> Iterator[None]:
        """Within, an exception of this process tells the others why before it ends it.

        Where it is of a message that failed, of a layer's or of divided weights, it is RankLost.
        """
        try:
            yield
        except Exception as error:
            if _is_of_message(error):
                raise self._lost() from error
            code, lines = explain(error)
            if code != ExitCode.RANK_LOST:
                self.leave_word(" ".join(lines) or repr(error))
            raise

    def leave_word(self, words: str) -> None:
        """Tell the others why this process ends."""
        if self.store is not None:
            with suppress(RuntimeError):  # where the process that holds the store has gone, too
                self.store.set_timeout(timedelta(seconds=2))
                self.store.set(_LAST_WORDS, f"{words} (process {self.rank})")

    @contextmanager
    def together(self) -> Iterator[None]:
        """Within, an error of torch's messages is RankLost."""
        try:
            yield
        except RuntimeError as error:  # "Connection closed by peer", and the like
            raise self._lost() from error

    def _lost(self) -> RankLost:
        return RankLost(f"another process of this run has ended: {self._last_words()}")

    def _last_words(self) -> str:
        if self.store is not None:
            with suppress(RuntimeError):
                self.store.set_timeout(timedelta(seconds=2))
                return self.store.get(_LAST_WORDS).decode()
        return "it left no word, so it was probably killed. The same command goes on from the newest checkpoint"


def _is_of_message(error: Exception) -> bool:
    """Whether torch could not send or receive between processes: of gloo, a RuntimeError like any other."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "/gloo/" in str(error))


def join_world(device_type: str, *, timeout: float | None = None) -> World:
    """Meet the other processes that torchrun started (gloo on CPU, NCCL on CUDA); alone, do nothing.

    A message may take twice `timeout` seconds (None: a week), so that the watchdog speaks first. Raises RankLost where
    another cannot be reached.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return World()
    store, rank, size = next(dist.rendezvous("env://"))
    # One store serves all starts of a run under --max-restarts: what was left there by processes that are dead now,
    # addresses above all, must not be read.
    store = dist.PrefixStore(f"start-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
    backend = "nccl" if device_type == "cuda" else "gloo"
    patience = timedelta(weeks=1) if timeout is None else timedelta(seconds=2 * timeout)
    world = World(rank, size, store)
    collectives = dist.PrefixStore("collectives", store)
    with world.together():
        dist.init_process_group(backend, store=collectives, rank=rank, world_size=size, timeout=patience)
    return world


def leave_world() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
