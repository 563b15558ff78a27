"""What the C library does with memory that a step frees and the next one asks for again."""

import ctypes
import sys

# Of glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
WITHOUT_LIMIT, LARGEST_IN_OLD_GLIBC = 1 << 30, 1 << 25


def keep_freed_memory() -> bool:
    """Let this process keep what it frees; False where the C library is not glibc.

    By default glibc returns a step's large tensors to the system, which zeroes their pages anew
    at the next one. The process then stays as large as it has been at its largest.
    """
    # The thresholds belong together: one that is set stops glibc from raising the other.
    return any(
        _mallopt(M_MMAP_THRESHOLD, size) for size in (WITHOUT_LIMIT, LARGEST_IN_OLD_GLIBC)
    ) and _mallopt(M_TRIM_THRESHOLD, WITHOUT_LIMIT)


def return_freed_memory() -> None:
    """Give back what `keep_freed_memory` kept, and keep no more than glibc does by itself.

    After training, other sizes are asked for: holding on to a step's would only add to them.
    """
    if _mallopt(M_TRIM_THRESHOLD, 2 * LARGEST_IN_OLD_GLIBC):
        _mallopt(M_MMAP_THRESHOLD, LARGEST_IN_OLD_GLIBC)
        ctypes.CDLL(None).malloc_trim(0)


def _mallopt(parameter: int, value: int) -> bool:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    return mallopt is not None and bool(mallopt(parameter, value))
