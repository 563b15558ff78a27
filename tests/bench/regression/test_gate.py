"""The gate: it falls for every planted regression, and not for unchanged code."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from baselines.models.base import Draw
from baselines.models.linear_vae import LinearVae
from bench.cli.app import main
from bench.data import prepare
from bench.errors import RequestError
from bench.execution.worker import Worker
from bench.files import write_bytes, write_checked
from bench.grid.expand import expand
from bench.grid.read import read_grid
from bench.metrics import default_threshold
from bench.records.lease import Claim
from bench.records.store import DIVERGED, FAILED, Record, new_record
from bench.regression.gate import (
    ALPHA,
    COMPLETED_SEEDS,
    EVERY_METRIC,
    Comparisons,
    compare,
    parse_threshold,
)
from bench.regression.results import ResultRow, ResultSet, read_results
from bench.run import Run
from bench.significance import paired, welch

DECODERS = {"gaussian": 740.0, "shared": -280.0, "optimal": -270.0}
SEEDS = range(5)
SPREAD = 12.0
"""Nats between seeds; a rerun of the same seed elsewhere moves by an eighth of it."""

Plant = Callable[[str, int, Record], Record | None]
Write = Callable[..., Path]


def unchanged(decoder: str, seed: int, record: Record) -> Record | None:
    return record


def measured(level: float, seed: int, rerun: int) -> dict[str, float]:
    """One seed's numbers, which hang together as a run's do."""
    own, again = np.random.default_rng(seed), np.random.default_rng((seed, rerun))
    luck = SPREAD * own.normal() + (SPREAD / 8 * again.normal() if rerun else 0.0)
    rate = 25 + luck / 10
    return {
        "neg_log_p": level + luck,
        "neg_log_p_se": 2.0,
        "rate": rate,
        "distortion": level + luck - rate,
        "iwae_8": -level - luck + 3,
        "mse": 0.02 * np.exp(luck / 400),
        "sigma": 0.14,
        "bits_per_dim": 1.5 + luck / 784 / np.log(2),
        "calibration_error": 0.05 + luck / 4000,
    }


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write a grid's folder of records; `plant` changes one, or leaves it out with None."""
    # Fifteen records a folder would wait for the disk far longer than for anything tested here.
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)

    def grid(
        name: str,
        plant: Plant = unchanged,
        *,
        seeds: Iterable[int] = SEEDS,
        rerun: int = 0,
        **settings: Any,
    ) -> Path:
        folder = tmp_path / name
        (folder / "runs").mkdir(parents=True)
        for decoder, level in DECODERS.items():
            for seed in seeds:
                run = Run.read(
                    {
                        "dataset": "mnist5k",
                        "content": settings.get("content", "c0" * 32),
                        "split_seed": 0,
                        "model": {"name": "conv_vae", "width": 8},
                        "decoder": {"name": decoder},
                        "training": settings.get("training", {"epochs": 4}),
                        "evaluation": {"samples": 0, "iwae": 8, "distances": ()},
                        "seed": seed,
                    }
                )
                record = new_record(run, {"rule": "by hand"})
                record["metrics"] = measured(level, seed, rerun)
                record["protocol"]["likelihood"] = {"dimensions": 784, "images": 1000, "seed": seed}
                record["environment"] = {
                    "commit": "c0ffee" * 6,
                    "versions": {"torch": "2.6.0"},
                    "device_class": settings.get("device_class", "cpu"),
                }
                planted = plant(decoder, seed, record)
                if planted is not None:
                    write_checked(folder / "runs" / run.id / "record.json", planted)
        return folder

    return grid


@pytest.fixture
def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """`sigma-bench compare WORDS…`: its exit code, standard output and error."""

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sigma-bench", "compare", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run


def verdicts(gate: Comparisons, verdict: str) -> set[tuple[str, str]]:
    return {(one.decoder, one.metric) for one in gate.comparisons if one.verdict == verdict}


def moved(metric: str, by: float, only: str = "shared") -> Plant:
    def plant(decoder: str, seed: int, record: Record) -> Record:
        if decoder == only:
            record["metrics"][metric] += by
        return record

    return plant


# -- what must be seen -------------------------------------------------------------------------


def test_identical_records_are_the_same(write: Write) -> None:
    gate = compare(read_results(write("baseline")), read_results(write("candidate")))
    assert gate.passed
    assert gate.count("same") == len(gate.comparisons) == 3 * (1 + 6)
    assert {one.change for one in gate.comparisons} == {0.0}


def test_a_worse_likelihood_is_worse_and_a_better_one_better(write: Write) -> None:
    baseline = read_results(write("baseline"))
    worse = compare(baseline, read_results(write("worse", moved("neg_log_p", 15), rerun=1)))
    assert verdicts(worse, "worse") == {("shared", "neg_log_p")}
    assert not worse.passed
    better = compare(baseline, read_results(write("better", moved("iwae_8", 15), rerun=1)))
    assert verdicts(better, "better") == {("shared", "iwae_8")}
    assert better.passed


def test_significant_is_not_yet_relevant(write: Write) -> None:
    baseline, slight = (
        read_results(write("baseline")),
        read_results(write("slight", moved("neg_log_p", 0.1))),
    )
    assert compare(baseline, slight).passed
    strict = {"neg_log_p": parse_threshold("neg_log_p=0.05")[1]}
    assert verdicts(compare(baseline, slight, thresholds=strict), "worse") == {
        ("shared", "neg_log_p")
    }


def test_relevant_is_not_yet_significant(write: Write) -> None:
    def scatter(decoder: str, seed: int, record: Record) -> Record:
        record["metrics"]["neg_log_p"] += 30 * (-1) ** seed + 5
        return record

    gate = compare(read_results(write("baseline")), read_results(write("scattered", scatter)))
    changed = next(one for one in gate.comparisons if one.metric == "neg_log_p")
    assert changed.change is not None
    assert changed.threshold is not None
    assert changed.change > changed.threshold
    assert gate.passed


@pytest.mark.parametrize("status", [DIVERGED, FAILED])
def test_a_lost_seed_is_worse(write: Write, status: str) -> None:
    def lose(decoder: str, seed: int, record: Record) -> Record:
        if (decoder, seed) == ("optimal", 3):
            record |= {"status": status, "metrics": {}}
            record["protocol"] = {"selection": {"rule": "by hand"}}
        return record

    baseline, lost = write("baseline"), write("lost", lose)
    gate = compare(read_results(baseline), read_results(lost))
    assert verdicts(gate, "worse") == {("optimal", COMPLETED_SEEDS)}
    assert compare(read_results(lost), read_results(lost)).passed
    assert verdicts(compare(read_results(lost), read_results(baseline)), "better") == {
        ("optimal", COMPLETED_SEEDS)
    }


def test_a_missing_row_is_not_measured(write: Write) -> None:
    missing = write("missing", lambda decoder, _, r: None if decoder == "optimal" else r)
    gate = compare(read_results(write("baseline")), read_results(missing))
    assert verdicts(gate, "not measured") == {("optimal", EVERY_METRIC)}
    assert not gate.passed


def test_a_missing_metric_is_not_measured(write: Write) -> None:
    def plant(decoder: str, seed: int, record: Record) -> Record:
        if decoder == "gaussian":
            del record["metrics"]["iwae_8"]
        return record

    gate = compare(read_results(write("baseline")), read_results(write("candidate", plant)))
    assert verdicts(gate, "not measured") == {("gaussian", "iwae_8")}
    assert not gate.passed


def test_an_unfinished_grid_is_not_measured(write: Write) -> None:
    gate = compare(read_results(write("baseline")), read_results(write("half", seeds=range(3))))
    assert verdicts(gate, "not measured") == {(name, COMPLETED_SEEDS) for name in DECODERS}
    assert not gate.passed


def test_an_empty_result_is_not_measured(
    write: Write, call: Callable[..., tuple[int, str, str]]
) -> None:
    baseline, empty = write("baseline"), write("empty", seeds=())
    gate = compare(read_results(baseline), read_results(empty))
    assert verdicts(gate, "not measured") == {(name, EVERY_METRIC) for name in DECODERS}
    assert call(baseline, empty)[0] == 1
    code, out, _ = call(empty, baseline)
    assert code == 1
    assert "nothing was measured" in out


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.filterwarnings("ignore")
def test_an_edited_record_is_refused_each_time(write: Write, side: int) -> None:
    folders = write("baseline"), write("candidate")
    path = next((folders[side] / "runs").glob("*/record.json"))
    write_bytes(path, path.read_bytes().replace(b'"mse": 0.0', b'"mse": 0.1'))
    for _ in range(2):  # the first look sets the file aside
        with pytest.raises(RequestError, match=path.parent.name):
            compare(read_results(folders[0]), read_results(folders[1]))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"training": {"epochs": 5}}, "training.epochs 4 against 5"),
        ({"training": {"epochs": 4, "precision": "bfloat16"}}, "float32 against bfloat16"),
        ({"device_class": "cuda"}, "device class cpu against cuda"),
        ({"content": "d1" * 32}, "data content c0c0c0c0 against d1d1d1d1"),
    ],
)
def test_another_protocol_is_refused_by_name(
    write: Write, settings: Mapping[str, Any], told: str
) -> None:
    baseline, candidate = (
        read_results(write("baseline")),
        read_results(write("candidate", **settings)),
    )
    with pytest.raises(RequestError, match=told):
        compare(baseline, candidate)
    gate = compare(baseline, candidate, across=True)
    assert gate.passed
    assert any(told in difference for difference in gate.across)


def test_another_evaluation_protocol_is_refused_and_a_new_statement_is_not(write: Write) -> None:
    def stated(key: str, value: int) -> Plant:
        def plant(decoder: str, seed: int, record: Record) -> Record:
            record["protocol"]["likelihood"][key] = value
            return record

        return plant

    baseline = read_results(write("baseline"))
    with pytest.raises(RequestError, match=r"protocol.likelihood.images 1000 against 500"):
        compare(baseline, read_results(write("fewer", stated("images", 500))))
    assert compare(baseline, read_results(write("new", stated("batch", 500)))).passed


def test_one_row_under_two_settings_is_refused(write: Write) -> None:
    folder = write("both")
    other = write("other", training={"epochs": 9})
    for run in (other / "runs").iterdir():
        run.rename(folder / "runs" / run.name)
    with pytest.raises(RequestError, match=r"training.epochs 4 and 9"):
        read_results(folder)


def test_a_run_matches_whatever_its_id(write: Write) -> None:
    def renamed(decoder: str, seed: int, record: Record) -> Record:
        # As written before a default option of the model existed.
        del record["run"]["model"]["latent"]
        return record

    assert compare(read_results(write("old", renamed)), read_results(write("new"))).passed


# -- the tests behind it -----------------------------------------------------------------------

VALUES = arrays(np.float64, st.integers(2, 9), elements=st.floats(-100, 100, width=32))


@settings(max_examples=50, deadline=None)
@given(VALUES, st.data())
def test_the_paired_test_is_scipys(before: np.ndarray, data: st.DataObject) -> None:
    noise = arrays(np.float64, len(before), elements=st.floats(-10, 10, width=16))
    changes = data.draw(noise)
    if np.ptp(changes) < 0.1:  # SciPy warns of what we treat as certain
        return
    ours = paired(before, before + changes)
    for p, alternative in zip(ours, ("greater", "less"), strict=True):
        theirs = stats.ttest_rel(before + changes, before, alternative=alternative).pvalue
        assert p == pytest.approx(theirs, abs=1e-9)


@settings(max_examples=50, deadline=None)
@given(VALUES, VALUES)
def test_the_unpaired_test_is_scipys(before: np.ndarray, after: np.ndarray) -> None:
    if min(np.ptp(before), np.ptp(after)) < 0.1:
        return
    ours = welch(before, after)
    for p, alternative in zip(ours, ("greater", "less"), strict=True):
        theirs = stats.ttest_ind(after, before, equal_var=False, alternative=alternative).pvalue
        assert p == pytest.approx(theirs, abs=1e-9)


def test_seeds_that_all_agree_leave_nothing_to_chance() -> None:
    same = np.full(4, 3.0)
    assert paired(same, same) == welch(same, same) == (0.5, 0.5)
    assert paired(same, same + 1) == welch(same, same + 1) == (0.0, 1.0)
    assert paired(same, same - 1) == welch(same, same - 1) == (1.0, 0.0)


def test_one_seed_is_judged_by_the_threshold_alone(write: Write) -> None:
    baseline = read_results(write("baseline", seeds=[0]))
    gate = compare(baseline, read_results(write("worse", moved("neg_log_p", 15), seeds=[0])))
    one = next(one for one in gate.comparisons if one.verdict == "worse")
    assert (one.metric, one.p) == ("neg_log_p", None)
    assert "one seed allows no test" in one.basis
    assert "no test over seeds" in gate.summary()


def test_other_seeds_are_compared_unpaired(write: Write) -> None:
    gate = compare(
        read_results(write("baseline")), read_results(write("others", seeds=range(5, 11)))
    )
    assert {one.basis for one in gate.comparisons if one.p is not None} == {"Welch t, n 5 and 6"}
    assert gate.passed


def rerun(side: ResultSet, rng: np.random.Generator, seeds: range) -> ResultSet:
    """The same code once more: every seed's luck moves all its metrics, each with its own noise."""

    def noisy(row: ResultRow) -> ResultRow:
        luck = {seed: rng.normal() for seed in seeds}
        metrics = {
            name: {
                seed: np.mean([*values.values()]) * (1 + 0.01 * (luck[seed] + 0.5 * rng.normal()))
                for seed in seeds
            }
            for name, values in row.metrics.items()
        }
        return replace(row, metrics=metrics, seeds=frozenset(seeds), completed=frozenset(seeds))

    return replace(side, rows={key: noisy(row) for key, row in side.rows.items()})


@pytest.mark.parametrize(("seeds", "test"), [(range(5), "paired"), (range(5, 10), "Welch")])
def test_unchanged_code_is_called_worse_no_more_often_than_stated(
    write: Write, seeds: range, test: str
) -> None:
    rng, alpha, count = np.random.default_rng(7), 0.05, 200
    side = read_results(write("baseline"))
    fell = 0
    for _ in range(count):
        gate = compare(rerun(side, rng, range(5)), rerun(side, rng, seeds), alpha=alpha)
        assert all(one.basis.startswith(test) for one in gate.comparisons if one.p is not None)
        fell += gate.count("worse") > 0
    # At the stated level 200 reruns fall more often than this once in a thousand times.
    assert fell <= stats.binom.ppf(0.999, count, alpha)


# -- the command -------------------------------------------------------------------------------


def test_exit_codes_and_what_is_printed(
    write: Write, call: Callable[..., tuple[int, str, str]]
) -> None:
    baseline = write("store/baseline")
    code, out, _ = call(baseline.parent, write("same"))
    assert code == 0
    assert "0 worse, 0 not measured, 0 better, 21 same" in out
    assert "paired t over seeds, one-sided, Holm-corrected, level 0.01" in out
    assert "commit c0ffeec0ffee, torch 2.6.0" in out

    worse = write("worse", moved("neg_log_p", 15))
    code, out, _ = call(baseline, worse, "--metric", "neg_log_p", "--json")
    assert code == 1
    gate = json.loads(out)
    assert not gate["passed"]
    fallen = [one for one in gate["comparisons"] if one["verdict"] == "worse"]
    assert [one["change"] for one in fallen] == [pytest.approx(15)]
    assert call(baseline, worse, "--threshold", "neg_log_p=10%")[0] == 0


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
    call: Callable[..., tuple[int, str, str]],
    words: list[str],
    told: str,
) -> None:
    baseline, _ = write("baseline"), write("same")
    code, out, err = call(baseline, tmp_path / words[0], *words[1:])
    assert (code, out) == (2, "")
    assert told in err
    assert len(err.splitlines()) == 1


def test_several_grids_are_one_too_many(write: Write, tmp_path: Path) -> None:
    write("one")
    write("two")
    with pytest.raises(RequestError, match="one, two"):
        read_results(tmp_path)


@pytest.mark.parametrize("metric", ["neg_log_p", "iwae_64", "bits_per_dim", "fid_sampled", "kd_x"])
def test_default_thresholds_are_small_parts_of_what_is_measured(metric: str) -> None:
    assert 0 < default_threshold(metric).of(100.0, 784) < 2.1


# -- on real runs ------------------------------------------------------------------------------


@pytest.fixture
def train(tmp_path: Path) -> Callable[..., ResultSet]:
    """Train one row of the regression grid into a folder of its own."""
    prepare("mnist5k")
    worker = Worker("cpu")

    def side(name: str, decoder: str, seeds: Iterable[int]) -> ResultSet:
        only = ["model=linear_vae", f"decoder={decoder}"]
        (row,) = expand(read_grid("regression"), device="cpu", features=None, only=only)
        for seed in seeds:
            run = row.runs[0].model_copy(update={"seed": seed})
            folder = tmp_path / name / "runs" / run.id
            folder.mkdir(parents=True)
            worker.execute(run, Claim(folder, lambda: False), {"rule": "by hand"})
        return read_results(tmp_path / name)

    return side


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_kl_weight_of_1_05_is_caught(
    train: Callable[..., ResultSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds = read_grid("regression").seeds
    baseline = train("baseline", "shared", seeds)
    again = compare(baseline, train("again", "shared", seeds))
    assert again.passed
    assert {one.change for one in again.comparisons} == {0.0}
    draw = LinearVae.draw

    def heavier(self: LinearVae, *arguments: Any, training: bool) -> Draw:
        drawn = draw(self, *arguments, training=training)
        return drawn._replace(rate=1.05 * drawn.rate) if training else drawn

    monkeypatch.setattr(LinearVae, "draw", heavier)
    gate = compare(baseline, train("heavier", "shared", seeds))
    assert "distortion" in {metric for _, metric in verdicts(gate, "worse")}
    assert not gate.passed


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_twenty_reruns_with_other_seeds_are_not_called_worse(
    train: Callable[..., ResultSet],
) -> None:
    fell = 0
    for index in range(20):
        seeds = range(6 * index, 6 * index + 6)
        pair = [train(f"{index}-{part[0]}", "optimal", part) for part in (seeds[:3], seeds[3:])]
        fell += compare(*pair).count("worse") > 0
    # Chance exceeds this once in a thousand times.
    assert fell <= stats.binom.ppf(0.999, 20, ALPHA)
