"""glibc's malloc: keep the memory that a training step frees, since the next step needs it."""

import ctypes
import sys

# Of glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
WITHOUT_LIMIT, LARGEST_IN_OLD_GLIBC = 1 << 30, 1 << 25


def keep_freed_memory() -> bool:
    """Keep freed memory in this process; returns False where the C library is not glibc.

    By default glibc returns a step's large tensors to the system, which zeroes their pages again
    at the next step. With this call the process never shrinks.
    """
    # Both, since setting one stops glibc from raising the other.
    return any(
        _mallopt(M_MMAP_THRESHOLD, size) for size in (WITHOUT_LIMIT, LARGEST_IN_OLD_GLIBC)
    ) and _mallopt(M_TRIM_THRESHOLD, WITHOUT_LIMIT)


def return_freed_memory() -> None:
    """Return what `keep_freed_memory` kept to the system, and restore glibc's own thresholds.

    Evaluation needs other sizes, so the memory of a training step would only add to them.
    """
    if _mallopt(M_TRIM_THRESHOLD, 2 * LARGEST_IN_OLD_GLIBC):
        _mallopt(M_MMAP_THRESHOLD, LARGEST_IN_OLD_GLIBC)
        ctypes.CDLL(None).malloc_trim(0)


def _mallopt(parameter: int, value: int) -> bool:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    return mallopt is not None and bool(mallopt(parameter, value))
