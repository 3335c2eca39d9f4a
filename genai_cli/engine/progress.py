"""What the terminal shows of a run: a bar with loss, speed and time left; plain lines where it is no terminal."""

import sys
import time
from contextlib import suppress
from typing import Any


class Progress:
    """`advance` after every step, `report` with each log line."""

    def __init__(self, *, first: int, total: int, unit: str, shown: bool = True):
        self.total = total
        self.unit = unit  # "images", "tokens", ...
        self.shown = shown
        self._bar: Any = None
        self._task: Any = None
        if shown and sys.stdout.isatty():
            self._bar, self._task = _bar(first, total)
            self._bar.start()

    def advance(self, step: int) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=step)

    def report(self, step: int, values: dict[str, float], *, speed: float, seconds_left: float) -> None:
        if not self.shown:
            return
        metrics = "  ".join(f"{key} {value:.4g}" for key, value in values.items() if not _is_minor(key))
        speed_text = f"{speed:,.0f} {self.unit}/s"
        if self._bar is not None:
            self._bar.update(self._task, completed=step, metrics=f"{metrics}  {speed_text}")
        else:
            left = time.strftime("%H:%M:%S", time.gmtime(seconds_left))
            _print(f"step {step}/{self.total}  {metrics}  {speed_text}  left {left}")

    def say(self, text: str) -> None:
        """A line above the bar."""
        if not self.shown:
            return
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            _print(text)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()


def _print(text: str) -> None:
    """What cannot be said costs the words, never the training: `| head` has seen enough, or a disk is full."""
    with suppress(OSError):
        print(text, flush=True)


def _is_minor(key: str) -> bool:
    return key.endswith(("gradient_norm", "learning_rate", "weight_norm")) or key.startswith("time/")


def _bar(first: int, total: int) -> tuple[Any, Any]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("step"), MofNCompleteColumn(), BarColumn(bar_width=24), TimeRemainingColumn(),
        TextColumn("{task.fields[metrics]}", markup=False), refresh_per_second=4,
    )  # fmt: skip
    return bar, bar.add_task("train", total=total, completed=first, metrics="")


class Clock:
    """Seconds per step since the last restart; the work between steps is left out by restarting after it."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self._start = time.perf_counter()
        self._steps = 0

    def tick(self) -> None:
        self._steps += 1

    def seconds_per_step(self) -> float:
        return (time.perf_counter() - self._start) / max(1, self._steps)
