"""Faults on demand, to prove what is promised of failures; nothing happens unless GENAI_FAULT is set.

`GENAI_FAULT="storage:kill:17"` kills the process after its 17th storage operation. The form is POINT:KIND:COUNT, several
separated by commas. Points: `storage` (after each file operation of a save), `step` (before each optimizer step),
`evaluate`, `sample`, `data`; and, with the kinds nan and inf, `loss.GROUP` and `gradient.GROUP` of each `minimize`.
"""

import errno
import os
import signal
from collections import Counter

import torch
from torch import Tensor

_planned = {}
for _entry in filter(None, os.environ.get("GENAI_FAULT", "").split(",")):
    _point, _kind, _count = _entry.split(":")
    _planned[_point, int(_count)] = _kind
_seen: Counter[str] = Counter()


def point(name: str) -> None:
    """Pass the point `name`: the planned fault, if its count has come, strikes here."""
    kind = _due(name) if _planned else None
    if kind is None:
        return
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind in ("term", "int"):
        os.kill(os.getpid(), signal.SIGTERM if kind == "term" else signal.SIGINT)
    elif kind in ("enospc", "eio"):
        code = errno.ENOSPC if kind == "enospc" else errno.EIO
        raise OSError(code, os.strerror(code))
    elif kind == "oom":
        raise torch.OutOfMemoryError("out of memory (injected)")
    elif kind == "error":
        raise RuntimeError("injected error")
    else:
        raise ValueError(f"GENAI_FAULT: unknown kind {kind!r}")


def poison(name: str, value: Tensor) -> Tensor:
    """`value`, or NaN or infinity of its shape where a fault of kind nan or inf is planned at this passing."""
    kind = _due(name) if _planned else None
    if kind is None:
        return value
    return value * float(kind)


def _due(name: str) -> str | None:
    _seen[name] += 1
    return _planned.get((name, _seen[name]))
