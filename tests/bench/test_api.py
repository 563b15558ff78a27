"""What `from bench import …` gives."""

from pathlib import Path

import pytest

import bench
from bench import frame, load
from bench.errors import RequestError

REFERENCE = Path(__file__).resolve().parents[2] / "results" / "reference"


def test_the_runs_of_a_folder_are_a_frame() -> None:
    runs = frame(REFERENCE / "quick")
    assert len(runs) == len(list((REFERENCE / "quick" / "runs").iterdir()))
    finals = runs[runs["run.evaluation.split"] == "test"]
    means = finals.groupby("run.decoder.name")["metrics.neg_log_p"].mean()
    assert means["gaussian"] == pytest.approx(743.86, abs=0.01)


def test_a_folder_that_is_not_there_is_one_line() -> None:
    with pytest.raises(RequestError, match="no such folder"):
        frame("results/nowhere")
    with pytest.raises(RequestError, match=r"run\.json"):
        load("results/nowhere")


def test_another_name_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        _ = bench.nothing
