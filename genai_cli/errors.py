"""What can end a command, and the exit code for it: the one place where exit codes are listed.

Free of torch, so that every layer may raise these and `cli.py` may report them.
"""

import errno
from enum import IntEnum
from typing import ClassVar

STORAGE_ERRORS = {
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM, errno.EFBIG, errno.ENAMETOOLONG,
    errno.ENOTDIR, errno.EISDIR,
}  # fmt: skip


class ExitCode(IntEnum):
    """What the shell learns from `genai`. Codes 2 to 11 come with one sentence a problem, never with a traceback."""

    DONE = 0
    BUG = 1  # ours: shown with its traceback
    CONFIGURATION = 2  # what was asked for cannot be
    DATA = 3  # data or a run directory missing, broken or not to be trusted
    DIVERGED = 4  # a loss or gradient was NaN or infinite
    OUT_OF_MEMORY = 5
    STORAGE = 6  # disk full, no permission, ...
    RUN_IN_USE = 7  # another process trains in this run directory
    SWEEP_FAILED = 8  # at least one job of a sweep failed; its table says which and why
    RANK_LOST = 9  # of several processes that train together, another one ended
    UNHEALTHY = 10  # the doctor found what it was told to stop at; saved
    HUNG = 11  # nothing happened for device.timeout
    INTERRUPTED = 130  # Ctrl-C
    TERMINATED = 143  # SIGTERM, after saving


class GenaiError(Exception):
    """An end that the user can do something about: the message says what, one line for each problem."""

    exit_code: ClassVar[ExitCode] = ExitCode.BUG


class ConfigError(GenaiError):
    """What the user asked for cannot be. One line for each problem, all of them at once."""

    exit_code = ExitCode.CONFIGURATION

    def __init__(self, *problems: str):
        super().__init__("\n".join(problems))
        self.problems = problems


class Diverged(GenaiError):
    """A loss, a gradient or a weight was NaN or infinite, and the policy was to stop."""

    exit_code = ExitCode.DIVERGED


class Unhealthy(GenaiError):
    """The doctor found something whose policy is to stop, or could not roll back any more."""

    exit_code = ExitCode.UNHEALTHY


class OutOfMemory(GenaiError):
    """Memory ran out where more can be said of it than `explain` knows."""

    exit_code = ExitCode.OUT_OF_MEMORY


class StorageError(GenaiError):
    """A file of the run directory cannot be written, or none of its checkpoints can be read."""

    exit_code = ExitCode.STORAGE


class RunInUse(GenaiError):
    """Another process is at work in the run directory."""

    exit_code = ExitCode.RUN_IN_USE


class RankLost(GenaiError):
    """Another of the processes that train together has ended, or cannot be reached."""

    exit_code = ExitCode.RANK_LOST


def explain(error: Exception) -> tuple[ExitCode, list[str]]:
    """The exit code for an exception, and a sentence for each of its problems; none for a bug."""
    if isinstance(error, GenaiError):
        return error.exit_code, str(error).splitlines() or [type(error).__name__]
    if is_out_of_memory(error):
        remedies = "a smaller train.batch_size, train.accumulate=auto or a larger number, or device.precision=bf16"
        return ExitCode.OUT_OF_MEMORY, [f"out of memory; try {remedies}"]
    if isinstance(error, OSError) and error.errno in STORAGE_ERRORS:
        place = f" ({error.filename})" if error.filename else ""
        return ExitCode.STORAGE, [f"storage: {error.strerror}{place}; what was saved before is whole"]
    return ExitCode.BUG, []


def is_out_of_memory(error: BaseException) -> bool:
    """Whether Python, the system, torch's allocator of a GPU or the one of the CPU had no memory to give."""
    if isinstance(error, RuntimeError) and "can't allocate memory" in str(error):
        return True  # of the CPU: a RuntimeError like any other
    is_of_system = isinstance(error, OSError) and error.errno == errno.ENOMEM
    return is_of_system or isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
