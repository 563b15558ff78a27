"""What a run should cost, from the finished runs most like it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.files import canonical_json
from bench.records.store import Record
from bench.records.validity import COMPLETED
from bench.run import Run


@dataclass
class CostModel:
    """Mean run times of the records that were added, by likeness."""

    _added: list[tuple[Mapping[str, Any], float]] = field(default_factory=list)
    _sums: dict[str, tuple[float, int]] = field(default_factory=dict)

    def add(self, record: Record) -> None:
        # Summed up only when a mean is wanted, which it never is where every run has a record.
        if record["status"] == COMPLETED:
            self._added.append((record["run"], record["cost"]["seconds"]))

    def mean(self, likeness: str) -> float | None:
        """The mean seconds of the finished runs of this likeness; None before any has finished."""
        while self._added:
            run, seconds = self._added.pop()
            for each in likenesses(run):
                total, count = self._sums.get(each, (0.0, 0))
                self._sums[each] = total + seconds, count + 1
        total, count = self._sums.get(likeness, (0.0, 0))
        return total / count if count else None

    def of(self, run: Run) -> float | None:
        """The mean seconds of the finished runs most like `run`; None before any has finished."""
        return self.of_any(likenesses(run.model_dump(mode="json")))

    def of_any(self, wanted: tuple[str, ...]) -> float | None:
        """The mean seconds of the first of these likenesses that a finished run has."""
        return next((mean for each in wanted if (mean := self.mean(each)) is not None), None)


def likenesses(run: Mapping[str, Any]) -> tuple[str, ...]:
    """What runs of similar cost have in common, the closest first; `run` as a record has it."""
    size = [run[key] for key in ("content", "model", "training", "evaluation")]
    likenesses = ([*size, run["decoder"]["name"]], size, run["evaluation"]["split"])
    return tuple(map(canonical_json, likenesses))
