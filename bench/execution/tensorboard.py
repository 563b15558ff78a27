"""TensorBoard event files beside the records: something to watch, never the source of truth."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import RequestError
from bench.records.store import Record
from bench.run import Run

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


@dataclass
class Board:
    """Told of epochs and records by the execution; writes `<folder>/<decoder>-seed<N>-<id>/`.

    `training/<term>` has a value an epoch, `<split>/<metric>` one at the end. Runs that are found
    rather than computed write nothing.

    Raises:
        RequestError: the package is missing, or the folder cannot be written.
    """

    folder: Path
    _writers: dict[str, SummaryWriter] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            import torch.utils.tensorboard  # noqa: F401
        except ImportError:
            raise RequestError(
                "--tensorboard: the package tensorboard is not installed; "
                'pip install "sigma-vae-bench[tensorboard]"'
            ) from None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RequestError(
                f"--tensorboard {self.folder}: cannot be written ({error.strerror}); choose "
                "another folder"
            ) from None

    def epoch(self, run: Run, line: dict[str, float]) -> None:
        writer = self._writer(run)
        for name in line.keys() - {"epoch", "seconds"}:
            writer.add_scalar(f"training/{name}", line[name], int(line["epoch"]) + 1)

    def finished(self, run: Run, record: Record) -> None:
        writer = self._writer(run)
        for name, value in record["metrics"].items():
            writer.add_scalar(f"{run.evaluation.split}/{name}", value, run.training.epochs)
        self._writers.pop(run.id).close()

    def close(self) -> None:
        """Flush what interrupted runs have told."""
        for writer in self._writers.values():
            writer.close()

    def _writer(self, run: Run) -> SummaryWriter:
        from torch.utils.tensorboard import SummaryWriter

        if run.id not in self._writers:
            name = f"{run.decoder.name}-seed{run.seed}-{run.id}"
            self._writers[run.id] = SummaryWriter(str(self.folder / name))
        return self._writers[run.id]
