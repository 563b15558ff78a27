"""Ratios from paired, alternating measurements, and the row of a table that holds them."""

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Arm = Callable[[], float]
"""One measurement: does its work and returns the time, in seconds or seconds per unit."""


@dataclass(frozen=True)
class Pairs:
    """The times of both arms, pair by pair."""

    baseline: tuple[float, ...]
    ours: tuple[float, ...]

    @property
    def ratios(self) -> tuple[float, ...]:
        """Baseline / ours of each pair; above 1, ours is faster."""
        return tuple(b / o for b, o in zip(self.baseline, self.ours, strict=True))

    def as_dict(self) -> dict[str, Any]:
        return {
            "baseline_seconds": statistics.median(self.baseline),
            "ours_seconds": statistics.median(self.ours),
            "ratio": statistics.median(self.ratios),
            "lowest": min(self.ratios),
            "highest": max(self.ratios),
            "pairs": len(self.ratios),
        }

    def __str__(self) -> str:
        return f"{statistics.median(self.ratios):.2f} {spread(self.ratios, '.2f')}"


def alternate(baseline: Arm, ours: Arm, pairs: int) -> Pairs:
    """Measure both arms `pairs` times in the order A B B A …, which cancels a drift."""
    taken: dict[Arm, list[float]] = {baseline: [], ours: []}
    for pair in range(pairs):
        for arm in (ours, baseline) if pair % 2 else (baseline, ours):
            taken[arm].append(arm())
    return Pairs(tuple(taken[baseline]), tuple(taken[ours]))


def spread(values: tuple[float, ...], form: str) -> str:
    return f"({min(values):{form}}..{max(values):{form}}, {len(values)})"


@dataclass(frozen=True)
class Finding:
    """A row: what was compared, the pairs where there are two sides, and other facts.

    The unit of a fact is in its name; `note` tells them to a person.
    """

    name: str
    compares: str
    pairs: Pairs | None = None
    facts: Mapping[str, float] = field(default_factory=dict)
    note: str = ""

    def __str__(self) -> str:
        told = (f"ratio {self.pairs}" if self.pairs else "", self.note)
        return f"{self.name}: {'; '.join(filter(None, told))}"

    def as_dict(self) -> dict[str, Any]:
        measured = self.pairs.as_dict() if self.pairs else {}
        return {
            "name": self.name,
            "compares": self.compares,
            **measured,
            "facts": dict(self.facts),
            "note": self.note,
        }
