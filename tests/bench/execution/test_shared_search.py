"""A value that one row's search sets for the other rows of its model, whatever interrupts it."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench import tuning
from bench.execution.outcome import INTERRUPTED, Outcome
from bench.execution.schedule import count_runs
from bench.execution.status import survey
from bench.grid.expand import Row
from bench.grid.expand import expand as expand_grid
from bench.grid.read import read_grid
from bench.records.frame import load
from bench.records.labels import row_label
from bench.records.searches import chosen_by
from bench.records.store import Record, Store
from bench.report import tables
from bench.run import Run
from tests.bench.execution.prompt import executed
from tests.refusal import refused

LR = {"low": 1e-4, "high": 1e-1, "each": "model"}
BETA = {"name": "beta", "beta": {"tune": {"low": 0.001, "high": 10}}}
GRID: dict[str, Any] = {
    "decoders": ["optimal", BETA, "gaussian"],
    "training": {"epochs": 2, "batch": 70, "lr": {"tune": LR}},
    "search": {"trials": 4, "sampler": "tpe"},
    "seeds": [0, 1],
}
Expand = Callable[..., list[Row]]


def score(run: Run) -> float:
    """Best at a learning rate of 0.003, for the β-VAE at β = 0.03."""
    beta = run.decoder.options.get("beta", 0.03)
    return math.log(run.training.lr / 0.003) ** 2 + math.log(beta / 0.03) ** 2


def go(
    rows: list[Row], folder: Path, seed: int = 0, *, leave: float = math.inf, diverging: str = ""
) -> Outcome:
    def found(run: Run) -> float | None:
        return None if run.decoder.name == diverging else score(run)

    return executed(rows, folder, found, seed, leave)


def records_of(folder: Path) -> dict[str, Record]:
    return {record["id"]: record for record in Store(folder / "small").records()}


def finals_of(folder: Path) -> dict[str, set[float]]:
    """The learning rates of the final runs, by decoder."""
    found: dict[str, set[float]] = {}
    for record in records_of(folder).values():
        run = record["run"]
        if run["evaluation"]["split"] == "test":
            found.setdefault(run["decoder"]["name"], set()).add(run["training"]["lr"])
    return found


def test_the_first_row_of_a_model_chooses_for_all_of_its_rows(
    expand: Expand, tmp_path: Path
) -> None:
    rows = expand(**GRID)
    assert [[knob.name for knob in row.knobs] for row in rows] == [["training.lr"], ["beta"], []]
    assert [[knob.name for knob in row.lent] for row in rows] == [
        [], ["training.lr"], ["training.lr"],
    ]  # fmt: skip
    outcome = go(rows, tmp_path)
    assert outcome.well
    # A search of four trials for `optimal`, one for `beta`, and three rows of two seeds.
    assert outcome.new == count_runs(rows) == 4 + 4 + 6
    first, second = sorted(
        Store(tmp_path / "small").searches(),
        key=lambda search: str(search["decoder"]["name"]),
        reverse=True,
    )
    ((lr, value),) = chosen_by(first)
    assert lr.name == "training.lr"
    assert finals_of(tmp_path) == {name: {value} for name in ("optimal", "beta", "gaussian")}
    ((beta, _),) = chosen_by(second)
    assert beta.name == "beta"
    trials = [r for r in records_of(tmp_path).values() if r["run"]["decoder"]["name"] == "beta"]
    assert {record["run"]["training"]["lr"] for record in trials} == {value}


def test_each_model_has_a_value_of_its_own(expand: Expand, tmp_path: Path) -> None:
    rows = expand(**{**GRID, "models": ["linear_vae", {"name": "linear_vae", "latent": 3}]})
    assert [row.lender for row in rows[:3]] == [None, rows[0], rows[0]]
    assert [row.lender for row in rows[3:]] == [None, rows[3], rows[3]]


def test_a_part_of_a_grid_has_the_values_of_the_whole(
    write_grid: Callable[..., Path], tmp_path: Path
) -> None:
    """The row that chooses searches without its final runs where those are not asked for."""
    grid = read_grid(str(write_grid(**GRID)))
    everything = expand_grid(grid, device="cpu", features=None, prepare=True)
    part = expand_grid(grid, device="cpu", features=None, only=["decoder=gaussian"], prepare=True)
    assert [(row_label(row).rpartition(" · ")[2], len(row.finals)) for row in part] == [
        ("optimal (lr tuned)", 0),
        ("gaussian (lr tuned)", 2),
    ]
    assert go(part, tmp_path / "part").new == 4 + 2
    go(everything, tmp_path / "whole")
    assert records_of(tmp_path / "part").items() <= records_of(tmp_path / "whole").items()
    assert go(everything, tmp_path / "part").new == 14 - 6
    assert records_of(tmp_path / "part") == records_of(tmp_path / "whole")


def test_whatever_is_left_is_done_by_the_same_command(expand: Expand, tmp_path: Path) -> None:
    rows = expand(**GRID)
    go(rows, tmp_path / "whole")
    for leave in range(1, 14):
        folder = tmp_path / str(leave)
        stopped = go(rows, folder, leave, leave=leave)
        assert (stopped.stopped, stopped.new) == (INTERRUPTED, leave)
        assert stopped.left + len(stopped.records) == 6
        states = [line.state for line in survey(rows, Store(folder / "small"))]
        assert len(states) == 14
        assert states.count("done") >= min(leave, 4)
        assert go(rows, folder, leave + 50).new == 14 - leave
        assert records_of(folder) == records_of(tmp_path / "whole")
    assert {line.state for line in survey(rows, Store(tmp_path / "whole" / "small"))} == {"done"}
    assert go(rows, tmp_path / "whole").new == 0


def test_where_nothing_works_for_the_row_that_chooses_no_row_has_runs(
    expand: Expand, tmp_path: Path
) -> None:
    rows = expand(**GRID)
    outcome = go(rows, tmp_path, diverging="optimal")
    assert (outcome.new, outcome.failed_searches, outcome.left) == (4, 1, 0)
    assert not outcome.well
    assert finals_of(tmp_path) == {}


def test_a_table_says_that_a_row_has_a_value_that_another_row_chose(
    expand: Expand, tmp_path: Path
) -> None:
    go(expand(**GRID), tmp_path)
    table = tables.build(*load([tmp_path / "small"]), "small")
    labels = [re.sub("=[0-9.]+", "=…", label) for label in table.frame["decoder"]]
    assert labels == ["gaussian (tuned, lr=…)", "beta (tuned, β=…, lr=…)", "optimal (tuned, lr=…)"]
    assert list(table.frame["settings"]) == ["", "", ""]
    assert list(table.frame["tuning_runs"]) == [0, 4, 4]
    assert int(table.frame["runs"].sum()) == 14
    caption = " ".join(table.caption)
    assert "lr: chosen on optimal, the first row of the model, for all of its rows." in caption
    assert "Spent on tuning: nothing for gaussian (tuned, lr=" in caption
    assert "4 trials, 4 runs and 4 s each for beta (tuned, " in caption


def test_the_search_is_the_same_for_whomever_it_chooses(expand: Expand) -> None:
    shared = expand(**GRID)[0]
    training = {**GRID["training"], "lr": {"tune": {**LR, "each": "row"}}}
    own = expand(**{**GRID, "training": training})[0]
    assert tuning.search_id(shared) == tuning.search_id(own)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"decoders": [{"name": "beta", "beta": {"tune": {**LR}}}]},
            "decoders.0.beta.tune.each: an option of a decoder is tuned for each row",
        ),
        ({"training": {"lr": {"tune": {**LR, "each": "grid"}}}}, "training.lr.tune.each: "),
    ],
)
def test_what_no_row_can_choose_for_others_is_refused(
    write_grid: Callable[..., Path], changes: dict[str, Any], told: str
) -> None:
    path = write_grid(**{**GRID, **changes})
    assert told in refused(lambda: read_grid(str(path)))
