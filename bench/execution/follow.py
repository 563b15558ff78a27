"""Following a grid that pilots compute: their records are the progress."""

import signal
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console

from bench.errors import RequestError
from bench.execution.launcher import Fleet, Tally
from bench.execution.listeners import Everyone, Listener
from bench.execution.messages import Message, Task
from bench.execution.outcome import Outcome
from bench.execution.pilot import Pilot
from bench.execution.progress import Progress
from bench.execution.schedule import Schedule, count_runs
from bench.execution.signals import Interruption
from bench.execution.status import read_history, survey
from bench.grid.expand import Row
from bench.records.store import done
from bench.run import Run
from bench.text import counted

MOST_PILOTS = 8
"""The most pilots that are chosen by default."""

LOOK, ASK = 2.0, 15.0
"""Seconds between looks at the records, and between questions to the batch system."""

MINUTE = 60.0
"""In this time, at most as many pilots are submitted again as work at once."""

FRUITLESS = 3
"""Submissions without an epoch, trained or measured, before the request counts as wrong."""

PARTING = 120.0
"""Seconds within which cancelled pilots should have written their checkpoints."""


def follow(
    rows: list[Row],
    fleet: Fleet,
    jobs: int | None,
    console: Console,
    listeners: Sequence[Listener] = (),
) -> Outcome:
    """Have a record for every run of `rows`, computed by `jobs` pilots.

    SIGINT and SIGTERM cancel the pilots and wait for their checkpoints. SIGHUP, as of a lost
    connection, leaves them at work.

    Raises:
        RequestError: the pilots cannot be submitted, or none of them can work.
    """
    interruption, store = Interruption(), fleet.store
    progress = PilotProgress(store.folder.name, count_runs(rows), console)
    follower = Follower(fleet, jobs or MOST_PILOTS, interruption)
    everyone = Everyone([progress, *listeners])
    schedule = Schedule(store, lambda: follower, everyone, interruption=interruption)
    fleet.forget_ended()
    before = {record["id"] for record in store.records() if done(record)}
    outcome = schedule.rows(rows)
    # A pilot may have computed a run of a search before the schedule here asks for it.
    outcome.computed = schedule.records.keys() - before
    return outcome


def submit(rows: list[Row], fleet: Fleet, jobs: int | None) -> str:
    """Start `jobs` pilots, or as many as are missing of them; returns what was done, in a line.

    Raises:
        RequestError: the pilots cannot be submitted.
    """
    left = sum(not line.settled for line in survey(rows, fleet.store))
    tally = fleet.forget_ended()
    count = min(jobs or MOST_PILOTS, left) - tally.alive
    if count <= 0:
        return f"no pilot is needed: {counted(left, 'run')} left, pilots {tally}"
    return _submitted(fleet, fleet.submit(count), count)


def _submitted(fleet: Fleet, batch: str, count: int) -> str:
    launcher = fleet.launcher
    return (
        f"{counted(count, 'pilot')} submitted as {launcher.name} job {batch}; "
        f"they print to {launcher.folder}"
    )


class PilotProgress(Progress):
    """Progress where a run is current from its first epoch on, as a pilot has it then."""

    def started(self, run: Run) -> None:
        """Nothing: it waits for a pilot."""

    def epoch(self, run: Run, line: dict[str, float]) -> None:
        if run.id not in self.current:
            super().started(run)
        super().epoch(run, line)


@dataclass
class Follower:
    """An engine whose workers are pilots: what is given to it is watched, in the fleet's store."""

    fleet: Fleet
    jobs: int
    interruption: Interruption
    name: str = field(init=False)
    _watched: dict[str, Task] = field(default_factory=dict)
    _held: set[str] = field(default_factory=set)
    _epochs: dict[str, dict[str, Any]] = field(default_factory=dict)
    _tally: Tally = field(default_factory=Tally)
    _next_question: float = 0.0
    _submissions: deque[tuple[float, int]] = field(default_factory=deque)
    _fruitless: int = 0
    _parting: float | None = None
    _left: bool = False

    def __post_init__(self) -> None:
        self.name = self.fleet.launcher.name

    @property
    def free(self) -> bool:
        return True

    @property
    def busy(self) -> bool:
        return bool(self._watched)

    def give(self, task: Task) -> None:
        self._watched[task.run.id] = task

    def messages(self, timeout: float | None, interruption: Interruption) -> Iterator[Message]:
        if self._parting is not None:
            yield from self._part()
            return
        # Asked before the look at the records: a pilot that has gone by now left them complete.
        tally = self._question()
        start = time.monotonic()
        told = list(self._look()) if self.fleet.batches else []
        spent = time.monotonic() - start
        yield from told
        if tally is not None and self._watched:
            yield from self._tend(tally)
        elif not told:
            interruption.wait(max(LOOK, 20 * spent))

    def stop(self) -> None:
        if self.interruption.number == signal.SIGHUP:
            self._left, self._parting = True, 0.0
        elif self._parting is None:
            self._parting = time.monotonic() + PARTING
            self.fleet.cancel()

    def close(self) -> None:
        """Cancel what is not needed any more; pilots that work see that nothing is left."""
        if self._parting is None:  # else that was done, and a second signal would be a second ^C
            self.fleet.cancel(queued_only=not self._watched)

    def kill(self) -> None:
        self.stop()

    # -- runs ----------------------------------------------------------------------------------

    def _look(self) -> Iterator[Message]:
        """Records and epochs that are new."""
        store = self.fleet.store
        settles = Pilot(store.folder, retried=self.fleet.retried).settles
        for identity, task in list(self._watched.items()):
            record = store.record(task.run)
            if record is not None and settles(record):
                del self._watched[identity]
                self._fruitless = 0
                self._held.discard(identity)
                yield task.message("record", record)
            elif store.held(task.run):
                self._held.add(identity)
                lines = read_history(store, task.run)
                if lines and lines[-1] != self._epochs.get(identity):
                    self._fruitless = 0
                    self._epochs[identity] = lines[-1]
                    yield task.message("epoch", lines[-1])
            else:
                self._held.discard(identity)

    def _part(self) -> Iterator[Message]:
        """Wait until cancelled pilots are gone; then nothing more is written."""
        assert self._parting is not None
        tally = Tally() if self._left else self.fleet.tally()
        if (tally is None or tally.alive) and time.monotonic() < self._parting:
            time.sleep(min(1.0, ASK))
            return
        yield from self._look()
        if tally is None or tally.alive:
            yield self._notice(f"{self.name} has not said that the pilots are gone; look at them")
        while self._watched:
            yield self._watched.popitem()[1].message("stopped")

    # -- pilots --------------------------------------------------------------------------------

    def _question(self) -> Tally | None:
        """The pilots, if it is time to ask and the batch system answers."""
        now = time.monotonic()
        if now < self._next_question:
            return None
        self._next_question = now + ASK
        return self.fleet.tally()

    def _tend(self, tally: Tally) -> Iterator[Message]:
        """Tell what has changed about the pilots, and replace those that are missing."""
        before, self._tally = self._tally, tally
        if str(tally) != str(before):
            yield self._notice(f"pilots: {tally}")
        if news := sorted(set(tally.refused) - set(before.refused)):
            last = self.fleet.last_words()
            yield self._notice(f"pilots that refused: {', '.join(news)}; {last}")
        # A pilot leaves early only where others hold all that is left.
        missing = min(self.jobs, len(self._watched)) - tally.alive
        if missing <= 0 or len(self._held) == len(self._watched):
            return
        if not tally.alive and self._fruitless >= (1 if tally.refused else FRUITLESS):
            raise RequestError(
                f"--engine {self.name}: {counted(self._fruitless, 'submission')} ended without an "
                f"epoch; {self.fleet.last_words()}"
            )
        now = time.monotonic()
        while self._submissions and self._submissions[0][0] < now - MINUTE:
            self._submissions.popleft()
        count = min(missing, self.jobs - sum(pilots for _, pilots in self._submissions))
        if count > 0:
            yield self._submit(count, now)

    def _submit(self, count: int, now: float) -> Message:
        first = not self.fleet.batches
        try:
            batch = self.fleet.submit(count)
        except RequestError as error:
            if first:
                raise
            return self._notice(f"{error}; tried again later")
        self._fruitless += 1
        if not first:
            self._submissions.append((now, count))
        again = "" if first else "in place of pilots that are gone: "
        return self._notice(again + _submitted(self.fleet, batch, count))

    @staticmethod
    def _notice(text: str) -> Message:
        return Message("notice", "", 0, text)
