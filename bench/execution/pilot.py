"""How invocations of one command share a grid: alone, or as pilots that a scheduler started.

Every invocation works on any run that has no record and no owner. Pilots are many and equal, so
they begin at different places, look ever more seldom at what others hold, and leave the end of the
grid to those that have a run.
"""

from dataclasses import dataclass, field
from pathlib import Path

import filelock

from bench.execution.signals import Interruption
from bench.records.lease import EXPIRY, beats, make_breakable, take
from bench.records.store import Record, done

PATIENCE, LONGEST_PATIENCE = 0.5, 30.0
"""Seconds between looks at runs that another process holds: at first, and after many looks."""

WATCH = ".watch"
"""The lease, in the grid's folder, of the one pilot that waits for what others hold."""


class Alone:
    """An invocation that knows of no others."""

    share = 0.0
    """Where it begins in the order of runs, in [0, 1)."""

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
    _pause: float = PATIENCE
    _computed: int = 0
    _watch: filelock.SoftFileLease = field(init=False)

    def __post_init__(self) -> None:
        self._watch = filelock.SoftFileLease(
            self.folder / WATCH, lease_duration=EXPIRY, blocking=False, thread_local=False
        )

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
