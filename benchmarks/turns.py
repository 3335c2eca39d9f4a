"""Contenders that take turns, so that whatever else the machine is doing falls on all of them alike.

Each lives in a process of its own (an allocator's settings, a thread pool and an import are the whole process's) and
is held between its turns. In a turn it takes a number of steps; what counts is the mean time of one, so that work done
only now and then, such as a log line, counts too.
"""

import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from benchmarks.report import THREADS, row

_UNCOUNTED = 3  # steps at the start of a turn, while caches and threads wake up


class Turns:
    """A contender's side. It says how many parameters it trains, then calls `step_done` after every step."""

    def __init__(self, connection: Connection, *, clock: Callable[[], float]):
        self._connection = connection
        self.clock = clock  # seconds
        self._left = 0  # steps of the current turn
        self._counted = 0
        self._start = 0.0

    def ready(self, *, parameters: int) -> None:
        """Once, before the first step. Returns when the first turn comes."""
        self._connection.send(parameters)
        self._await_turn()

    def step_done(self) -> None:
        self._left -= 1
        if self._left == self._counted:
            self._start = self.clock()
        elif self._left == 0:
            self._connection.send((self.clock() - self._start) / self._counted)
            self._await_turn()

    def _await_turn(self) -> None:
        try:
            self._counted = self._connection.recv()
        except EOFError:
            sys.exit()  # the benchmark has seen enough
        self._left = self._counted + _UNCOUNTED


Contender = Callable[[Turns], None]  # trains until its turns end


@dataclass
class Timing:
    """What one contender took."""

    parameters: int
    seconds: list[float] = field(default_factory=list)  # of a step, the mean of each turn


def take_turns(contenders: dict[str, Contender], *, busy: bool, rounds: int, steps: int = 100) -> dict[str, Timing]:
    """`rounds` turns of `steps` steps for each contender, after one for nothing."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        processes, connections, timings = {}, {}, {}
        try:
            for name, contender in contenders.items():
                connections[name], theirs = context.Pipe()
                arguments = (contender, theirs, Path(folder) / name, busy)
                processes[name] = context.Process(target=_contend, args=arguments, name=name)
                processes[name].start()
                theirs.close()
                timings[name] = Timing(_receive(name, connections[name], Path(folder)))
            for number in range(rounds + 1):
                for name, connection in connections.items():
                    connection.send(steps)
                    seconds = _receive(name, connection, Path(folder))
                    if number > 0:
                        timings[name].seconds.append(seconds)
        finally:
            for connection in connections.values():
                connection.close()
            for process in processes.values():
                process.join()
    return timings


def ratio(slow: Timing, fast: Timing) -> float:
    """How many times faster: the median over rounds, of turns that were next to each other in time."""
    return statistics.median(ours / theirs for ours, theirs in zip(slow.seconds, fast.seconds, strict=True))


def rows(timings: dict[str, Timing]) -> list[dict[str, Any]]:
    """The table, in milliseconds."""
    return [row(name, [1e3 * seconds for seconds in timing.seconds]) for name, timing in timings.items()]


def apart(function: Callable[..., Any], *arguments: Any, busy: bool) -> Any:
    """What `function(*arguments)` returns, called in a process and a folder of its own."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        connection, theirs = context.Pipe()
        process = context.Process(target=_answer, args=(function, arguments, theirs, Path(folder) / "it", busy))
        process.start()
        theirs.close()
        answer = _receive("it", connection, Path(folder))
        process.join()
    return answer


def clock(busy: bool) -> Callable[[], float]:
    """In seconds. Processor time leaves out what other programs take, but also all waiting."""
    return time.process_time if busy else time.perf_counter


def _contend(contender: Contender, connection: Connection, folder: Path, busy: bool) -> None:
    _settle(folder, busy)
    contender(Turns(connection, clock=clock(busy)))


def _answer(
    function: Callable[..., Any], arguments: tuple[Any, ...], connection: Connection, folder: Path, busy: bool
) -> None:
    _settle(folder, busy)
    connection.send(function(*arguments))


def _settle(folder: Path, busy: bool) -> None:
    """In a new process: its words go to a file, and it works in a folder of its own."""
    folder.mkdir()
    words = os.open(f"{folder}.log", os.O_WRONLY | os.O_CREAT)
    os.dup2(words, sys.stdout.fileno())
    os.dup2(words, sys.stderr.fileno())
    os.chdir(folder)
    torch.set_num_threads(THREADS[busy])


def _receive(name: str, connection: Connection, folder: Path) -> Any:
    try:
        return connection.recv()
    except EOFError:
        raise RuntimeError(f"{name} ended before its time:\n{(folder / f'{name}.log').read_text()}") from None
