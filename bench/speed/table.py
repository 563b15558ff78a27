"""Measuring the rows in their order, and the table that shows them."""

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.devices import cores
from bench.errors import RequestError, nearest
from bench.execution import environment
from bench.execution.processes import environment_with
from bench.processor import threads
from bench.speed.pairs import Finding
from bench.speed.setting import FULL, Setting, Size

Measurement = Callable[[Setting], Iterator[Finding]]


@dataclass(frozen=True)
class Speed:
    """The measured rows, and the environment."""

    environment: Mapping[str, Any]
    findings: Sequence[Finding]

    def as_dict(self) -> dict[str, Any]:
        rows = [finding.as_dict() for finding in self.findings]
        return {"environment": dict(self.environment), "rows": rows}

    def cells(self) -> list[tuple[str, ...]]:
        """A line a row: name, baseline, ours, ratio, and what the two are."""
        lines = []
        for finding in self.findings:
            pairs = finding.pairs
            numbers = pairs.as_dict() if pairs else {}
            both = ("baseline_seconds", "ours_seconds")
            taken = [seconds(numbers[side]) if numbers else "-" for side in both]
            lines.append((finding.name, *taken, str(pairs or "-"), finding.compares))
        return lines

    def notes(self) -> list[str]:
        return [f"{finding.name}: {finding.note}" for finding in self.findings if finding.note]


def seconds(value: float) -> str:
    """`1.23 s`, `45.6 ms`, `7.89 µs`, `12.3 ps`: three digits and the unit that fits."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e-12:.3g} ps"


def rows() -> dict[str, Measurement]:
    """The rows by the names that `--only` takes, in their order."""
    # The BLAS of pytorch-fid and SciPy reads it when it is loaded. Workers have one thread, since
    # next to a busy process several take minutes for what one does in seconds.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    from bench.speed import distance, engines, evaluation, grids, training

    return {
        "training": training.loop,
        "models": training.models,
        "arithmetic": training.arithmetic,
        "distance": distance.distance,
        "features": distance.features,
        "evaluation": evaluation.evaluation,
        "overhead": grids.overhead,
        "engines": engines.engines,
        "two-jobs": grids.two_jobs,
    }


def measure(
    only: Sequence[str],
    device: str,
    repeats: int,
    say: Callable[[str], None],
    size: Size | None = None,
) -> Speed:
    """Measure the rows that `only` names, or all, with `repeats` pairs each, on `device`.

    Nothing stays on disk; `say` gets a line before a row is measured and one for each finding, so
    that one who stops the command keeps what it found.

    Raises:
        RequestError: a name that is no row's.
    """
    known = rows()
    for name in only:
        if name not in known:
            raise RequestError(f"--only {name}: {nearest(name, list(known))}")
    findings: list[Finding] = []
    with tempfile.TemporaryDirectory(prefix="sigma-bench-speed-") as folder, threads(cores()):
        setting = Setting(device, repeats, cores(), size or FULL, Path(folder))
        # This process and its workers have a cache of their own.
        with environment_with({"SIGMA_BENCH_CACHE": str(Path(folder) / "cache")}):
            described = {**environment.describe(device), "precision": setting.precision}
            for name, row in known.items():
                if not only or name in only:
                    say(f"measuring: {name}")
                    for finding in row(setting):
                        findings.append(finding)
                        say(f"measured: {finding}")
    return Speed(described, findings)
