"""What the scheduler and an engine exchange: tasks, messages, and the interface of an engine."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Protocol

from bench.errors import RequestError
from bench.execution.signals import Interruption
from bench.records.store import Store
from bench.run import Run

Kind = Literal[
    "epoch", "measuring", "record", "found", "held", "wrong", "full", "stopped", "left", "died"
]


@dataclass(frozen=True)
class Message:
    """What a worker reports about one attempt at a run.

    Every kind but `epoch` and `measuring` ends the attempt. The content of each kind:

    * `epoch`: a line of the history;
    * `measuring`: how far the measures of a trained run are, in words;
    * `record`: the record that the worker computed and wrote;
    * `found`: the record that another process has computed meanwhile;
    * `held`: none; another process is computing the run;
    * `wrong`: the request is wrong, in one line;
    * `full`: none; a disk is full;
    * `stopped`: none; the worker was told to stop and has written a checkpoint;
    * `left`: none; the worker's place was taken away (preempted, drained, node gone);
    * `died`: the exit code of the worker process.
    """

    kind: Kind
    run: str
    attempt: int
    content: Any = None

    @property
    def ends(self) -> bool:
        """Whether it is the attempt's last."""
        return self.kind not in ("epoch", "measuring")

    def dump(self) -> dict[str, Any]:
        """The message as JSON values."""
        return asdict(self)

    @classmethod
    def read(cls, fields: Mapping[str, Any]) -> "Message":
        """The message that `dump` wrote."""
        return cls(**fields)


@dataclass(frozen=True)
class Task:
    """A run to compute, and how its decoder options were chosen.

    `attempt` counts how often the run was handed out. A worker that was given up for lost may
    still answer, so a message counts only if it is of the current attempt.
    """

    run: Run
    selection: dict[str, Any] = field(hash=False)
    attempt: int = 1

    def next_attempt(self) -> "Task":
        return replace(self, attempt=self.attempt + 1)

    def message(self, kind: Kind, content: Any = None) -> Message:
        """A message about this attempt."""
        return Message(kind, self.run.id, self.attempt, content)

    def dump(self) -> dict[str, Any]:
        """The task as JSON values.

        The paths of the networks' weights are no part of a run's JSON, so they have a field of
        their own.
        """
        evaluation = self.run.evaluation
        networks = {"features": evaluation.features, "fvd": evaluation.fvd}
        return {
            "id": self.run.id,
            "run": self.run.model_dump(mode="json"),
            "selection": self.selection,
            "attempt": self.attempt,
            "weights": {name: network.source for name, network in networks.items() if network},
        }

    @classmethod
    def read(cls, fields: Mapping[str, Any]) -> "Task":
        """The task that `dump` wrote.

        Raises:
            RequestError: the run's model or decoder is missing here, or the installed version
                computes another id for the run.
        """
        run = dict(fields["run"])
        evaluation = dict(run["evaluation"])
        for network, source in fields["weights"].items():
            evaluation[network] = {**evaluation[network], "source": source}
        run["evaluation"] = evaluation
        task = cls(Run.read(run), fields["selection"], fields["attempt"])
        if task.run.id != fields["id"]:
            raise RequestError(
                f"run {fields['id']} has the id {task.run.id} on a worker; install the same "
                "version of sigma-bench everywhere"
            )
        return task


@dataclass(frozen=True)
class Resources:
    """What an engine may use: at most `jobs` workers at a time, on these devices.

    `threads` is the number of threads of each worker. It decides the last bits of a run, so it is
    never derived from the number of runs, jobs or cores.
    """

    devices: Sequence[str]
    jobs: int
    threads: int = 1


class Engine(Protocol):
    """Starts workers somewhere, hands them tasks and brings back their messages."""

    name: str
    """The word for it in `--engine`."""

    @property
    def free(self) -> bool:
        """Whether `give` would find, or start, an idle worker."""

    @property
    def busy(self) -> bool:
        """Whether a task was given whose last message has not been returned yet."""

    def give(self, task: Task) -> None:
        """Hand the task to an idle worker; allowed while `free`."""

    def messages(self, timeout: float | None, interruption: Interruption) -> Iterator[Message]:
        """The messages that are there, after waiting at most `timeout` seconds for the first.

        The wait also ends, without a message, when the file descriptor of `interruption` becomes
        readable; once `interruption.asked` is true the descriptor stays readable and is no longer
        waited for.
        """

    def stop(self) -> None:
        """Ask every worker to stop at its next step; the busy ones report `stopped`."""

    def close(self) -> None:
        """Stop every worker and wait for its end."""

    def kill(self) -> None:
        """End every worker now; its run continues from the last checkpoint another time."""


Launch = Callable[[Store, Resources], Engine]
"""Starts an engine for the runs of a store; an engine's class is one."""
