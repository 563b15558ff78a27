"""Event files beside records: what they hold, and what happens without the package."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.cli.app import main
from bench.errors import RequestError
from bench.execution.tensorboard import Board
from bench.grid.expand import Row
from bench.records.store import new_record
from bench.records.validity import DIVERGED

events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
LINE = {"epoch": 0, "loss": 12.0, "rate": 2.0, "sigma": 0.5, "seconds": 1.0}


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Every curve of a run's folder as TensorBoard reads it."""
    read = events.EventAccumulator(str(folder)).Reload()
    return {
        name: [(event.step, event.value) for event in read.Scalars(name)]
        for name in read.Tags()["scalars"]
    }


def test_a_run_leaves_its_curves_and_its_measures(
    expand: Callable[..., list[Row]], tmp_path: Path
) -> None:
    run = expand(decoders=["optimal"])[0].runs[0]
    record = new_record(run, {"rule": "by hand"})
    record["metrics"] = {"neg_log_p": -12.5}
    board = Board(tmp_path / "board")
    board.epoch(run, LINE)
    board.epoch(run, {**LINE, "epoch": 1, "loss": 11.0})
    board.finished(run, record)
    assert scalars(tmp_path / "board" / f"optimal-seed0-{run.id}") == {
        "training/loss": [(1, 12.0), (2, 11.0)],
        "training/rate": [(1, 2.0), (2, 2.0)],
        "training/sigma": [(1, 0.5), (2, 0.5)],
        "test/neg_log_p": [(2, -12.5)],
    }


def test_a_divergence_leaves_its_curves(expand: Callable[..., list[Row]], tmp_path: Path) -> None:
    run = expand(decoders=["optimal"])[0].runs[0]
    board = Board(tmp_path / "board")
    board.epoch(run, LINE)
    board.finished(run, {**new_record(run, {"rule": "by hand"}), "status": DIVERGED})
    board.close()
    (folder,) = (tmp_path / "board").iterdir()
    assert set(scalars(folder)) == {"training/loss", "training/rate", "training/sigma"}


def test_a_missing_package_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "tensorboard"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(RequestError, match=r"sigma-vae-bench\[tensorboard\]"):
        Board(tmp_path)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RequestError, match="choose another folder"):
        Board(tmp_path / "file" / "board")


def test_the_option_of_run(
    write_grid: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["run", write_grid(), "--results", tmp_path / "r", "--tensorboard", tmp_path / "board",
             "--only", "decoder=optimal", "--jobs", 1]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["sigma-bench", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    (record,) = (tmp_path / "r" / "small" / "runs").glob("*/*/record.json")
    (folder,) = (tmp_path / "board" / "small").iterdir()
    assert folder.name.endswith(record.parent.name)
    curves = scalars(folder)
    history = map(json.loads, record.with_name("history.jsonl").read_text().splitlines())
    assert [value for _, value in curves["training/loss"]] == pytest.approx(
        [line["loss"] for line in history]
    )
    metrics = json.loads(record.read_text())["metrics"]
    ((epoch, value),) = curves["test/neg_log_p"]
    assert epoch == 2
    assert value == pytest.approx(metrics["neg_log_p"])
