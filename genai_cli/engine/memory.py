"""How much memory there is; and freed memory kept in the process, for which a small step takes a fifth less time."""

import ctypes
import math
import os
import sys
from collections.abc import Iterable
from pathlib import Path

import torch

from genai_cli.data.base import Spec

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # <malloc.h>
_LARGEST_BLOCK_KEPT = 32 << 20  # bytes; the most that glibc accepts on 64-bit
_SLACK_KEPT = 1 << 30  # bytes
LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))  # of a container


def memory_of(device: torch.device, limits: Iterable[Path] = LIMITS) -> float:
    """The bytes that there are on `device` for all that runs there; infinity where they cannot be known."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    try:
        installed = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):  # not on every system
        installed = float("inf")
    return min([installed, *map(_read_limit, limits)])


def _read_limit(path: Path) -> float:
    try:
        return float(path.read_text(encoding="ascii"))
    except (OSError, ValueError):  # no such file, or "max"
        return float("inf")


def bytes_of(spec: Spec) -> int:
    """The least that an example takes where a model sees it: of tokens eight bytes each, of other numbers four."""
    own = 8 * (spec.shape[0] + 1) if spec.is_tokens else 4 * math.prod(spec.shape)
    return own + (0 if spec.source is None else bytes_of(spec.source))


def keep_freed_pages() -> None:
    """Stop glibc from giving every large tensor back to the system and faulting its pages in again a step later.

    Freed blocks up to 32 MiB are reused in place of a new mapping each. Elsewhere than on glibc, do nothing.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_BLOCK_KEPT)
        mallopt(_M_TRIM_THRESHOLD, _SLACK_KEPT)
