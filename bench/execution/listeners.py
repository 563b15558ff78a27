"""The interface of whoever follows a grid while it runs: progress, a tracker, a stopwatch."""

from collections.abc import Iterable

from bench.grid.expand import Row
from bench.records.store import Record
from bench.run import Run
from bench.tuning import Choice


class Listener:
    """Is called by the scheduler, in the process of the command; override what is needed.

    A run that is handed to a worker is `started`, has any number of `epoch`s and `measuring`s, and
    then one of `finished`, `found`, `held` and `dropped`.
    """

    def started(self, run: Run) -> None:
        """A worker was given this run."""

    def epoch(self, run: Run, line: dict[str, float]) -> None:
        """An epoch has ended; `line` is its line of history.jsonl."""

    def measuring(self, run: Run, how_far: str) -> None:
        """Training has ended, and the run is being measured; called every few seconds."""

    def finished(self, run: Run, record: Record) -> None:
        """This call has computed the run, whatever its status."""

    def found(self, identity: str) -> None:
        """The run with this id has a record that this call did not compute."""

    def held(self, run: Run) -> None:
        """Another process is computing this run."""

    def dropped(self, run: Run) -> None:
        """The run's worker has stopped without a record."""

    def chosen(self, row: Row, choice: Choice) -> None:
        """The search of a row has ended."""

    def say(self, text: str) -> None:
        """One line for a person."""

    def close(self) -> None:
        """No more calls follow."""


class Everyone(Listener):
    """Passes each call on to several listeners, in their order."""

    def __init__(self, listeners: Iterable[Listener]) -> None:
        self.listeners = tuple(listeners)

    def started(self, run: Run) -> None:
        for listener in self.listeners:
            listener.started(run)

    def epoch(self, run: Run, line: dict[str, float]) -> None:
        for listener in self.listeners:
            listener.epoch(run, line)

    def measuring(self, run: Run, how_far: str) -> None:
        for listener in self.listeners:
            listener.measuring(run, how_far)

    def finished(self, run: Run, record: Record) -> None:
        for listener in self.listeners:
            listener.finished(run, record)

    def found(self, identity: str) -> None:
        for listener in self.listeners:
            listener.found(identity)

    def held(self, run: Run) -> None:
        for listener in self.listeners:
            listener.held(run)

    def dropped(self, run: Run) -> None:
        for listener in self.listeners:
            listener.dropped(run)

    def chosen(self, row: Row, choice: Choice) -> None:
        for listener in self.listeners:
            listener.chosen(row, choice)

    def say(self, text: str) -> None:
        for listener in self.listeners:
            listener.say(text)

    def close(self) -> None:
        for listener in self.listeners:
            listener.close()
