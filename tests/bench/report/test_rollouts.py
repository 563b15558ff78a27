from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.report.rollouts import sheet, sheet_of
from tests.bench.report.conftest import sheet as png


def coded(clips: int = 2, frames: int = 7, side: int = 3) -> np.ndarray:
    """Frames of one grey each, which says where they belong."""
    clip, strip, frame = np.ogrid[:clips, :4, :frames]
    greys = (100 * clip + 20 * strip + frame).astype(np.uint8)
    return np.broadcast_to(greys[..., None, None], (clips, 4, frames, side, side)).copy()


@pytest.mark.parametrize(("clips", "frames", "side"), [(1, 2, 1), (2, 7, 3), (1, 15, 32)])
def test_every_frame_is_found_in_its_place(
    tmp_path: Path, clips: int, frames: int, side: int
) -> None:
    path, made = tmp_path / "sheet.png", coded(clips, frames, side)
    path.write_bytes(png(made))
    found = sheet(path, 1, frames - 1)
    assert found is not None
    assert (found.side, found.frames, found.given, found.clips) == (side, frames, 1, clips)
    assert np.array_equal(found.pixels(), np.stack([made] * 3, axis=-1))


def test_a_picture_of_other_frames_is_no_sheet(tmp_path: Path) -> None:
    path = tmp_path / "sheet.png"
    path.write_bytes(png(coded(2, 7)))
    assert sheet(path, 3, 5) is None
    path.write_bytes(png(coded(2, 7)[:, :3]))
    assert sheet(path, 3, 4) is None


def test_what_is_not_there_is_none(tmp_path: Path) -> None:
    columns = {
        "artifacts.rollouts": "sheet.png",
        "protocol.prediction.given": 3.0,
        "protocol.prediction.predicted": 4.0,
    }
    assert sheet_of(tmp_path, columns) is None
    (tmp_path / "sheet.png").write_bytes(png(coded(2, 7)))
    assert sheet_of(tmp_path, columns) is not None
    for name in columns:
        assert sheet_of(tmp_path, columns | {name: float("nan")}) is None
