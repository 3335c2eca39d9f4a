"""Rows that worker processes read ahead, and what is told when one of these dies, fails or never ends.

A worker notes which sample it is at before it reads it, where the parent can see it, so that every failure names the
worker and the sample. Rows are handed over in memory that all share from the start: nothing that a worker has finished
is lost, or waited for, when it dies or stands still.
"""

import itertools
import signal
import threading
import time
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, get_worker_info

from genai_cli.data.base import DataError, Split
from genai_cli.engine import faults, watchdog
from genai_cli.errors import GenaiError, OutOfMemory, is_out_of_memory

_LOOK_EVERY = 1.0  # seconds between two looks at workers that let the parent wait
_AHEAD = 2  # batches that each worker is asked for before they are needed
_NOTHING = -1.0  # in the place of a sample: the worker has none in hand


@dataclass(frozen=True)
class _Failure:
    """An exception of a worker, in the place of the rows it could not read."""

    worker: int
    position: int
    words: str
    is_explained: bool  # the words are for the user as they are
    is_memory: bool


class ReadAhead:
    """The rows at each of `places`, lists of positions of `split`, in order."""

    def __init__(self, split: Split, places: Iterable[list[int]], *, workers: int, patience: float | None):
        self.split = split
        self.patience = patience  # seconds that one sample may take; None: any time
        self.notes = torch.full((max(1, workers), 2), _NOTHING, dtype=torch.float64).share_memory_()
        self.slots: list[dict[str, Tensor]] = []  # of B rows each; batch k is in slot k % len(slots)
        if workers:
            places = iter(places)
            first = next(places)
            places = itertools.chain([first], places)
            # As many as a DataLoader has asked for, ahead of the batch that is being taken out, and that one.
            self.slots = _shared(split, rows=len(first), count=_AHEAD * workers + 1)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "This DataLoader will create")  # more workers than cores: as asked for
            loader = DataLoader(
                _Reader(split, self.notes, self.slots),
                batch_sampler=([number, *place] for number, place in enumerate(places)),  # type: ignore[arg-type]
                num_workers=workers,
                prefetch_factor=_AHEAD if workers else None,
                collate_fn=_as_it_is,
                worker_init_fn=_ignore_signals,
                timeout=_LOOK_EVERY if workers else 0,
            )
            self._stream: Iterator[Any] | None = _without_alarm(loader)
        self._workers = getattr(self._stream, "_workers", [])

    def __next__(self) -> dict[str, Tensor]:
        began = time.monotonic()
        while True:
            try:
                answer = next(self._stream)  # type: ignore[arg-type]
            except RuntimeError as error:  # of a DataLoader: a worker has ended, or time is up
                try:
                    self._look(error, began)
                except GenaiError:
                    self._kill()  # one that hangs would not end when it is asked to
                    raise
                watchdog.beat()  # this wait has a limit of its own
                continue
            if isinstance(answer, _Failure):
                raise self._told(answer)
            if isinstance(answer, int):  # of the batch, whose slot is soon another's
                return {name: tensor.clone() for name, tensor in self.slots[answer % len(self.slots)].items()}
            return answer

    def close(self) -> None:
        """End the workers. They ignore SIGTERM, so an interpreter that exits while they live would wait for ever."""
        self._stream = None  # asks them to end, and gives them some seconds
        self._kill()

    def _kill(self) -> None:
        for worker in self._workers:
            worker.kill()
            worker.join()

    def _look(self, error: RuntimeError, began: float) -> None:
        """Raise what is wrong with the workers, if anything is, after a wait for them since `began`."""
        for number, worker in enumerate(self._workers):
            if not worker.is_alive():
                raise self._death(number) from error
        if "timed out" not in str(error):
            raise error
        now = time.monotonic()
        positions, since = self.notes.unbind(1)  # of each worker
        busy = (positions != _NOTHING).nonzero().flatten().tolist()
        # One that was stopped between two samples has none in hand, and is the one not heard of for longest.
        slowest = min(busy or range(len(self._workers)), key=lambda number: since[number].item())
        waited = now - max(since[slowest].item(), began) if not busy else now - since[slowest].item()
        if self.patience is not None and waited >= self.patience:
            words = "has not ended" if busy else "has not begun, and does not answer"
            raise DataError(
                f"{self._name(slowest)} {words} after {waited:.0f} s{self._sample(slowest)}; if the storage is that "
                "slow, raise device.read_timeout"
            )

    def _death(self, number: int) -> GenaiError:
        code = self._workers[number].exitcode
        cause = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended by itself, with code {code}"
        words = f"{self._name(number)} {cause}{self._sample(number)}"
        if code == -signal.SIGBUS:
            return OutOfMemory(
                f"{words}: shared memory (/dev/shm) is full; give it more, or set device.workers=0 or a smaller "
                "train.batch_size"
            )
        memory = ", as where memory runs out (device.workers=0 needs least)" if code == -signal.SIGKILL else ""
        return DataError(f"{words}{memory}; the same command goes on from the newest checkpoint")

    def _told(self, failure: _Failure) -> GenaiError:
        words = f"{self._name(failure.worker)} failed at {self.split.name_of(failure.position)}: {failure.words}"
        if failure.is_memory:
            return OutOfMemory(f"{words}; try device.workers=0 or a smaller train.batch_size")
        return DataError(words if failure.is_explained else f"{words}; device.workers=0 shows where")

    def _name(self, number: int) -> str:
        return f"loader process {number + 1} of {len(self._workers)} (process {self._workers[number].pid})"

    def _sample(self, number: int) -> str:
        position = int(self.notes[number, 0].item())
        return f" at {self.split.name_of(position)}" if position != _NOTHING else ""


class _Reader:
    """A split in the form in which a DataLoader asks for it: the number of a batch and its positions, all at once."""

    def __init__(self, split: Split, notes: Tensor, slots: list[dict[str, Tensor]]):
        self.split = split
        self.notes = notes  # (workers, 2): the position that each is at, and since when
        self.slots = slots

    def __len__(self) -> int:
        return len(self.split)

    def __getitems__(self, request: list[int]) -> dict[str, Tensor] | int | _Failure:
        batch, *positions = request
        worker = get_worker_info()
        if worker is None:
            return self.split.fetch(torch.tensor(positions))
        slot = self.slots[batch % len(self.slots)]
        for row, position in enumerate(positions):
            self._note(worker.id, position)
            try:
                faults.point("read")
                for name, tensor in self.split.fetch(torch.tensor([position])).items():
                    slot[name][row] = tensor[0]
            except Exception as error:
                is_explained = isinstance(error, GenaiError)
                words = str(error) if is_explained else f"{type(error).__name__}: {error}"
                return _Failure(worker.id, position, words, is_explained, is_out_of_memory(error))
        self._note(worker.id, int(_NOTHING))
        return batch

    def _note(self, worker: int, position: int) -> None:
        self.notes[worker] = torch.tensor((position, time.monotonic()), dtype=torch.float64)


def _shared(split: Split, *, rows: int, count: int) -> list[dict[str, Tensor]]:
    """Room for `count` batches of as many `rows`, each like those that `split` has, in shared memory."""
    like = split.fetch(torch.tensor([0]))
    try:
        return [
            {name: tensor.new_empty(rows, *tensor.shape[1:]).share_memory_() for name, tensor in like.items()}
            for _ in range(count)
        ]
    except RuntimeError as error:
        size = count * rows * sum(tensor.nbytes for tensor in like.values())
        words = f"{size:,} bytes of shared memory (/dev/shm) for loader processes cannot be had"
        raise OutOfMemory(f"{words}; set device.workers=0 or a smaller train.batch_size") from error


def _without_alarm(loader: DataLoader) -> Iterator[Any]:
    """Its iterator, without the handler of SIGCHLD that torch installs with it.

    A worker that dies is found where its rows are waited for; the handler would raise in the middle of a save.
    """
    is_main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGCHLD) if is_main else None
    stream = iter(loader)
    if before is not None:
        signal.signal(signal.SIGCHLD, before)
    return stream


def _as_it_is(rows: Any) -> Any:
    return rows


def _ignore_signals(worker: int) -> None:
    """The parent decides when to stop: a worker that dies of the terminal's Ctrl-C would take the save with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
