"""The key `balances`: an axis beside the decoders, whose entries may be for some of them only."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.files import write_checked
from bench.grid.expand import Row
from bench.grid.expand import expand as expand_grid
from bench.grid.read import read_grid
from bench.grid.schema import Grid
from bench.records.frame import load
from bench.records.labels import row_label
from bench.records.store import Store, new_record
from bench.report import run_pages, tables
from bench.report.findings import findings
from tests.refusal import refused

Write = Callable[..., Path]
Call = Callable[..., tuple[int, str, str]]

OWN = '''
import torch
from baselines.balances.base import Balance
from baselines.options import Positive, balance


@balance("constant")
class Constant(Balance):
    """A weight that never moves."""
    value: Positive = 1.0

    def weigh(self, batch, state, step):
        return batch.distortion.new_tensor(self.value), {}


@balance("priced")
class Priced(Constant):
    """The same, said to decide what an error costs."""
    sets_scale = True
'''
CONSTANT = {"name": "constant", "value": 0.5}
TUNED = {"name": "constant", "value": {"tune": {"low": 0.1, "high": 10}}}


@pytest.fixture
def write(write_grid: Write, tmp_path: Path) -> Write:
    """Write a grid that knows two balances of its own."""
    (tmp_path / "own.py").write_text(OWN)

    def own(**changes: Any) -> Path:
        return write_grid(plugins=["own.py"], **changes)

    return own


def rows_of(grid: Grid, *only: str) -> list[Row]:
    return expand_grid(grid, device="cpu", features=None, only=only, prepare=True)


def pairs(rows: list[Row]) -> list[tuple[str, str]]:
    return [(row.runs[0].decoder.name, row.runs[0].balance.name) for row in rows]


def test_each_decoder_is_under_each_balance_that_takes_it(write: Write) -> None:
    balances = ["elbo", {**CONSTANT, "decoders": ["gaussian"]}, {"name": "constant", "value": 2}]
    grid = read_grid(str(write(balances=balances, seeds=[0, 1])))
    rows = rows_of(grid)
    assert pairs(rows) == [
        ("gaussian", "elbo"),
        ("gaussian", "constant"),
        ("gaussian", "constant"),
        ("optimal", "elbo"),
        ("optimal", "constant"),
    ]
    assert grid.finals == sum(len(row.runs) for row in rows) == 10
    assert len({run.id for row in rows for run in row.runs}) == 10
    assert [row_label(row).rpartition(" · ")[2] for row in rows] == [
        *("gaussian", "gaussian + constant (value=0.5)", "gaussian + constant (value=2)"),
        *("optimal", "optimal + constant (value=2)"),
    ]
    assert pairs(rows_of(grid, "balance=elbo")) == [("gaussian", "elbo"), ("optimal", "elbo")]
    assert pairs(rows_of(grid, "balance=constant", "decoder=optimal")) == [("optimal", "constant")]
    assert "no run of grid 'small' fits" in refused(lambda: rows_of(grid, "balance=none"))


def test_a_grid_without_balances_has_the_runs_that_it_had(write: Write, write_grid: Write) -> None:
    plain = rows_of(read_grid(str(write_grid())))
    named = rows_of(read_grid(str(write(balances=["elbo"]))))
    assert [row.runs[0].id for row in plain] == [row.runs[0].id for row in named]
    assert [row_label(row) for row in plain] == [row_label(row) for row in named]


def test_an_option_of_a_balance_is_tuned_with_those_of_the_decoder(write: Write) -> None:
    beta = {"name": "beta", "beta": {"tune": {"low": 0.01, "high": 1}}}
    decoders, balances = ["gaussian", beta], ["elbo", TUNED]
    path = write(decoders=decoders, balances=balances, search={"trials": 4})
    rows = rows_of(read_grid(str(path)))
    assert [[knob.name for knob in row.knobs] for row in rows] == [
        [], ["balance.value"], ["beta"], ["beta", "balance.value"],
    ]  # fmt: skip
    assert row_label(rows[-1]).rpartition(" · ")[2] == "beta (β tuned) + constant (value tuned)"
    own = {"tune": {"low": 0.1, "high": 10, "trials": 9}}
    clash = write(decoders=decoders, balances=[{"name": "constant", "value": own}],
                  search={"trials": 4})  # fmt: skip
    assert "is tuned together with 'beta', whose search is another one" in refused(
        lambda: read_grid(str(clash))
    )
    apart = [{"name": "constant", "value": own, "decoders": ["gaussian"]}, "elbo"]
    read_grid(str(write(decoders=decoders, balances=apart, search={"trials": 4})))


@pytest.mark.parametrize(
    ("balances", "told"),
    [
        (["elbow"], "balances.0: unknown balance 'elbow'; did you mean 'elbo'?"),
        ([], "balances: expected at least one entry"),
        ("elbo", "balances: expected a list"),
        ([{"name": "constant", "valu": 1}], "balances.0.valu: unknown key 'valu'; did you mean "),
        (["elbo", "elbo"], "balances.1: is listed twice"),
        (
            [CONSTANT, {**CONSTANT, "decoders": ["optimal"]}],
            "balances.1: is listed twice",
        ),
        (
            ["elbo", {**CONSTANT, "decoders": ["gausian"]}],
            "balances.1.decoders.0: the grid has no decoder 'gausian'; did you mean 'gaussian'?",
        ),
        (
            ["elbo", {**CONSTANT, "decoders": ["gaussian", "gaussian"]}],
            "balances.1.decoders.1: is listed twice",
        ),
        (["elbo", {**CONSTANT, "decoders": []}], "balances.1.decoders: expected a list of names"),
        (["elbo", {**CONSTANT, "decoders": "optimal"}], "balances.1.decoders: expected a list"),
        (["elbo", {**CONSTANT, "decoders": [1]}], "balances.1.decoders.0: expected a decoder's"),
        (
            [{**CONSTANT, "decoders": ["optimal"]}],
            "decoders.0: decoder 'gaussian' is under none of the grid's `balances`",
        ),
        (
            ["elbo", "priced"],
            "balances.1: balance 'priced' is redundant with decoder 'optimal', which learns its σ",
        ),
    ],
)
def test_what_cannot_be_is_told_with_its_place(write: Write, balances: Any, told: str) -> None:
    message = refused(lambda: read_grid(str(write(balances=balances))))
    assert told in message
    assert "small.yaml:" in message


def test_a_rule_that_refuses_a_decoder_is_told_with_its_line_and_kept_from_it(
    write: Write,
) -> None:
    path = write(balances=["elbo", "priced"])
    line = path.read_text().splitlines().index("- priced") + 1
    message = refused(lambda: read_grid(str(path)))
    assert f"small.yaml:{line}: balances.1: " in message
    assert message.endswith("`decoders: […]` names those that it is for")
    read_grid(str(write(balances=["elbo", {"name": "priced", "decoders": ["gaussian"]}])))


def test_a_table_tells_the_balances_of_one_decoder_apart(write: Write, tmp_path: Path) -> None:
    path = write(decoders=["gaussian", "optimal"], balances=["elbo", CONSTANT, "constant"])
    grid = read_grid(str(path))
    store = Store.open(tmp_path / "results", "small")
    # The order in which records are found is no order of a table.
    for number, run in enumerate(run for row in reversed(rows_of(grid)) for run in row.runs):
        record = new_record(run, {"rule": "by hand"})
        record["metrics"], record["cost"] = {"neg_log_p": float(number)}, {"seconds": 1.0}
        write_checked(store.run_folder(run) / "record.json", record)
    table = tables.build(*load([store.folder]), "small", grid.finals)
    assert table.partial is None
    assert list(table.frame["decoder"]) == [
        "gaussian",
        "gaussian + constant",
        "gaussian + constant (value=0.5)",
        *("optimal", "optimal + constant", "optimal + constant (value=0.5)"),
    ]
    assert list(table.frame["balance"]) == ["elbo", "constant", "constant"] * 2
    assert table.frame["key"].is_unique
    assert "6 rows of decoder and balance on 1 data set" in findings(table).run[0]
    # Every one of them is made again by the command on its page.
    for record in store.records():
        words = shlex.split(run_pages.command(record["run"], str(path), grid))[3:]
        values = list(zip(words[::2], words[1::2], strict=True))
        again = read_grid(str(path), [value for word, value in values if word == "--set"])
        (row,) = rows_of(again, *(value for word, value in values if word == "--only"))
        assert [run.id for run in row.runs] == [record["id"]]


def test_a_tuned_balance_runs_and_is_reported(write: Write, tmp_path: Path, call: Call) -> None:
    grid = write(
        decoders=["gaussian"], balances=[TUNED], search={"trials": 2},
        training={"epochs": 1, "batch": 70},
    )  # fmt: skip
    code, out, err = call("run", grid, "--results", tmp_path / "results", "--json")
    assert code == 0, err
    (row,) = json.loads(out)
    (search,) = Store(tmp_path / "results" / "small").searches()
    (value,) = search["chosen"]
    assert search["balance"]["name"] == "constant"
    assert row["decoder"] == f"gaussian + constant (tuned, value={value:g})"
    assert (row["tuned"], row["balance"]) == ("balance.value", "constant")
    _, out, _ = call("status", grid, "--results", tmp_path / "results")
    assert "3 runs: 3 done" in out
