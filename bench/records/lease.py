"""A lease on a run's folder: one writer a run, across processes and hosts."""

import contextlib
import os
import tempfile
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

Longer than a network share or a swapping machine stalls. A dead owner on this host is detected at
once, elsewhere after this time.
"""


@dataclass(frozen=True)
class Claim:
    """A run's folder that this process alone may write.

    `lost` says whether another process has taken it over (the machine slept, the share was gone);
    then nothing more may be written. It is cheap enough to be called before every step.
    """

    folder: Path
    lost: Callable[[], bool]


def take(lease: filelock.SoftFileLease) -> bool:
    """Acquire the lease if that needs no waiting; returns whether this process has it.

    Raises:
        RequestError: the holder is of a version with other durations.
    """
    # On file systems without an atomic exchange, the first attempt only removes a dead owner's.
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


def beats(path: Path, expiry: float) -> bool:
    """Whether the last heartbeat of the lease under `path` is younger than `expiry` seconds."""
    try:
        beat = path.stat().st_mtime
    except (FileNotFoundError, NotADirectoryError):
        return False
    # The file system dates a heartbeat, so it is asked for the present time as well: on a network
    # share the clock of this host may be minutes off.
    try:
        with tempfile.TemporaryFile(dir=path.parent) as probe:
            now = os.fstat(probe.fileno()).st_mtime
    except OSError:  # a reader of somebody else's folder may not write there
        now = time.time()
    return now - beat < expiry


def make_breakable(path: Path) -> None:
    """Write a byte into an empty lease file, so that filelock can break it.

    A crash may leave one empty, and filelock ignores empty files. The byte is the first of every
    lease, so it does no harm to one that is just being written.
    """
    with contextlib.suppress(FileNotFoundError, PermissionError), path.open("r+b", 0) as file:
        if os.fstat(file.fileno()).st_size == 0:
            file.write(b"f")


def replaced(path: Path, inode: int) -> bool:
    """Whether the lease under `path` is another file than the one that its owner has open."""
    for pause in (0.0, 0.1):
        # Another process that checks the lease's owner renames the file for an instant.
        if pause:
            time.sleep(pause)
        with contextlib.suppress(OSError):  # a share that is gone counts as lost
            if path.lstat().st_ino == inode:
                return False
    return True
