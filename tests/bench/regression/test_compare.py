"""The command `compare`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.errors import RequestError
from bench.regression.results import read_results
from tests.bench.conftest import Call
from tests.bench.regression.conftest import Write, moved


def test_exit_codes_and_what_is_printed(write: Write, call: Call) -> None:
    baseline = write("store/baseline")
    code, out, _ = call("compare", baseline.parent, write("same"))
    assert code == 0
    assert "0 worse, 0 not measured, 0 better, 21 same" in out
    assert "paired t over seeds, one-sided, Holm-corrected, level 0.01" in out
    assert "commit c0ffeec0ffee, torch 2.6.0" in out

    worse = write("worse", moved("neg_log_p", 15))
    code, out, _ = call("compare", baseline, worse, "--metric", "neg_log_p", "--json")
    assert code == 1
    gate = json.loads(out)
    assert not gate["passed"]
    fallen = [one for one in gate["comparisons"] if one["verdict"] == "worse"]
    assert [one["change"] for one in fallen] == [pytest.approx(15)]
    assert call("compare", baseline, worse, "--threshold", "neg_log_p=10%")[0] == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nowhere"], "no runs"),
        (["same", "--metric", "neg_log_q"], "did you mean 'neg_log_p'?"),
        (["same", "--metric", "rate"], "--metric rate"),
        (["same", "--threshold", "mse"], "expected METRIC=VALUE"),
        (["same", "--threshold", "mse=-1"], "expected METRIC=VALUE"),
        (["same", "--threshold", "msee=1"], "did you mean 'mse'?"),
        (["same", "--alpha", "2"], "--alpha"),
    ],
)
def test_wrong_requests(
    write: Write,
    tmp_path: Path,
    call: Call,
    words: list[str],
    told: str,
) -> None:
    baseline, _ = write("baseline"), write("same")
    code, out, err = call("compare", baseline, tmp_path / words[0], *words[1:])
    assert (code, out) == (2, "")
    assert told in err
    assert len(err.splitlines()) == 1


def test_several_grids_are_one_too_many(write: Write, tmp_path: Path) -> None:
    write("one")
    write("two")
    with pytest.raises(RequestError, match="one, two"):
        read_results(tmp_path)
