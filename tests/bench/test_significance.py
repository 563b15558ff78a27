from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bench.significance import LEVEL, best_rows, holm

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
