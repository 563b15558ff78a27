"""The overhead of a grid over its trainings, and the gain of a second job."""

import io
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from bench import data
from bench.evaluation.features.base import resolve
from bench.execution.listeners import Listener
from bench.execution.schedule import execute
from bench.grid.expand import Row
from bench.grid.read import read_grid
from bench.grid.schema import Grid
from bench.records.store import Record, Store
from bench.run import Evaluation, Run
from bench.speed.pairs import Arm, Finding, alternate, spread
from bench.speed.setting import Setting
from bench.speed.training import run_of
from bench.training.train import train

EPOCHS = (1, 4)
"""Epochs of two trainings; their difference gives the time of one epoch."""


class Stamps(Listener):
    """The time at which each record came, by this process's clock."""

    def __init__(self) -> None:
        self.records: list[tuple[float, Record]] = []

    def finished(self, run: Run, record: Record) -> None:
        self.records.append((time.perf_counter(), record))


def executed(setting: Setting, runs: list[Run], jobs: int) -> tuple[float, Stamps]:
    """Execute runs as `sigma-bench run` does; returns the time of the start and the records.

    Raises:
        KeyboardInterrupt: a signal stopped it.
        RuntimeError: a run failed.
    """
    with tempfile.TemporaryDirectory(dir=setting.folder) as folder:
        stamps = Stamps()
        store = Store.open(Path(folder), "speed")
        rows = [Row((run,)) for run in runs]
        console = Console(file=io.StringIO())
        start = time.perf_counter()
        outcome = execute(rows, store, "speed", [setting.device], jobs, console, [stamps])
        if outcome.stopped:
            raise KeyboardInterrupt
        for _, record in stamps.records:
            if record["status"] != "completed":
                raise RuntimeError(f"a run of the measurement {record['status']}: {record}")
        return start, stamps


def digits(setting: Setting, count: int) -> str:
    """The name of a data set of `count` digits, which is made where it is missing."""
    path = setting.folder / f"digits-{count}.npz"
    if not path.exists():
        np.savez(path, images=setting.images(count).cpu().permute(0, 2, 3, 1).numpy())
    return f"npz:{path}"


def runs_of(setting: Setting, template: Run, images: int, count: int) -> list[Run]:
    """`count` runs that differ only in their seeds."""
    name = digits(setting, images)
    content = data.prepare(name).content
    return [
        template.model_copy(update={"dataset": name, "content": content, "seed": seed})
        for seed in range(count)
    ]


def overhead(setting: Setting) -> Iterator[Finding]:
    """Row `overhead`: a small real grid with one job, whose worker has to start first."""
    template = run_of(setting, setting.precision, epochs=2)
    small = template.model.model_copy(update={"width": max(1, setting.size.width // 2)})
    template = template.model_copy(update={"model": small})
    runs = runs_of(setting, template, setting.size.run_images, setting.size.runs)
    start, stamps = executed(setting, runs, jobs=1)
    first, *others = stamps.records
    apart = [
        after - before for (before, _), (after, _) in zip(stamps.records, others, strict=False)
    ]
    added = [took - _computing(record) for took, (_, record) in zip(apart, others, strict=True)]
    per_run = statistics.median(added)
    share = sum(added) / sum(apart)
    imports = first[0] - start - first[1]["cost"]["seconds"]
    loading = max(0.0, first[1]["cost"]["seconds"] - _computing(first[1]) - per_run)
    per_epoch = epoch_overhead(setting, template)
    share_of_quick = _share_of_quick(per_run, per_epoch, [record for _, record in others])
    yield Finding(
        "overhead",
        f"what is neither training nor evaluation in {len(runs)} runs of 2 epochs with one job, "
        f"half the release's width, {setting.size.run_images} images",
        None,
        {
            "seconds_per_run": per_run,
            "share_of_a_run": share,
            "share_of_quick": share_of_quick,
            "seconds_per_epoch": per_epoch,
            "seconds_of_imports": imports,
            "seconds_of_loading_data": loading,
        },
        f"a run {per_run:.3f} s {spread(tuple(added), '.3f')}, {share:.1%} of it, and at most "
        f"{share_of_quick:.1%} of one of `quick`; an epoch {per_epoch:.3f} s of that; "
        f"once a worker: imports {imports:.1f} s, data {loading:.2f} s",
    )


def _share_of_quick(per_run: float, per_epoch: float, records: Sequence[Record]) -> float:
    """An upper bound: `quick` trains this network in smaller batches and measures more."""
    quick = read_grid("quick")
    assert isinstance(quick, Grid)
    measured = records[0]["run"]["training"]["epochs"]
    trained = statistics.median(record["cost"]["training_seconds"] for record in records)
    added = per_run + (quick.training.epochs - measured) * per_epoch
    return float(added / (added + trained * quick.training.epochs / measured))


def _computing(record: Record) -> float:
    return float(record["cost"]["training_seconds"] + record["cost"]["evaluation_seconds"])


def epoch_overhead(setting: Setting, template: Run) -> float:
    """Seconds that an epoch of `train` takes beyond its steps: the slope over two trainings."""
    images = setting.images(template.training.batch)

    def beyond(epochs: int) -> float:
        wanted = template.training.model_copy(update={"epochs": epochs})
        run = template.model_copy(update={"training": wanted})
        with tempfile.TemporaryDirectory(dir=setting.folder) as folder:
            start = time.perf_counter()
            history = train(run, images, Path(folder)).history
            return time.perf_counter() - start - sum(line["seconds"] for line in history)

    few, many = EPOCHS
    slopes = [(beyond(many) - beyond(few)) / (many - few) for _ in range(setting.repeats)]
    return max(0.0, statistics.median(slopes))


def two_jobs(setting: Setting) -> Iterator[Finding]:
    """Row `two-jobs`: the same runs with two jobs and with one, each with one thread."""
    name = "two jobs"
    if setting.threads < 2:
        yield Finding(name, "two jobs / one", note="left out: this process has one core")
        return
    size = setting.size
    template = run_of(setting, setting.precision, epochs=1)
    # Trained and measured as in `quick`, so that the time includes the parts that use no core.
    network = resolve("auto")
    samples = size.shared_images // 20 if network else 0
    measured = Evaluation(
        samples=samples,
        iwae=16,
        features=network if samples else None,
        distances=("means",),
    )
    small = template.model.model_copy(update={"width": max(1, size.width // 2)})
    template = template.model_copy(update={"model": small, "evaluation": measured})
    shared = size.shared_runs
    runs = runs_of(setting, template, size.shared_images, shared + 2)

    def jobs(count: int) -> Arm:
        def arm() -> float:
            # A worker's first run waits for imports and data, so the clock starts at the first
            # record; the rest of a second worker's first run counts against two jobs.
            stamps = executed(setting, runs[: shared + count], count)[1].records
            return (stamps[-1][0] - stamps[0][0]) / shared

        return arm

    jobs(1)()  # the statistics of the real images are then in the cache
    pairs = alternate(jobs(1), jobs(2), setting.repeats)
    yield Finding(
        name,
        f"seconds a run, {shared} equal runs as in `quick` of {size.shared_images} images and one "
        "epoch: one job / two, each with one thread",
        pairs,
    )
