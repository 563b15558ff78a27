"""The overhead of a grid over its trainings, and the gain of a second job."""

import io
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from rich.console import Console

from bench import data
from bench.evaluation.features.base import resolve
from bench.execution.listeners import Listener
from bench.execution.messages import Launch
from bench.execution.processes import Pool
from bench.execution.schedule import execute
from bench.grid.expand import Row, expand
from bench.grid.read import read_grid
from bench.grid.schema import Grid
from bench.records.store import Record, Store
from bench.run import Run
from bench.speed.pairs import Arm, Finding, alternate, spread
from bench.speed.setting import Setting
from bench.speed.workload import release
from bench.training.train import train

EPOCHS = (1, 4)
"""Epochs of two trainings; their difference gives the time of one epoch."""


class Stamps(Listener):
    """The time at which each record came, by this process's clock."""

    def __init__(self) -> None:
        self.records: list[tuple[float, Record]] = []

    def finished(self, run: Run, record: Record) -> None:
        self.records.append((time.perf_counter(), record))


def executed(
    setting: Setting,
    runs: list[Run],
    jobs: int,
    launch: Launch = Pool,
    devices: Sequence[str] = (),
) -> tuple[float, Stamps]:
    """Execute runs as `sigma-bench run` does; returns the time of the start and the records.

    Arguments:
        launch: the engine.
        devices: those that the engine wants; the setting's own by default.

    Raises:
        KeyboardInterrupt: a signal stopped it.
        RuntimeError: a run failed.
    """
    with tempfile.TemporaryDirectory(dir=setting.folder) as folder:
        stamps = Stamps()
        store = Store.open(Path(folder), "speed")
        rows = [Row((run,)) for run in runs]
        console = Console(file=io.StringIO())
        chosen = devices or [setting.device]
        start = time.perf_counter()
        outcome = execute(rows, store, "speed", chosen, jobs, console, [stamps], launch=launch)
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


def run_of_quick(setting: Setting, images: int, samples: int, epochs: int) -> Run:
    """A run of the grid `quick` with the decoder `optimal`, on so many digits."""
    changes = {
        "datasets": [digits(setting, images)],
        "models": [{"name": "conv_vae", "width": max(1, setting.size.width // 2)}],
        "training.epochs": epochs,
        "evaluation.samples": samples,
    }
    grid = read_grid("quick", [f"{key}={json.dumps(value)}" for key, value in changes.items()])
    assert isinstance(grid, Grid)
    only, network = ["decoder=optimal"], resolve("auto")
    (row,) = expand(grid, device=setting.device, features=network, only=only, prepare=True)
    return row.runs[0]


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
    template = release(setting, 2).run(setting.precision, epochs=2)
    runs = runs_of(setting, template, setting.size.run_images, setting.size.runs)
    start, stamps = executed(setting, runs, jobs=1)
    first, *others = stamps.records
    apart = between(stamps)
    added = added_to(stamps)
    per_run = statistics.median(added)
    share = sum(added) / sum(apart)
    imports = first[0] - start - first[1]["cost"]["seconds"]
    loading = max(0.0, first[1]["cost"]["seconds"] - computing(first[1]) - per_run)
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


def between(stamps: Stamps) -> list[float]:
    """The seconds of each run but the first, from record to record, of one worker."""
    return [after - before for (before, _), (after, _) in pairwise(stamps.records)]


def added_to(stamps: Stamps) -> list[float]:
    """The part of `between` that is neither training nor measuring."""
    records = [record for _, record in stamps.records[1:]]
    return [took - computing(record) for took, record in zip(between(stamps), records, strict=True)]


def computing(record: Record) -> float:
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
    # Trained and measured as in `quick`, so that the time includes the parts that use no core.
    template = run_of_quick(setting, size.shared_images, size.shared_images // 20, epochs=1)
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
