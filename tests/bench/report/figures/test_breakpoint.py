"""A bend that is known is found; a curve that has none is not given one."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.report.figures.breakpoint import bend, verdict

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
    curve = [hinge(beta, 0.1) + (-1) ** place for place, beta in enumerate(BETAS)]
    learned = {"shared": 0.1, "optimal": 0.001, "other": 4.0}
    found = verdict(BETAS, [0.0] * len(BETAS), curve, BETAS, learned)
    assert found.of == "marginal KL"
    assert found.words.startswith("The marginal KL bends at β = 0.")
    assert "shared learned β = 0.1, at this bend." in found.words
    assert re.search(r"optimal learned β = 0.001, \d+ times below this bend.", found.words)
    assert re.search(r"other learned β = 4, \d+ times above this bend.", found.words)


def test_the_marginal_kl_bends_only_where_it_is_known() -> None:
    """Below 0.003 the curve is the rate less a constant, and has a second, sharper bend."""
    curve = [hinge(beta, 0.1) + hinge(beta, 0.003, 50.0) for beta in BETAS]
    known = [beta for beta in BETAS if beta > 0.003]
    found = verdict(BETAS, curve, curve, known, {})
    assert found.bend is not None
    assert found.bend.beta == pytest.approx(0.1, rel=0.03)
    assert "The marginal KL, known at 8 of 11 values of β, bends at β = 0.1" in found.words


def test_too_few_known_values_tell_of_the_rate_alone() -> None:
    rates = [hinge(beta, 0.01) for beta in BETAS]
    found = verdict(BETAS, rates, [rate - 1 for rate in rates], [1.0, 10.0], {"shared": 0.1})
    assert found.of == "rate"
    assert "cannot tell where the marginal KL bends: it is known at 2 of 11" in found.words
    assert "The rate bends at β = 0.01" in found.words
    assert "shared learned β = 0.1, 9.9 times above this bend." in found.words


def test_without_any_bend_no_learned_beta_has_a_place() -> None:
    line = [3 - math.log(beta) for beta in BETAS]
    found = verdict(BETAS, line, line, BETAS, {"shared": 0.1})
    assert found.bend is None
    assert "The marginal KL, known at 11 of 11 values of β, has no bend" in found.words
    assert "The rate has no bend" in found.words
    assert "learned" not in found.words
