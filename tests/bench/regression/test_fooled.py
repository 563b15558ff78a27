"""Folders that would fool a gate: edited, copied and incomplete ones, and counts that agree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from bench.errors import RequestError
from bench.records.store import Record
from bench.regression.gate import ALPHA, compare
from bench.regression.power import POWER, power
from bench.regression.results import ResultRow, ResultSet, read_results
from tests.bench.conftest import Call
from tests.bench.regression.conftest import Write, measured, moved, verdicts


def timed(decoder: str, seed: int, record: Record) -> Record:
    record["cost"] = {"seconds": 1.25 + seed, "finished": f"2026-11-22T14:51:0{seed}+00:00"}
    return record


@pytest.mark.parametrize("without", [(3, 4), (1, 2, 3, 4), (0, 1, 2, 3, 4)])
def test_a_metric_that_fewer_seeds_have_is_not_measured(
    write: Write, without: tuple[int, ...]
) -> None:
    def plant(decoder: str, seed: int, record: Record) -> Record:
        if decoder == "shared" and seed in without:
            del record["metrics"]["neg_log_p"]
        return record

    baseline, fewer = read_results(write("baseline")), read_results(write("fewer", plant))
    gate = compare(baseline, fewer)
    assert verdicts(gate, "not measured") == {("shared", "neg_log_p")}
    assert not gate.passed
    (one,) = (one for one in gate.comparisons if one.verdict == "not measured")
    assert one.basis.startswith(f"{5 - len(without)} of the candidate's 5 completed seeds")
    # What the baseline has no more of is no loss.
    assert compare(fewer, fewer).passed


def test_seeds_of_a_row_that_state_other_protocols_are_refused(write: Write) -> None:
    def plant(decoder: str, seed: int, record: Record) -> Record:
        if (decoder, seed) == ("shared", 2):
            record["protocol"]["likelihood"]["images"] = 100
        return record

    told = r"shared: protocol\.likelihood\.images is 1000 in seed 0 and 100 in seed 2"
    with pytest.raises(RequestError, match=told):
        read_results(write("unlike", plant))


def test_a_seeds_numbers_in_another_seed_are_refused(write: Write) -> None:
    def plant(decoder: str, seed: int, record: Record) -> Record:
        if decoder == "shared":
            record["metrics"] = measured(-280.0, 3, 0)
        return record

    with pytest.raises(RequestError, match="shared: seeds 0 and 1 have the very same numbers"):
        read_results(write("copied", plant))


def test_the_baselines_own_records_are_no_candidate(write: Write, call: Call) -> None:
    baseline, copy = write("baseline", timed), write("copy", timed)
    code, out, err = call("compare", baseline, copy)
    assert (code, out) == (2, "")
    assert "15 of its 15 records are the baseline's own" in err

    def one_copied(decoder: str, seed: int, record: Record) -> Record:
        return timed(decoder, seed, record) if (decoder, seed) == ("optimal", 4) else record

    with pytest.raises(RequestError, match="1 of its 15 records"):
        compare(read_results(baseline), read_results(write("part", one_copied)))


def test_another_precision_at_run_time_is_refused(write: Write) -> None:
    def plant(decoder: str, seed: int, record: Record) -> Record:
        record["environment"]["precision"] = "bfloat16"
        return record

    baseline = read_results(write("baseline"))
    with pytest.raises(RequestError, match="precision at run time None against bfloat16"):
        compare(baseline, read_results(write("other", plant)))


# -- metrics that count images -------------------------------------------------------------------

COUNTED = {"precision_net": 0.5, "recall_net": 0.05}
IMAGES = {"precision_net": 500, "recall_net": 250}


def counting(seeds: int, rng: np.random.Generator) -> ResultSet:
    """Ten rows of one code: shares of counted images, and a number of a continuous law."""

    def row(number: int) -> ResultRow:
        metrics: dict[str, dict[int, float]] = {
            "neg_log_p": dict(enumerate(rng.normal(100.0, 5.0, seeds)))
        }
        for name, share in COUNTED.items():
            found = rng.binomial(IMAGES[name], share, seeds) / IMAGES[name]
            errors = np.sqrt(found * (1 - found) / IMAGES[name])
            metrics |= {name: dict(enumerate(found)), f"{name}_se": dict(enumerate(errors))}
        known = frozenset(range(seeds))
        settings = {"data content": "c0"}
        label = ("mnist5k", "conv_vae", str(number))
        return ResultRow(label, known, known, metrics, {}, settings, 784)

    rows: Any = {number: row(number) for number in range(10)}
    return ResultSet(Path("side"), rows, ())


def test_two_seeds_with_the_same_step_of_precision_prove_nothing() -> None:
    one, other = counting(2, np.random.default_rng(0)), counting(2, np.random.default_rng(0))
    for row in other.rows.values():
        for seed, share in row.metrics["precision_net"].items():
            row.metrics["precision_net"][seed] = share - 10 / IMAGES["precision_net"]  # type: ignore[index]
    assert compare(one, other).passed
    # A collapse is still seen, given seeds enough.
    before, after = counting(8, np.random.default_rng(1)), counting(8, np.random.default_rng(2))
    for row in after.rows.values():
        for seed in row.metrics["precision_net"]:
            row.metrics["precision_net"][seed] *= 0.5  # type: ignore[index]
    assert compare(before, after).count("worse") == 10


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [2, 3, 8])
def test_counted_shares_raise_no_more_false_alarms_than_stated(seeds: int) -> None:
    rng, count = np.random.default_rng(seeds), 1500
    fell = sum(
        compare(counting(seeds, rng), counting(seeds, rng)).count("worse") > 0 for _ in range(count)
    )
    # At the stated level chance exceeds this once in a thousand times.
    assert fell <= stats.binom.ppf(0.999, count, ALPHA)


# -- what the gate can see -----------------------------------------------------------------------


def test_a_change_of_the_size_named_is_found_as_often_as_stated(write: Write) -> None:
    """Reruns of 5 seeds that scatter anew, one metric of one row moved by what `power` names."""
    baseline = read_results(write("baseline", decoders={"shared": -280.0}))
    (one,) = power(baseline, metrics=["neg_log_p"])
    assert (one.seeds, one.decoder) == (5, "shared")
    spread = np.std(list(next(iter(baseline.rows.values())).metrics["neg_log_p"].values()), ddof=1)
    assert one.change is not None
    rng, count = np.random.default_rng(0), 4000
    sides = rng.normal(0.0, spread, (2, count, 5))
    changes = sides[1] + one.change - sides[0]
    p = stats.ttest_1samp(changes, 0.0, axis=1, alternative="greater").pvalue
    assert np.mean(p <= ALPHA) == pytest.approx(POWER, abs=0.03)


def test_the_level_is_shared_between_all_that_is_compared(write: Write) -> None:
    baseline = read_results(write("baseline"))
    alone = power(baseline, metrics=["neg_log_p"])
    headline = [one for one in power(baseline) if one.metric == "neg_log_p"]
    assert {one.metric for one in power(baseline)} == {"neg_log_p", "bits_per_dim"}
    for one, other in zip(alone, headline, strict=True):
        assert one.change is not None
        assert other.change is not None
        assert one.change < other.change


def test_one_seed_and_seeds_all_alike_say_nothing_of_power(write: Write) -> None:
    single = read_results(write("single", seeds=[0]))
    assert {one.change for one in power(single)} == {None}

    def alike(decoder: str, seed: int, record: Record) -> Record:
        record["metrics"]["bits_per_dim"] = 1.5
        return record

    found = {one.metric: one.change for one in power(read_results(write("alike", alike)))}
    assert found["bits_per_dim"] is None
    assert found["neg_log_p"] is not None


def test_power_is_printed_without_a_candidate_and_behind_the_verdicts(
    write: Write, call: Call
) -> None:
    baseline, worse = write("baseline"), write("worse", moved("neg_log_p", 15))
    code, out, _ = call("compare", baseline, "--power", "--metric", "neg_log_p")
    assert code == 0
    assert out.count("neg_log_p") == 3
    assert "with probability 0.8 at level 0.01" in out
    code, out, _ = call("compare", baseline, worse, "--power")
    assert code == 1
    assert out.index("1 worse") < out.index("with probability 0.8")
    code, out, err = call("compare", baseline)
    assert (code, out) == (2, "")
    assert "--power" in err
