"""What is known once a grid has run, or was stopped."""

from dataclasses import dataclass, field

from bench.records.store import Record
from bench.records.validity import COMPLETED, DIVERGED, FAILED
from bench.text import counted

INTERRUPTED, DISK_FULL = "interrupted", "the disk is full"
HELD = "other pilots compute what is left"
"""Why an `Outcome` was `stopped`."""


@dataclass
class Outcome:
    """The final runs that were asked for, with their records.

    `computed` has the ids of the runs that this call computed, trials among them, and
    `failed_searches` counts the searches that found no value that works. `left` final runs have no
    record; `stopped` says why, and is empty where every run has one. `signal` is the number of the
    signal that came, or 0.
    """

    records: dict[str, Record] = field(default_factory=dict)
    computed: set[str] = field(default_factory=set)
    failed_searches: int = 0
    left: int = 0
    stopped: str = ""
    signal: int = 0

    @property
    def new(self) -> int:
        """How many runs this call computed."""
        return len(self.computed)

    def count(self, status: str) -> int:
        return sum(record["status"] == status for record in self.records.values())

    @property
    def well(self) -> bool:
        """Nothing is left, no run failed, and every search found a value that works."""
        return not (self.left or self.count(FAILED) or self.failed_searches)

    def summary(self) -> str:
        finals = len(self.computed & self.records.keys())
        trials = self.new - finals
        searches = f", {self.failed_searches} searches found no value that works"
        return (
            f"{counted(self.count(COMPLETED), 'run')} done, {self.count(FAILED)} failed, "
            f"{self.count(DIVERGED)} diverged, {self.left} left, {finals} computed now"
            + (f" and {counted(trials, 'trial')}" if trials else "")
            + (searches if self.failed_searches else "")
        )
