from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from bench.significance import LEVEL, best_rows, holm, paired, paired_changes, two_sided, welch

NOT = np.nan


def test_a_row_ties_when_the_paired_test_does_not_reject() -> None:
    rng = np.random.default_rng(0)
    best = rng.normal(0.0, 10.0, 5)  # seeds differ much, rows hardly: pairing is what sees it
    near, far = best + rng.normal(0.05, 1.0, 5), best + rng.normal(2.0, 0.1, 5)
    verdict = best_rows(np.stack([far, best, near]), "lower")
    assert stats.ttest_rel(near, best).pvalue > LEVEL
    assert stats.ttest_rel(far, best).pvalue * 2 < LEVEL
    assert list(verdict.best) == [False, True, True]
    assert verdict.tested == 2


def test_higher_may_be_better() -> None:
    values = np.array([[1.0, 1.1, 0.9], [5.0, 5.1, 4.9]])
    assert list(best_rows(values, "higher").best) == [False, True]
    assert list(best_rows(values, "lower").best) == [True, False]


def test_one_seed_tests_nothing() -> None:
    verdict = best_rows(np.array([[1.0], [1.0], [1.001], [NOT]]), "lower")
    assert list(verdict.best) == [True, True, False, False]
    assert verdict.tested == 0


def test_only_common_seeds_are_paired() -> None:
    """The second row is worse on every seed that both have; its other seed is no evidence."""
    values = np.array([[1.0, 2.0, 3.0, NOT], [1.1, 2.1, 3.1, 9.0], [NOT, NOT, NOT, 2.5]])
    verdict = best_rows(values, "lower")
    assert list(verdict.best) == [True, False, False]
    assert verdict.tested == 1


def test_rows_that_agree_to_the_last_digit_tie() -> None:
    values = np.array([[1.0, 2.0, 3.0]] * 3)
    assert best_rows(values, "lower").best.all()


def test_a_group_without_numbers_has_no_best() -> None:
    assert not best_rows(np.full((3, 2), NOT), "lower").best.any()


def test_ties_are_broken_no_more_often_than_the_level_says() -> None:
    """Rows that are equal by construction: how often any is called different from the best."""
    rng = np.random.default_rng(1)
    apart = [not best_rows(rng.normal(size=(2, 5)), "lower").best.all() for _ in range(1000)]
    assert np.mean(apart) < LEVEL + 3 * np.sqrt(LEVEL * (1 - LEVEL) / 1000)


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


@settings(max_examples=50, deadline=None)
@given(VALUES)
def test_the_two_sided_test_is_scipys_on_the_seeds_in_common(before: np.ndarray) -> None:
    rng = np.random.default_rng(len(before))
    after = before + rng.normal(0.5, 1.0, len(before))
    found = paired_changes(np.append(before, [3.0, NOT]), np.append(after, [NOT, 4.0]))
    assert found.seeds == len(before)
    assert found.change == pytest.approx(np.mean(after - before), abs=1e-9)
    assert two_sided(found) == pytest.approx(stats.ttest_rel(after, before).pvalue, abs=1e-9)


def test_without_two_seeds_in_common_there_is_no_p() -> None:
    assert np.isnan(two_sided(paired_changes(np.array([1.0, NOT]), np.array([2.0, 3.0]))))
