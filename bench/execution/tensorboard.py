"""TensorBoard event files of the runs that are computed; nothing reads them back."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import RequestError
from bench.execution.listeners import Listener
from bench.records.store import Record
from bench.run import Run

if TYPE_CHECKING:
    from tensorboard.summary.writer.event_file_writer import EventFileWriter


@dataclass
class Board(Listener):
    """Writes `<folder>/<decoder>-seed<N>-<id>/` for each run that is computed.

    `training/<term>` has a value an epoch, `<split>/<metric>` one at the end. The files are written
    by the package tensorboard alone, as torch's own writer would import torch in the parent.

    Raises:
        RequestError: the package is missing, or the folder cannot be written.
    """

    folder: Path
    _writers: dict[str, "EventFileWriter"] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            import tensorboard.summary.writer.event_file_writer  # noqa: F401  (an optional package)
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
        terms = {name: line[name] for name in line.keys() - {"epoch", "steps", "seconds"}}
        self._write(run, "training", terms, run.training.done(line))

    def finished(self, run: Run, record: Record) -> None:
        self._write(run, run.evaluation.split, record["metrics"], run.training.length)
        self._writers.pop(run.id).close()

    def close(self) -> None:
        """Flush the files of interrupted runs."""
        for writer in self._writers.values():
            writer.close()

    def _write(self, run: Run, group: str, values: dict[str, float], step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        if run.id not in self._writers:
            name = f"{run.decoder.name}-seed{run.seed}-{run.id}"
            self._writers[run.id] = EventFileWriter(str(self.folder / name))
        scalars = [
            Summary.Value(tag=f"{group}/{name}", simple_value=value)
            for name, value in values.items()
        ]
        event = Event(wall_time=time.time(), step=step, summary=Summary(value=scalars))
        self._writers[run.id].add_event(event)
