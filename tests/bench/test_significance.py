from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from bench.significance import best_rows, holm, paired, welch

NOT = np.nan


def test_a_row_is_best_unless_another_is_better_by_three_standard_errors() -> None:
    seeds = np.array([-1.0, 0.0, 1.0])  # the difference of two such rows has an error of √(2/3)
    just, over = 3 * np.sqrt(2 / 3) - 1e-9, 3 * np.sqrt(2 / 3) + 1e-9
    verdict = best_rows(np.stack([seeds + over, seeds, seeds + just]), "lower")
    assert list(verdict.best) == [False, True, True]


def test_two_seeds_need_four_standard_errors() -> None:
    seeds = np.array([-1.0, 1.0])  # the difference of two such rows has an error of √2
    rows = np.stack([seeds, seeds + 4 * np.sqrt(2) - 1e-9, seeds + 4 * np.sqrt(2) + 1e-9])
    assert list(best_rows(rows, "lower").best) == [True, True, False]


def test_higher_may_be_better() -> None:
    values = np.array([[1.0, 1.1, 0.9], [5.0, 5.1, 4.9]])
    assert list(best_rows(values, "higher").best) == [False, True]
    assert list(best_rows(values, "lower").best) == [True, False]


def test_a_row_that_scatters_shelters_no_other() -> None:
    """The committed `quick` table: σ = 1 is 1,984 nats above a mean of wide error."""
    per_pixel, gaussian = [-1600.0, -1270.0, -850.0], [743.7, 743.9, 743.8]
    shared = [-530.0, -500.0, -495.0]
    verdict = best_rows(np.array([gaussian, shared, per_pixel]), "lower")
    assert list(verdict.best) == [False, False, True]


def test_a_stuck_seed_makes_no_row_best() -> None:
    good, stuck = [0.0, 1.0, -1.0, 0.5, -0.5], [10.0, 11.0, 9.0, 10.5, 60.0]
    assert list(best_rows(np.array([good, stuck]), "lower").best) == [True, False]
    twice = [10.0, 11.0, 9.0, 70.0, 60.0]
    assert list(best_rows(np.array([good, twice]), "lower").best) == [True, False]
    # A row that is good but for its stuck seed is not worse for certain.
    assert best_rows(np.array([good, [0.0, 1.0, -1.0, 0.5, 60.0]]), "lower").best.all()


def test_one_seed_compares_nothing() -> None:
    verdict = best_rows(np.array([[1.0], [1.0], [1.001], [NOT]]), "lower")
    assert not verdict.best.any()
    assert not verdict.compared.any()


def test_lost_seeds_leave_a_row_its_own_number() -> None:
    """Two rows with one seed lost, a row with one left and a row without any."""
    values = np.array(
        [[1.0, NOT, 1.2, 1.1], [NOT, 5.0, 5.1, 5.2], [0.0, NOT, NOT, NOT], [NOT, NOT, NOT, NOT]]
    )
    verdict = best_rows(values, "lower")
    assert list(verdict.best) == [True, False, False, False]
    assert list(verdict.compared) == [True, True, False, False]


def test_a_row_has_no_one_to_be_better_than() -> None:
    verdict = best_rows(np.array([[1.0, 2.0, 3.0], [NOT, NOT, 0.0]]), "lower")
    assert not verdict.best.any()
    assert not verdict.compared.any()


def test_rows_that_agree_to_the_last_digit_are_all_best() -> None:
    assert best_rows(np.array([[1.0, 2.0, 3.0]] * 3), "lower").best.all()
    assert best_rows(np.full((3, 3), 0.1), "lower").best.all()


def test_a_group_without_numbers_has_no_best() -> None:
    assert not best_rows(np.full((3, 2), NOT), "lower").best.any()


@settings(max_examples=50, deadline=None)
@given(arrays(np.float64, (5, 4), elements=st.floats(-1e6, 1e6, width=32)))
def test_the_best_mean_is_always_best_and_scale_changes_nothing(values: np.ndarray) -> None:
    best = best_rows(values, "lower").best
    assert best[values.mean(axis=1).argmin()]
    assert (best_rows(-8 * values, "higher").best == best).all()


def test_holm_on_a_worked_example() -> None:
    """Holm 1979: 0.01, 0.04, 0.03 become 0.03, 0.06, 0.06."""
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


@given(st.lists(st.floats(0, 1), max_size=20))
def test_holm_lies_between_the_raw_and_bonferronis(p: list[float]) -> None:
    adjusted = holm(p)
    assert (adjusted >= np.array(p)).all()
    assert (adjusted <= np.minimum(1, np.array(p) * len(p)) + 1e-12).all()
    assert (np.diff(adjusted[np.argsort(p, kind="stable")]) >= 0).all()


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
