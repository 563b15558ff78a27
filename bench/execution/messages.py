"""What the scheduler and its workers say to each other."""

from dataclasses import dataclass, field
from typing import Any, Literal

from bench.run import Run

Kind = Literal["epoch", "record", "found", "held", "wrong", "full", "stopped", "died"]


@dataclass(frozen=True)
class Task:
    """A run to execute, and how its decoder options were chosen."""

    run: Run
    selection: dict[str, Any] = field(hash=False)


@dataclass(frozen=True)
class Message:
    """What a worker says of its task.

    `epoch` a line of history, `record` what it computed, `found` what another process had computed,
    `held` that another process is at it, `wrong` why the request is, `full` that the disk is,
    `stopped` that it was asked to, `died` the exit code.
    """

    kind: Kind
    task: Task
    content: Any = None
