"""The order of runs: trials first, then one run of each unknown kind, then the longest.

The longest go first because a long run that is started last keeps all other workers idle at the
end; in the order of the file, a grid with one large model would end so every time.
"""

from collections import deque
from dataclasses import dataclass, field

from bench.execution.cost_model import CostModel, likenesses
from bench.execution.messages import Task


@dataclass
class TaskQueue:
    """Tasks that wait for a worker.

    A trial comes before a final run, since final runs wait for it. Then comes one run of each kind
    whose cost is unknown, as it may be the longest, then the run with the longest expected time.
    """

    costs: CostModel
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

    def rotate(self, share: float) -> None:
        """Begin at another place, a `share` in [0, 1) further on among tasks of equal rank."""
        order = deque(self._kinds.items())
        order.rotate(-int(share * len(order)))
        self._kinds = dict(order)
        for tasks in (self._trials, *self._kinds.values()):
            tasks.rotate(-int(share * len(tasks)))

    def pop(self) -> Task:
        """The next task to start; IndexError where none is queued."""
        if self._trials:
            return self._trials.popleft()
        kind = max(self._kinds, key=self._length, default=None)
        if kind is None:
            raise IndexError("no task is queued")
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
