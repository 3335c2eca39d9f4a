"""SIGTERM and Ctrl-C end a run at the next safe place, saved; a second Ctrl-C ends it at once."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from genai_cli.errors import ExitCode


class Interruption(BaseException):
    """Raised by a signal within `Signals.interruptible`: work that may be abandoned and done again is abandoned."""


class Signals:
    """While installed, remembers the signal that asked the run to stop."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._interruptible = False

    @contextmanager
    def installed(self) -> Iterator["Signals"]:
        """Handle SIGINT and SIGTERM within; put back what was there before."""
        previous = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Within, a signal raises Interruption, once; one that came before does so at once.

        It may strike between any two instructions: what must be put back afterwards (weights, modes) belongs outside.
        """
        try:
            self._interruptible = True
            if self.received is not None:
                raise Interruption
            yield
        finally:
            self._interruptible = False

    @property
    def exit_code(self) -> ExitCode:
        return ExitCode.INTERRUPTED if self.received == signal.SIGINT else ExitCode.TERMINATED

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received == signal.SIGINT == number:
            os._exit(ExitCode.INTERRUPTED)  # asked twice: the newest committed checkpoint stands
        self.received = number
        if self._interruptible:
            self._interruptible = False  # a further signal must not strike the save that follows
            raise Interruption
