"""How invocations of one command share a grid: alone, or as pilots that a scheduler started.

Every invocation works on any run that has no record and no owner. Pilots are many and equal, so
they begin at different places, look ever more seldom at what others hold, and leave the end of the
grid to those that have a run.
"""

import os
import signal
from dataclasses import dataclass, field
from pathlib import Path

import filelock

from bench.errors import RequestError
from bench.execution.code import code_digest
from bench.execution.signals import Interruption
from bench.files import read_checked
from bench.records.lease import EXPIRY, beats, make_breakable, take
from bench.records.store import Record, done

PATIENCE, LONGEST_PATIENCE = 0.5, 30.0
"""Seconds between looks at runs that another process holds: at first, and after many looks."""

WATCH = ".watch"
"""The lease, in the grid's folder, of the one pilot that waits for what others hold."""

ORDERS = "SIGMA_BENCH_ORDERS"
"""The environment variable of a pilot that names the file of its batch."""

LIMIT = signal.SIGUSR1
"""The signal that a pilot's time limit is near: it writes checkpoints and queues itself again."""


class Alone:
    """An invocation that knows of no others."""

    share = 0.0
    """Where it begins in the order of runs, in [0, 1)."""

    signals: tuple[int, ...] = ()
    """What stops it beside the usual signals."""

    def settles(self, record: Record) -> bool:
        """Whether a record that this invocation found leaves nothing to compute."""
        return done(record)

    def wait(self, interruption: Interruption, computed: int) -> bool:
        """Wait before the next look at what others hold; False where nobody need look again.

        `computed` is the number of runs that this invocation has computed so far.
        """
        interruption.wait(PATIENCE)
        return True


@dataclass
class Pilot(Alone):
    """One of many invocations that were started together on the grid under `folder`.

    `retried` has the checksums of the records of failure that are to be tried again. Another
    record of failure is younger, and that another pilot's try failed is known then. None: all are
    tried again.
    """

    folder: Path
    share: float = 0.0
    retried: frozenset[str] | None = None
    signals: tuple[int, ...] = (LIMIT,)
    _pause: float = PATIENCE
    _computed: int = 0
    _watch: filelock.SoftFileLease = field(init=False)

    def __post_init__(self) -> None:
        self._watch = filelock.SoftFileLease(
            self.folder / WATCH, lease_duration=EXPIRY, blocking=False, thread_local=False
        )

    @classmethod
    def ordered(cls, folder: Path, share: float) -> "Pilot":
        """The pilot that this process is, by the orders that a launcher left for it, if any.

        Raises:
            RequestError: this node does not see the submission's folder, or has other code.
        """
        path = os.environ.get(ORDERS)
        if not path:
            return cls(folder, share)
        orders = read_checked(Path(path))
        if orders is None:
            raise RequestError(
                f"{path} is not on this node; --results must be a folder that all nodes share"
            )
        if orders["code"] != code_digest():
            raise RequestError(
                "the code of sigma-bench here is not that of the submission; submit again, with "
                "the same version on every node"
            )
        return cls(folder, share, frozenset(orders["retried"]))

    def settles(self, record: Record) -> bool:
        return done(record) or not (self.retried is None or record["checksum"] in self.retried)

    def wait(self, interruption: Interruption, computed: int) -> bool:
        """Wait as the only pilot that does; False where another one waits already.

        The owners of what is left may die, so one pilot must stay.
        """
        if computed > self._computed:
            self._computed, self._pause = computed, PATIENCE
        pause, self._pause = self._pause, min(2 * self._pause, LONGEST_PATIENCE)
        if take(self._watch):
            try:
                interruption.wait(pause)
            finally:
                self._watch.release()
            return True
        path = self.folder / WATCH
        make_breakable(path)
        if beats(path, EXPIRY):
            return False
        interruption.wait(pause)  # its owner's machine is gone, and the lease will be taken over
        return True
