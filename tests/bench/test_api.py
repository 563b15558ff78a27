"""What `from bench import …` gives."""

import json
from pathlib import Path
from statistics import fmean

import pytest

import bench
from bench import frame, load
from bench.errors import RequestError

REFERENCE = Path(__file__).resolve().parents[2] / "results" / "reference"


def test_the_runs_of_a_folder_are_a_frame() -> None:
    runs = frame(REFERENCE / "quick")
    records = [json.loads(file.read_text()) for file in (REFERENCE / "quick").rglob("record.json")]
    assert len(runs) == len(records) == 24
    finals = runs[runs["run.evaluation.split"] == "test"]
    means = finals.groupby("run.decoder.name")["metrics.neg_log_p"].mean()
    own = [
        record["metrics"]["neg_log_p"]
        for record in records
        if record["run"]["decoder"]["name"] == "gaussian"
    ]
    assert len(own) == 3
    assert means["gaussian"] == pytest.approx(fmean(own), rel=1e-12)


def test_a_folder_that_is_not_there_is_one_line() -> None:
    with pytest.raises(RequestError, match="no such folder"):
        frame("results/nowhere")
    with pytest.raises(RequestError, match=r"run\.json"):
        load("results/nowhere")


def test_another_name_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        _ = bench.nothing
