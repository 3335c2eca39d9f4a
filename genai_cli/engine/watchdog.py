"""Ends a run in which nothing happens any more, and says where it stood: a lost rank, a network disk that hangs.

The parts of a run that go on for long call `beat`, and a thread looks after the beats. Time in which the whole process
was stopped (Ctrl-Z, a scheduler) does not count.
"""

import faulthandler
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from genai_cli.engine.distributed import World
from genai_cli.errors import ExitCode

_last_beat = 0.0


def beat() -> None:
    """Something went forward."""
    global _last_beat
    _last_beat = time.monotonic()


@contextmanager
def watching(timeout: float | None, folder: Path, world: World) -> Iterator[None]:
    """Within, end the process if there is no `beat` for `timeout` seconds (None: never), its stacks in `folder`."""
    if timeout is None:
        yield
        return
    ended = threading.Event()
    thread = threading.Thread(target=_watch, args=(timeout, folder, world, ended), daemon=True)
    beat()
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _watch(timeout: float, folder: Path, world: World, ended: threading.Event) -> None:
    period, stopped, looked = timeout / 20, 0.0, time.monotonic()
    last = _last_beat
    while not ended.wait(period):
        now = time.monotonic()
        if _last_beat != last:
            last, stopped = _last_beat, 0.0
        stopped += max(0.0, now - looked - 2 * period)  # this thread did not run, so neither did the others
        looked = now
        if now - last - stopped > timeout:
            _end(now - last, folder, world)


def _end(silent: float, folder: Path, world: World) -> None:
    report = folder / f"stacks-{world.rank}.txt"
    words = f"process {world.rank} of {world.size}: nothing has happened for {silent:.0f} s (device.timeout)"
    advice = f"it stood where {report} says; the same command goes on from the newest checkpoint"
    faulthandler.dump_traceback(file=2)
    print(f"genai: {words}; {advice}", file=sys.stderr, flush=True)
    world.leave_word(words)
    with suppress(OSError), open(report, "w", encoding="utf-8") as file:
        file.write(f"{words}\n\n")
        file.flush()
        faulthandler.dump_traceback(file=file)
    for child in multiprocessing.active_children():
        child.kill()
    os._exit(ExitCode.HUNG)
