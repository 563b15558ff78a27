"""A lease on a run's folder: one writer a run, across processes and hosts."""

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import filelock

from bench.errors import RequestError

LEASE = ".lease"
"""The file in a run's folder that names the process at work there, while one is."""

EXPIRY = 60.0
"""Seconds without a heartbeat (there are three in that time) after which a claim is taken over.

It outlasts the stalls of a network share and of a machine that swaps. Only an owner that sleeps,
or whose whole host is gone, makes anybody wait: on one host an owner's death is seen at once.
"""


@dataclass(frozen=True)
class Claim:
    """A run's folder in the hands of this process.

    `lost` says whether somebody else has taken it over (the machine slept, the share was gone);
    then nothing more may be written. It is cheap enough to be asked before every step.
    """

    folder: Path
    lost: Callable[[], bool]


def take(lease: filelock.SoftFileLease) -> bool:
    """Whether the lease is this process's now, without waiting for it."""
    # Where files cannot be exchanged, the first attempt only clears away what a dead owner left.
    for _ in range(2):
        with contextlib.suppress(filelock.Timeout):
            try:
                lease.acquire()
            except filelock.LeaseSettingsMismatch:
                raise RequestError(
                    f"{lease.lock_file} is of another version of sigma-bench; let that one finish, "
                    "or delete the file if none is at work"
                ) from None
            return True
    return False


def make_breakable(path: Path) -> None:
    """Turn a lease that a crash left empty, which filelock never breaks, into one that it does.

    The letter is the first of every lease, so it does no harm to one that is just being written.
    """
    with contextlib.suppress(FileNotFoundError, PermissionError), path.open("r+b", 0) as file:
        if os.fstat(file.fileno()).st_size == 0:
            file.write(b"f")


def replaced(path: Path, inode: int) -> bool:
    """Whether the lease under `path` is no longer the file that its owner still has open."""
    for pause in (0.0, 0.1):
        # While another process makes sure that a lease is alive, it is aside for an instant.
        if pause:
            time.sleep(pause)
        with contextlib.suppress(OSError):  # a share that is gone is as good as lost
            if path.lstat().st_ino == inode:
                return False
    return True
