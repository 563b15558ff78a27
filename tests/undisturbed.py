"""What runs leave on disk where nothing disturbs them, to compare with what others left."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench.execution.chains import BY_HAND
from bench.execution.messages import Task
from bench.execution.worker import Worker
from bench.grid.expand import Row
from bench.records.store import Store
from bench.run import Run

Left = dict[str, dict[str, Any]]
"""By id: the record but for what a clock decides, the bytes of the weights, the files' names."""


def left(rows: Iterable[Row], store: Store) -> Left:
    """What the finished runs of rows have left in a store."""
    runs = [run for row in rows for run in row.runs]
    return {run.id: _left(run, store) for run in runs if store.record(run)}


def _left(run: Run, store: Store) -> dict[str, Any]:
    folder, record = store.run_folder(run), store.record(run)
    assert record is not None
    return {
        **{key: value for key, value in record.items() if key not in ("cost", "checksum")},
        "weights": (folder / "weights.safetensors").read_bytes(),
        "files": sorted(path.name for path in folder.rglob("*") if path.name[0] != "."),
    }


class Undisturbed:
    """Computes runs in this process, each once, and tells what they left."""

    def __init__(self, folder: Path) -> None:
        self.store, self.worker = Store.open(folder, "small"), Worker("cpu")

    def __call__(self, rows: list[Row]) -> Left:
        for run in (run for row in rows for run in row.runs):
            self.worker.attempt(Task(run, BY_HAND), self.store, lambda message: None)
        return left(rows, self.store)
