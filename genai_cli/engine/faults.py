"""Faults on demand, to prove what is promised of failures; nothing happens unless GENAI_FAULT is set.

`GENAI_FAULT="storage:kill:17"` kills the process after its 17th storage operation. The form is POINT:KIND:COUNT,
several separated by commas. Points: `storage` (after each file operation of a save), `step` (before each optimizer
step), `evaluate`, `sample`, `data`, `read` (of one example, by a loader process), and `loss.GROUP` and
`gradient.GROUP` of each `minimize`, where the kinds nan and inf may strike too.
"""

import errno
import os
import signal
import time
from collections import Counter

import torch
from torch import Tensor

_planned: dict[tuple[str, int], str] = {}
_seen: Counter[str] = Counter()


def plan(text: str) -> None:
    """Plan the faults of `text` in place of those before, and count from zero."""
    _planned.clear()
    _seen.clear()
    for entry in filter(None, text.split(",")):
        name, kind, count = entry.split(":")
        _planned[name, int(count)] = kind


def point(name: str) -> None:
    """Pass the point `name`: the planned fault, if its count has come, strikes here."""
    kind = _due(name) if _planned else None
    if kind is not None:
        _strike(kind)


def poison(name: str, value: Tensor) -> Tensor:
    """Pass the point `name` with `value`: returned as it is, or as NaN or infinity where such a fault is planned."""
    kind = _due(name) if _planned else None
    if kind in ("nan", "inf"):
        return value * float(kind)
    if kind is not None:
        _strike(kind)
    return value


def _due(name: str) -> str | None:
    _seen[name] += 1
    return _planned.get((name, _seen[name]))


def _strike(kind: str) -> None:
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind in ("term", "int", "stop"):
        os.kill(os.getpid(), {"term": signal.SIGTERM, "int": signal.SIGINT, "stop": signal.SIGSTOP}[kind])
    elif kind in ("enospc", "eio"):
        code = errno.ENOSPC if kind == "enospc" else errno.EIO
        raise OSError(code, os.strerror(code))
    elif kind == "oom":
        raise torch.OutOfMemoryError("out of memory (injected)")
    elif kind == "exit":
        os._exit(1)
    elif kind == "hang":
        while True:
            time.sleep(1)
    elif kind == "error":
        raise RuntimeError("injected error")
    else:
        raise ValueError(f"GENAI_FAULT: unknown kind {kind!r}")


plan(os.environ.get("GENAI_FAULT", ""))
