"""Freed memory is kept, so the same allocations meet no new page, until it is given back."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import numpy as np
from bench.training.malloc import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        arrays = [np.ones(2**20) for _ in range(4)]
        del arrays
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if "kept" in sys.argv:
    assert keep_freed_memory()
faults()
print(faults())
"""

RESIDENT = """
import numpy as np
from bench.training.malloc import keep_freed_memory, return_freed_memory

def resident():
    return int(open("/proc/self/statm").read().split()[1])

assert keep_freed_memory()
before = resident()
arrays = [np.ones(2**20) for _ in range(4)]
del arrays
kept = resident()
return_freed_memory()
print(kept - before, resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator alone is told")
def test_what_is_freed_is_used_again() -> None:
    """Four arrays of 2048 pages: by default most come anew each time."""
    default, kept = (
        int(subprocess.check_output([sys.executable, "-c", PROGRAM, word]))
        for word in ("default", "kept")
    )
    assert kept < 200 < 4 * 2048 < default


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator alone is told")
def test_what_was_kept_is_given_back() -> None:
    """Pages held after four arrays of 2048 pages were freed, and after they were given back."""
    told = subprocess.check_output([sys.executable, "-c", RESIDENT])
    kept, returned = map(int, told.split())
    assert returned < 200 < 8000 < kept
