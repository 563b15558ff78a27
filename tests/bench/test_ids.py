"""Every committed record's run is read, and has the id that it had when it was computed."""

import json
from pathlib import Path

import pytest

from bench.run import Run

REFERENCE = Path(__file__).resolve().parents[2] / "results" / "reference"
GRIDS = sorted(path.name for path in REFERENCE.iterdir() if (path / "runs").is_dir())


@pytest.mark.parametrize("grid", [grid for grid in GRIDS if grid != "mixture"])
def test_runs_keep_their_ids(grid: str) -> None:
    paths = sorted((REFERENCE / grid / "runs").rglob("record.json"))
    assert paths
    for path in paths:
        record = json.loads(path.read_text())
        assert Run.read(record["run"]).id == record["id"], path
