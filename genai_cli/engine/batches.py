"""Which examples a step sees: a function of (seed, step), so that a resumed run needs no loader state.

The training split is an endless stream of permutations, epoch after epoch; step s takes the next `batch_size` positions
of it, across the border of an epoch if need be. Every example is seen exactly once an epoch, whatever the number of
ranks, micro-batches or worker processes.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from genai_cli.data.base import Split
from genai_cli.engine.readahead import ReadAhead
from genai_cli.nn.random import mix, permuted

_ORDER = 1  # tag of this use of the seed
LARGEST_LIST = 1 << 26  # examples whose order is held as a list (half a gigabyte); that of more is computed


class Order:
    """The stream of positions of a split of `length` examples."""

    def __init__(self, length: int, *, seed: int):
        self.length = length
        self.seed = seed
        self._epoch = -1
        self._permutation = torch.empty(0, dtype=torch.int64)

    def positions(self, start: int, stop: int) -> Tensor:
        """(stop - start,) int64: the stream from `start` to `stop`."""
        parts = []
        while start < stop:
            epoch, offset = divmod(start, self.length)
            taken = min(stop - start, self.length - offset)
            parts.append(self._permuted(epoch, offset, offset + taken))
            start += taken
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _permuted(self, epoch: int, start: int, stop: int) -> Tensor:
        if self.length > LARGEST_LIST:
            return permuted(torch.arange(start, stop), self.length, mix(self.seed, _ORDER, epoch))
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(mix(self.seed, _ORDER, epoch))
            self._permutation = torch.randperm(self.length, generator=generator)
            self._epoch = epoch
        return self._permutation[start:stop]


class Batches:
    """The rows of every batch that this rank works on, in micro-batches.

    `rank_rows` of the `batch_size` rows of a batch are this rank's; micro-batch m of them is rows
    `start(m)` to `start(m) + micro_size` of the global batch.
    """

    def __init__(
        self, split: Split, *, seed: int, batch_size: int, accumulate: int = 1, batches_per_step: int = 1,
        rank: int = 0, world_size: int = 1, workers: int = 0, device: torch.device | str = "cpu",
        read_timeout: float | None = None,
    ):  # fmt: skip
        self.split = split
        self.order = Order(len(split), seed=seed)
        self.batch_size = batch_size
        self.accumulate = accumulate
        self.batches_per_step = batches_per_step
        self.micro_size = batch_size // (world_size * accumulate)
        self.first_row = rank * (batch_size // world_size)
        self.workers = workers
        self.read_timeout = read_timeout  # seconds that a worker may take for one example
        self.device = torch.device(device)
        self._kept: dict[tuple[int, int, int], dict[str, Tensor]] = {}  # rows of the current step, by place
        self._stream: ReadAhead | None = None
        self._next_in_stream = (-1, -1, -1)

    def divide(self, parts: int) -> None:
        """Work in `parts` micro-batches from here on, or the next larger number that divides this rank's rows."""
        rows = self.accumulate * self.micro_size
        self.accumulate = next((number for number in range(parts, rows) if rows % number == 0), rows)
        self.micro_size = rows // self.accumulate
        self._kept.clear()
        self.close()

    def start(self, micro: int) -> int:
        return self.first_row + micro * self.micro_size

    def fetch(self, step: int, batch: int, micro: int) -> dict[str, Tensor]:
        """Micro-batch `micro` of the `batch`-th batch of `step`, on the device: the same tensors to every player."""
        place = (step, batch, micro)
        if place not in self._kept:
            if any(kept[0] != step for kept in self._kept):
                self._kept.clear()
            fetch = self._fetch_ahead if self.split.streams else self._fetch_now
            self._kept[place] = fetch(place)
        return self._kept[place]

    def close(self) -> None:
        """End the workers, if there are any."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _fetch_now(self, place: tuple[int, int, int]) -> dict[str, Tensor]:
        return self.split.fetch(self._positions(*place))

    def _positions(self, step: int, batch: int, micro: int) -> Tensor:
        base = (step * self.batches_per_step + batch) * self.batch_size + self.start(micro)
        return self.order.positions(base, base + self.micro_size)

    def _fetch_ahead(self, place: tuple[int, int, int]) -> dict[str, Tensor]:
        """The same rows, read ahead by worker processes; a jump (a resume, a rollback) restarts them."""
        if place != self._next_in_stream or self._stream is None:
            self.close()
            self._stream = self._read_ahead(place)
        rows = next(self._stream)
        self._next_in_stream = self._after(place)
        return {name: tensor.to(self.device, non_blocking=True) for name, tensor in rows.items()}

    def _after(self, place: tuple[int, int, int]) -> tuple[int, int, int]:
        step, batch, micro = place
        if micro + 1 < self.accumulate:
            return step, batch, micro + 1
        if batch + 1 < self.batches_per_step:
            return step, batch + 1, 0
        return step + 1, 0, 0

    def _read_ahead(self, place: tuple[int, int, int]) -> ReadAhead:
        return ReadAhead(self.split, self._places(place), workers=self.workers, patience=self.read_timeout)

    def _places(self, place: tuple[int, int, int]) -> Iterator[list[int]]:
        """The positions of every micro-batch from `place` on."""
        while True:
            yield self._positions(*place).tolist()
            place = self._after(place)
