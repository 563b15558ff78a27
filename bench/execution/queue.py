"""The order of runs: chains first, then what is unknown, then the longest."""

from collections import deque
from dataclasses import dataclass, field

from bench.execution.cost_model import Costs, likenesses
from bench.execution.messages import Task


@dataclass
class Waiting:
    """Tasks that wait for a worker.

    A trial comes before a final run, since others wait for it. Among equals a kind of run whose
    cost nobody knows yet comes first, once, as it may be the longest; then the longest that is
    known: what is long and begun late keeps all other workers waiting at the end.
    """

    costs: Costs
    _trials: deque[Task] = field(default_factory=deque)
    _kinds: dict[tuple[str, ...], deque[Task]] = field(default_factory=dict)
    _tried: set[tuple[str, ...]] = field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self._trials or self._kinds)

    def push(self, task: Task) -> None:
        if task.selection["rule"] == "trial":
            self._trials.append(task)
        else:
            kind = likenesses(task.run.model_dump(mode="json"))
            self._kinds.setdefault(kind, deque()).append(task)

    def pop(self) -> Task:
        """The next to begin; IndexError where none waits."""
        if self._trials:
            return self._trials.popleft()
        kind = max(self._kinds, key=self._length, default=None)
        if kind is None:
            raise IndexError("nothing waits")
        self._tried.add(kind)
        tasks = self._kinds[kind]
        task = tasks.popleft()
        if not tasks:
            del self._kinds[kind]
        return task

    def _length(self, kind: tuple[str, ...]) -> float:
        if self.costs.mean(kind[0]) is None and kind not in self._tried:
            return float("inf")
        return self.costs.of_any(kind) or 0.0
