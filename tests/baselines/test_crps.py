"""The continuous ranked probability score: its other formula, closed forms, SciPy, scoringrules."""

from collections.abc import Callable

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import scoringrules
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.distributions import (
    Cauchy,
    Distribution,
    Independent,
    Laplace,
    Normal,
    StudentT,
    Uniform,
)

from baselines.crps import crps
from baselines.distributions import Bitwise, Categorical, LogisticMixture
from baselines.probabilities import log_mass

LEVELS = torch.arange(256, dtype=torch.float64).view(256, 1, 1, 1) / 255
"""256 images of one value each, every level once."""


def one_value(base: Callable[..., Distribution], *parameters: float) -> Independent[Distribution]:
    values = (torch.full((1, 1, 1, 1), p, dtype=torch.float64) for p in parameters)
    return Independent(base(*values), 3)


def at_levels(distribution: Distribution) -> np.ndarray:
    """The scores of all 256 levels under a distribution of one value."""
    found = crps(distribution, LEVELS)
    assert found.shape == LEVELS.shape
    return found.double().flatten().numpy()


def from_distances(p: np.ndarray) -> np.ndarray:
    """E|X - x| - ½ E|X - X'| at every level x, from the probabilities of all levels."""
    values = np.arange(256) / 255
    gaps = np.abs(values[:, None] - values)
    scores: np.ndarray = gaps @ p - 0.5 * p @ gaps @ p
    return scores


@pytest.mark.parametrize(
    "distribution",
    [
        one_value(Normal, 0.3, 0.1),
        one_value(Normal, 0.0, 0.005),
        one_value(StudentT, 2.2, 0.9, 0.01),
        one_value(StudentT, 1.2, 0.4, 0.03),
        one_value(Cauchy, 0.4, 0.03),
        one_value(Laplace, 0.2, 0.05),
        one_value(Uniform, 0.0, 1.0),
        Categorical(torch.linspace(-3, 3, 256).view(1, 1, 1, 256)),
        Bitwise(torch.linspace(-2, 2, 8).view(1, 1, 1, 8)),
        LogisticMixture(torch.tensor([0.0, 1, 0.1, 0.7, -3, -4]).view(1, 1, 1, 6)),
    ],
    ids=lambda distribution: type(getattr(distribution, "base_dist", distribution)).__name__,
)
def test_it_is_the_distance_to_the_value_less_half_the_distance_within(
    distribution: Distribution,
) -> None:
    """E|X - x| - ½ E|X - X'| (Gneiting & Raftery 2007, Eq. 21), X from the probabilities."""
    p = log_mass(distribution, LEVELS).exp().flatten().numpy()
    np.testing.assert_allclose(at_levels(distribution), from_distances(p), atol=1e-6)


LAWS = {
    "normal": (one_value(Normal, 0.3, 0.1), scoringrules.crps_cnormal, (0.3, 0.1)),
    "beyond the range": (one_value(Normal, -0.2, 0.4), scoringrules.crps_cnormal, (-0.2, 0.4)),
    "student_t": (one_value(StudentT, 5.0, 0.6, 0.08), scoringrules.crps_ct, (5.0, 0.6, 0.08)),
    "heavy tails": (one_value(StudentT, 2.2, 0.9, 0.2), scoringrules.crps_ct, (2.2, 0.9, 0.2)),
}
"""By name: a law of many levels, and scoringrules' score of the same law with its parameters."""


@pytest.mark.parametrize("law", LAWS)
def test_of_many_levels_it_is_scoringrules_score_of_the_law_cut_to_the_range(law: str) -> None:
    """Rounding to 8 bits and its open end bins are a censored law, by the midpoint rule."""
    distribution, theirs, parameters = LAWS[law]
    expected = theirs(LEVELS.flatten().numpy(), *parameters, lower=0.0, upper=1.0)
    np.testing.assert_allclose(at_levels(distribution), expected, atol=3e-5)


@pytest.mark.parametrize("law", LAWS)
def test_it_is_scoringrules_score_of_a_weighted_ensemble_of_all_levels(law: str) -> None:
    distribution, _, _ = LAWS[law]
    weights = log_mass(distribution, LEVELS).exp().flatten().double().numpy()
    levels = LEVELS.flatten().numpy()
    members = np.broadcast_to(levels, (256, 256))
    expected = scoringrules.crps_ensemble(
        levels, members, ens_w=np.broadcast_to(weights, members.shape), estimator="nrg"
    )
    np.testing.assert_allclose(at_levels(distribution), expected, atol=1e-6)


def by_levels(cdf: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The sum over levels of (F(k) - 1{x ≤ k})² / 255 at every level x."""
    levels = np.arange(256)
    up_to = cdf((levels[:-1] + 0.5) / 255)
    scores: np.ndarray = ((up_to - (levels[:, None] <= levels[:-1])) ** 2).sum(1) / 255
    return scores


locations = st.one_of(
    st.floats(-0.5, 1.5), st.integers(0, 255).map(lambda k: k / 255), st.sampled_from([-30.0, 40.0])
)


@given(locations, st.floats(-9, 4))
@example(0.5, np.log(1.5 / 255))
@example(3.5 / 255, np.log(0.7 / 255))
@settings(max_examples=100)
def test_the_closed_form_of_a_gaussian_is_the_sum_over_levels(
    location: float, log_scale: float
) -> None:
    theirs = scipy.stats.norm(location, np.exp(log_scale))
    found = at_levels(one_value(Normal, location, np.exp(log_scale)))
    np.testing.assert_allclose(found, by_levels(theirs.cdf), atol=1e-6)


@given(st.floats(2.1, 1e3), locations, st.floats(-9, 4))
@example(2.1, 0.0, -6.0)
@example(1e12, 0.4, -3.0)
@settings(max_examples=100)
def test_the_closed_form_of_a_student_t_is_the_sum_over_levels(
    df: float, location: float, log_scale: float
) -> None:
    theirs = scipy.stats.t(df, location, np.exp(log_scale))
    found = at_levels(one_value(StudentT, df, location, np.exp(log_scale)))
    np.testing.assert_allclose(found, by_levels(theirs.cdf), atol=1e-6)


@given(locations, st.floats(-15, 4))
@example(0.5, np.log(0.2 / 255))
@example(3.5 / 255, np.log(0.7 / 255))
@example(0.6020089798041444, -8.0)
@settings(max_examples=100)
def test_the_series_of_a_laplace_is_the_sum_over_levels(location: float, log_scale: float) -> None:
    theirs = scipy.stats.laplace(location, np.exp(log_scale))
    found = at_levels(one_value(Laplace, location, np.exp(log_scale)))
    np.testing.assert_allclose(found, by_levels(theirs.cdf), atol=1e-7)


@pytest.mark.parametrize("b", [0.02, 0.05])
def test_on_a_fine_scale_it_is_the_score_of_the_density(b: float) -> None:
    """Of a Laplace law |z| b + b exp(-|z|) - ¾ b, z = (x-μ)/b (Jordan, Krüger & Lerch 2019)."""
    z = (np.arange(256) / 255 - 0.5) / b
    expected = b * (np.abs(z) + np.exp(-np.abs(z)) - 0.75)
    # The density's score has the tails beyond [0, 1] too: here below 1e-5, and a grid of levels.
    np.testing.assert_allclose(at_levels(one_value(Laplace, 0.5, b)), expected, atol=3e-5)


def test_a_point_is_scored_by_its_distance() -> None:
    logits = torch.zeros(1, 1, 1, 256)
    logits[..., 100] = 200.0
    distance = np.abs(np.arange(256) - 100) / 255
    np.testing.assert_allclose(at_levels(Categorical(logits)), distance, atol=1e-6)
    place = 100 / 255
    normal, laplace = one_value(Normal, place, 1e-5), one_value(Laplace, place, 5e-7)
    for point in (normal, laplace, one_value(StudentT, 30.0, place, 1e-6)):
        np.testing.assert_allclose(at_levels(point), distance, atol=1e-6)


@pytest.mark.parametrize("mean", [0.0, 0.1, 0.5])
def test_the_score_of_the_right_sigma_is_the_lowest(mean: float) -> None:
    """Expected under N(mean, 0.2²) cut to 8 bits, whose σ clipping hides from other moments."""
    p = log_mass(one_value(Normal, mean, 0.2), LEVELS).exp().flatten().numpy()
    sigmas = [0.05, 0.1, 0.18, 0.19, 0.2, 0.21, 0.22, 0.4, 1.0, 3.0]
    expected = [p @ at_levels(one_value(Normal, mean, sigma)) for sigma in sigmas]
    assert sigmas[int(np.argmin(expected))] == 0.2
    falling, rising = expected[:5], expected[4:]
    assert falling == sorted(falling, reverse=True)
    assert rising == sorted(rising)


def test_the_expected_score_of_a_wrong_sigma_is_an_integral() -> None:
    """∫ F² (1-G) + (1-F)² G over [0, 1], values from G; summed over levels by the midpoint rule."""
    said, true = scipy.stats.norm(0.5, 0.25).cdf, scipy.stats.norm(0.5, 0.5).cdf
    expected, _ = scipy.integrate.quad(
        lambda t: said(t) ** 2 * (1 - true(t)) + (1 - said(t)) ** 2 * true(t), 0, 1
    )
    p = log_mass(one_value(Normal, 0.5, 0.5), LEVELS).exp().flatten().numpy()
    found = p @ at_levels(one_value(Normal, 0.5, 0.25))
    assert found == pytest.approx(expected, abs=2e-6)


def test_a_broken_law_has_no_score() -> None:
    number, broken = torch.full((1, 1, 1), 0.1), torch.full((1, 1, 1), torch.nan)
    for family in (Normal, Laplace):
        for parameters in ((broken, number), (number, broken)):
            law = Independent(family(*parameters, validate_args=False), 3)
            assert crps(law, torch.zeros(1, 1, 1)).isnan().all()
