"""Every end of a command has the exit code that README.md says, and sentences for the user in place of a traceback."""

import errno
import re
from pathlib import Path

import pytest

from genai_cli.data.base import DataError
from genai_cli.errors import (
    ConfigError,
    Diverged,
    ExitCode,
    OutOfMemory,
    RankLost,
    RunInUse,
    StorageError,
    Unhealthy,
    explain,
)

README = Path(__file__).resolve().parents[1] / "README.md"
MEANINGS = {  # what the page's row of a code speaks of
    ExitCode.DONE: "done", ExitCode.BUG: "bug", ExitCode.CONFIGURATION: "configuration", ExitCode.DATA: "data",
    ExitCode.DIVERGED: "diverged", ExitCode.OUT_OF_MEMORY: "memory", ExitCode.STORAGE: "disk full",
    ExitCode.RUN_IN_USE: "another process trains in this run", ExitCode.SWEEP_FAILED: "sweep",
    ExitCode.RANK_LOST: "torchrun", ExitCode.UNHEALTHY: "doctor", ExitCode.HUNG: "device.timeout",
    ExitCode.INTERRUPTED: "Ctrl-C", ExitCode.TERMINATED: "SIGTERM",
}  # fmt: skip


def test_the_page_has_every_exit_code_and_no_other():
    table = README.read_text(encoding="utf-8").partition("## Errors and exit codes")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([\d, ]+) \| (.+) \|$", table, re.MULTILINE)
    told = {int(code): words for codes, words in rows for code in codes.split(",")}
    assert told.keys() == set(ExitCode) == MEANINGS.keys()
    for code, words in MEANINGS.items():
        assert words in told[code]


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (ConfigError, ExitCode.CONFIGURATION),
        (DataError, ExitCode.DATA),
        (Diverged, ExitCode.DIVERGED),
        (OutOfMemory, ExitCode.OUT_OF_MEMORY),
        (StorageError, ExitCode.STORAGE),
        (RunInUse, ExitCode.RUN_IN_USE),
        (RankLost, ExitCode.RANK_LOST),
        (Unhealthy, ExitCode.UNHEALTHY),
    ],
)
def test_an_error_of_ours_has_its_code_and_its_own_words(kind, code):
    assert explain(kind("what is wrong")) == (code, ["what is wrong"])


@pytest.mark.parametrize("number", ["ENOSPC", "EDQUOT", "EROFS", "EIO", "EACCES", "EPERM", "EFBIG", "ENAMETOOLONG"])
def test_what_a_file_system_refuses_is_storage(number):
    code, (line,) = explain(OSError(getattr(errno, number), "it cannot be", "checkpoints"))
    assert code == ExitCode.STORAGE and "it cannot be (checkpoints)" in line


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried to"),
    ],
)
def test_a_lack_of_memory_is_one_whoever_tells_of_it(error):
    code, (line,) = explain(error)
    assert code == ExitCode.OUT_OF_MEMORY and "train.batch_size" in line


def test_what_nobody_foresaw_is_a_bug():
    assert explain(OSError(errno.ECONNRESET, "reset")) == (ExitCode.BUG, [])
    assert explain(RuntimeError("shapes do not fit")) == (ExitCode.BUG, [])
