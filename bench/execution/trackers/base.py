"""What all trackers share: which numbers of a run go where, and when a run begins and ends."""

import importlib
import math
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

from bench.errors import RequestError
from bench.execution.listeners import Listener
from bench.records.store import Record
from bench.records.validity import COMPLETED
from bench.run import Run

Handle = TypeVar("Handle")


class Tracker(Listener, Generic[Handle]):
    """Tells one display about the runs of a grid that are computed.

    `training/<term>` has a value an epoch and `<split>/<metric>` one at the end, both over the
    epochs, or steps, done. A subclass says what a run is to the display: `open`, `log` and `end`.
    A run that goes on after an interruption is opened again under its old name.
    """

    def __init__(self) -> None:
        self._open: dict[str, Handle] = {}

    def open(self, run: Run) -> Handle:
        """Begin a run of the display, or go on with the one that has this run's id."""
        raise NotImplementedError

    def log(self, handle: Handle, values: Mapping[str, float], step: int) -> None:
        """Send numbers that belong to one step."""
        raise NotImplementedError

    def end(self, handle: Handle, well: bool | None) -> None:
        """No more numbers follow: the run is completed, or it is not; None: it was left."""
        raise NotImplementedError

    def epoch(self, run: Run, line: dict[str, float]) -> None:
        terms = {name: line[name] for name in line.keys() - {"epoch", "steps", "seconds"}}
        self._log(run, "training", terms, run.training.done(line))

    def finished(self, run: Run, record: Record) -> None:
        self._log(run, run.evaluation.split, record["metrics"], run.training.length)
        self.end(self._open.pop(run.id), record["status"] == COMPLETED)

    def close(self) -> None:
        """End the runs that were left before they had a record."""
        while self._open:
            self.end(self._open.popitem()[1], None)

    def _log(self, run: Run, group: str, values: Mapping[str, Any], step: int) -> None:
        if run.id not in self._open:
            self._open[run.id] = self.open(run)
        told = {f"{group}/{name}": float(value) for name, value in values.items() if _is(value)}
        if told:
            self.log(self._open[run.id], told, step)


def _is(value: object) -> bool:
    return isinstance(value, int | float) and not math.isnan(value)


def title(run: Run) -> str:
    """The name of a run in a display: readable, and no other run's.

    It is the same whenever the run is computed, so an interrupted one goes on under it.
    """
    return f"{run.decoder.name}-seed{run.seed}-{run.id}"


def settings(run: Run) -> dict[str, Any]:
    """What decides a run's numbers, and its id, for the display's list of settings."""
    return {"id": run.id, **run.model_dump(mode="json", exclude={"data"})}


def needed(module: str, tracker: str) -> Any:
    """The module of an optional package.

    Raises:
        RequestError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        raise RequestError(
            f"--track {tracker}: the package {package} is not installed; "
            f'pip install "sigma-vae-bench[{tracker}]"'
        ) from None
