"""The picture of a run's predictions, one sheet of frames, and what a player shows of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from bench.records.frame import missing
from bench.report.images import data_uri
from bench.report.items import GIVEN, PREDICTED

STRIPS = ("truth", "best", "worst", "mean")
"""The strips of a clip in a sheet, from top to bottom; all but the first are of its rollouts."""


class Sheet(NamedTuple):
    """A sheet of square frames with a white pixel around each; a row is a strip.

    side: pixels of a frame.
    frames: in a strip; the first `given` of them are what a prediction knows.
    clips: with `len(STRIPS)` strips each.
    """

    path: Path
    side: int
    frames: int
    given: int
    clips: int

    def pixels(self) -> npt.NDArray[np.uint8]:
        """Every frame, (clips, strips, frames, side, side, 3)."""
        with Image.open(self.path) as picture:
            whole = np.asarray(picture.convert("RGB"))[1:, 1:]
        cell = self.side + 1
        parts = whole.reshape(self.clips, len(STRIPS), cell, self.frames, cell, 3)
        return np.moveaxis(parts, 3, 2)[..., : self.side, : self.side, :]


def sheet(path: Path, given: int, predicted: int) -> Sheet | None:
    """The sheet in a file; None where its size is not that of clips of so many frames."""
    frames = given + predicted
    with Image.open(path) as picture:
        width, height = picture.size
    cell, odd = divmod(width - 1, frames)
    if odd or cell < 2 or (height - 1) % (cell * len(STRIPS)) or height < cell:
        return None
    return Sheet(path, cell - 1, frames, given, (height - 1) // (cell * len(STRIPS)))


def sheet_of(folder: Path, columns: Mapping[str, Any]) -> Sheet | None:
    """The sheet that a run left in its folder, as far as it is here.

    Arguments:
        columns: of its record, by dotted path.
    """
    values: list[Any] = [columns.get(key) for key in ("artifacts.rollouts", GIVEN, PREDICTED)]
    if any(map(missing, values)):
        return None
    name, given, predicted = values
    path = folder / name
    return sheet(path, int(given), int(predicted)) if path.is_file() else None


@dataclass(frozen=True)
class Player:
    """A row's sheet for the page: its name, its geometry and its content as a data URI."""

    name: str
    sheet: Sheet

    @property
    def uri(self) -> str:
        return data_uri(self.sheet.path)
