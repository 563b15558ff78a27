"""A grid executed without workers: a function of the runs answers for them, in a random order."""

import io
import math
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from rich.console import Console

from bench.execution.messages import Message, Resources, Task
from bench.execution.outcome import Outcome
from bench.execution.schedule import execute
from bench.execution.signals import Interruption
from bench.files import write_checked
from bench.grid.expand import Row
from bench.records.store import Store, new_record
from bench.records.validity import DIVERGED
from bench.run import Run

Score = Callable[[Run], float | None]
"""The `neg_log_p` of a run; None where it diverges."""


class Prompt:
    """An engine without workers: every task is done at once, in a random order.

    After `leave` answers it raises KeyboardInterrupt, as a second signal does.
    """

    name = "prompt"
    free = True

    def __init__(
        self, store: Store, resources: Resources, *, score: Score, seed: int, leave: float
    ) -> None:
        self.store, self.score = store, score
        self.draws, self.leave = random.Random(seed), leave
        self.tasks: list[Task] = []

    @property
    def busy(self) -> bool:
        return bool(self.tasks)

    def give(self, task: Task) -> None:
        self.tasks.append(task)

    def messages(self, timeout: float | None, interruption: Interruption) -> Iterator[Message]:
        if self.leave <= 0:
            raise KeyboardInterrupt
        self.leave -= 1
        task = self.tasks.pop(self.draws.randrange(len(self.tasks)))
        record = new_record(task.run, task.selection)
        record["cost"] = {"seconds": 1.0}
        score = self.score(task.run)
        if score is None:
            record["status"] = DIVERGED
            record["divergence"] = {"step": 1, "what": "distortion"}
        else:
            record["metrics"] = {"neg_log_p": score}
        write_checked(self.store.run_folder(task.run) / "record.json", record)
        yield task.message("record", record)

    def stop(self) -> None:
        self.tasks.clear()

    close = kill = stop


def executed(
    rows: list[Row], folder: Path, score: Score, seed: int, leave: float = math.inf
) -> Outcome:
    """What becomes of a grid `small` in a folder of results."""
    launch = partial(Prompt, score=score, seed=seed, leave=leave)
    console = Console(file=io.StringIO())
    return execute(rows, Store.open(folder, "small"), "small", ["cpu"], 8, console, launch=launch)
