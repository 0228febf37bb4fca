"""Memory for tensors: what was freed is kept for the next one.

glibc gives large blocks back to the system when they are freed, and the next tensor of that size is made of new
pages, each of which has to be cleared first: up to half of the time, where the same tensors come and go in every step.
"""

from __future__ import annotations

import ctypes
from functools import cache

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)
KEPT = 2**30
"""Bytes that may lie unused before they are given back, and size of a block that is given back at once."""
MOST_OF_OLD = 2**25
"""The largest such size that glibc before 2.35 knows."""


@cache
def keep_freed_memory() -> bool:
    """Tell the C library to keep freed memory for the rest of the process; whether it could be told (glibc)."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    kept = bool(mallopt(M_TRIM_THRESHOLD, KEPT))
    return bool(mallopt(M_MMAP_THRESHOLD, KEPT) or mallopt(M_MMAP_THRESHOLD, MOST_OF_OLD)) and kept
