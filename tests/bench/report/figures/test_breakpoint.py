"""A bend that is known is found; a curve that has none is not given one."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.report.figures.breakpoint import Bend, bend, verdict

BETAS = [10.0**power for power in np.arange(-4, 1.5, 0.5)]


def hinge(beta: float, at: float, slope: float = 5.0, flat: float = 1.0) -> float:
    return flat + slope * max(0.0, math.log(at / beta))


@given(st.floats(0.001, 1.0), st.floats(1.0, 50.0), st.floats(0.0, 10.0))
def test_two_lines_bend_where_they_meet(at: float, slope: float, flat: float) -> None:
    found = bend(BETAS, [hinge(beta, at, slope, flat) for beta in BETAS])
    assert found is not None
    assert found.beta == pytest.approx(at, rel=0.03)


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(100):
        betas = BETAS * 3
        noisy = [hinge(beta, 0.07) + rng.normal(0, 1.0) for beta in betas]
        found = bend(betas, noisy)
        held += found is not None and 0.07 in found
    assert 88 <= held <= 100


def test_neither_a_line_nor_a_parabola_nor_noise_has_a_bend() -> None:
    x = np.log(BETAS)
    rng = np.random.default_rng(1)
    assert bend(BETAS, list(3 - 2 * x)) is None
    assert bend(BETAS, list((x - 4) ** 2)) is None
    assert bend(BETAS, list(3 - 2 * x + rng.normal(0, 1, len(x)))) is None


def test_a_curve_that_falls_faster_with_beta_bends_the_wrong_way() -> None:
    assert bend(BETAS, [-max(0.0, math.log(beta / 0.1)) for beta in BETAS]) is None


def test_three_values_of_beta_locate_nothing() -> None:
    assert bend([0.1, 1.0, 10.0] * 3, [9.0, 1.0, 1.0] * 3) is None


def test_the_verdict_says_at_below_and_above() -> None:
    found = verdict(Bend(0.1, 0.05, 0.2), {"shared": 0.06, "optimal": 0.01, "other": 0.4})
    assert found.words == (
        "The marginal KL bends at β = 0.1 (95 % interval 0.05 to 0.2). "
        "shared learned β = 0.06, at the bend. "
        "optimal learned β = 0.01, 10 times below the bend. "
        "other learned β = 0.4, 4 times above the bend."
    )
    assert "no bend" in verdict(None, {"shared": 0.1}).words
