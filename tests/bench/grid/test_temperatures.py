"""`evaluation.temperatures`: what it may be, and that a run without it is what it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from bench.grid.expand import Row, trial_run
from bench.grid.read import read_grid
from bench.run import Evaluation
from tests.refusal import refused


def wrong(path: Path, override: str) -> str:
    return refused(lambda: read_grid(str(path), [override]))


@pytest.mark.parametrize("value", [[1], [0.7, 1.0], [0.7, 0.7], [0.9999999], [*range(2, 11)]])
def test_one_repeated_or_too_many_are_refused(write_grid: Callable[..., Path], value: Any) -> None:
    message = wrong(write_grid(), f"evaluation.temperatures={value}")
    assert "expected at most 8 numbers, each once (six digits count) and not 1" in message


@pytest.mark.parametrize("value", [[0], [-0.5], [".inf"], ["warm"], 0.7])
def test_what_is_no_list_of_positive_numbers_is_refused(
    write_grid: Callable[..., Path], value: Any
) -> None:
    assert "temperatures" in wrong(write_grid(), f"evaluation.temperatures={value}")


def test_their_order_is_no_other_experiment() -> None:
    assert Evaluation(temperatures=(2, 0.7)) == Evaluation(temperatures=(0.7, 2.0))
    with pytest.raises(ValidationError):
        Evaluation(temperatures=(1.0,))


def test_a_run_without_any_says_nothing_and_one_with_them_is_another(
    expand: Callable[..., list[Row]],
) -> None:
    evaluation = {"samples": 0, "iwae": 2, "features": "none"}
    (plain, _), (warm, _) = (
        [row.runs[0] for row in expand(evaluation=chosen)]
        for chosen in (evaluation, {**evaluation, "temperatures": [2, 0.7]})
    )
    assert "temperatures" not in plain.identity["evaluation"]
    assert warm.identity["evaluation"] == {**plain.identity["evaluation"], "temperatures": [0.7, 2]}
    assert warm.id != plain.id
    assert warm.training_id == plain.training_id


def test_no_trial_of_a_search_has_them(expand: Callable[..., list[Row]]) -> None:
    tune = {"low": 0.01, "high": 1, "trials": 4}
    evaluation = {"samples": 0, "iwae": 2, "features": "none", "temperatures": [0.7]}
    (row,) = expand(decoders=[{"name": "beta", "beta": {"tune": tune}}], evaluation=evaluation)
    assert row.runs[0].evaluation.temperatures == (0.7,)
    assert trial_run(row, [0.1], 1000).evaluation.temperatures == ()


def test_a_grid_may_list_none(write_grid: Callable[..., Path]) -> None:
    grid = read_grid(str(write_grid()), ["evaluation.temperatures=[]"])
    assert grid.evaluation.temperatures == ()
