"""The tracker `tensorboard`: event files, by the package tensorboard alone.

torch's own writer of the same files would import torch in the process of the command.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import RequestError
from bench.execution.trackers.base import Tracker, needed, title
from bench.run import Run

if TYPE_CHECKING:
    from tensorboard.summary.writer.event_file_writer import EventFileWriter


class TensorBoard(Tracker["EventFileWriter"]):
    """Writes `<where>/<grid>/<decoder>-seed<N>-<id>/` for each run that is computed.

    Raises:
        RequestError: the package is missing, or the folder is missing or cannot be written.
    """

    def __init__(self, where: str, grid: str) -> None:
        super().__init__()
        if not where:
            raise RequestError("--track tensorboard: expected tensorboard:FOLDER")
        needed("tensorboard.summary.writer.event_file_writer", "tensorboard")
        self.folder = Path(where) / grid
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RequestError(
                f"--track tensorboard:{where}: cannot be written ({error.strerror}); choose "
                "another folder"
            ) from None

    def open(self, run: Run) -> "EventFileWriter":
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        return EventFileWriter(str(self.folder / title(run)))

    def log(self, handle: "EventFileWriter", values: Mapping[str, float], step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        scalars: list[Any] = [
            Summary.Value(tag=name, simple_value=value) for name, value in values.items()
        ]
        summary = Summary(value=scalars)
        handle.add_event(Event(wall_time=time.time(), step=step, summary=summary))

    def end(self, handle: "EventFileWriter", well: bool | None) -> None:
        handle.close()
