"""Calibration of 8-bit laws that are right, too wide, too narrow or shifted, in closed form."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from baselines.distributions import Categorical
from bench.evaluation.calibration import (
    BINS,
    MIN_VARIANCE,
    calibration,
    density_counts,
    histogram,
    mean_crps,
    pit_counts,
    z_moments,
    z_variance,
)
from bench.evaluation.scorer import PosteriorSample
from bench.rng import generator

SHAPE = (3, 16, 16)
COUNT = 400


def drawn(images: Tensor, distribution: Distribution) -> PosteriorSample:
    return PosteriorSample(images, distribution, torch.zeros(len(images)), ())


def gaussian(
    seed: int, *, mean: float = 0.5, true: float = 0.5, said: float, count: int = COUNT
) -> PosteriorSample:
    """Draws from N(mean, true²), clipped and rounded to 8 bits, scored as N(½, said²)."""
    rng = torch.Generator().manual_seed(seed)
    images = mean + true * torch.randn(count, *SHAPE, generator=rng)
    images = images.clamp(0, 1).mul(255).round().div(255)
    return drawn(images, Independent(Normal(torch.full_like(images, 0.5), said), 3))


def counts(of: PosteriorSample) -> Tensor:
    return pit_counts(of, generator(0, "test"))


EDGES = np.concatenate([[-np.inf], (np.arange(255) + 0.5) / 255, [np.inf]])
NOMINAL = np.arange(1, 100) / 100
VALUES = COUNT * math.prod(SHAPE)
NOISE = 0.5 / math.sqrt(VALUES)
"""The largest standard error of a share of all values; that of their PIT values in an interval."""


def shares(true: stats.rv_continuous, said: stats.rv_continuous, to: np.ndarray) -> np.ndarray:
    """P(PIT ≤ each of `to`): a level's PIT is uniform between `said`'s F of its two edges."""
    low, high = said.cdf(EDGES[:-1]), said.cdf(EDGES[1:])
    within = np.clip((to[:, None] - low) / np.maximum(high - low, 1e-300), 0, 1)
    probabilities: np.ndarray = within @ np.diff(true.cdf(EDGES))
    return probabilities


def covered(true: stats.rv_continuous, said: stats.rv_continuous) -> np.ndarray:
    """The expected coverage of the central intervals of each `NOMINAL`."""
    low, high = (shares(true, said, (1 + side * NOMINAL) / 2) for side in (-1, 1))
    coverage: np.ndarray = high - low
    return coverage


def test_a_decoder_that_is_right_has_none_but_sampling_noise() -> None:
    """Although a third of the values are exactly 0 or 1: no worse than as many uniform numbers."""
    of = gaussian(0, said=0.5)
    found = calibration(counts(of))
    assert found.error < 3 * NOISE
    assert found.error < 4 * found.standard_error + 1e-4
    assert found.nominal == pytest.approx(NOMINAL)
    assert found.observed == pytest.approx(NOMINAL, abs=4 * NOISE)
    assert found.density == pytest.approx([1.0] * BINS, abs=5 * math.sqrt(BINS / VALUES))
    law = stats.norm(0.5, 0.5)
    p, values = np.diff(law.cdf(EDGES)), np.arange(256) / 255
    value, error = z_variance(z_moments(of))
    assert abs(value - p @ (values - 0.5) ** 2 / 0.25) < 4 * error


@pytest.mark.parametrize("said", [0.25, 1.0, 3.0])
def test_a_wrong_sigma_has_the_error_that_theory_gives(said: float) -> None:
    true, law = stats.norm(0.5, 0.5), stats.norm(0.5, said)
    of = gaussian(1, said=said)
    found = calibration(counts(of))
    expected = covered(true, law)
    assert found.observed == pytest.approx(expected, abs=4 * NOISE)
    error = np.abs(expected - NOMINAL).mean()
    assert error > 100 * NOISE
    assert abs(found.error - error) < 4 * found.standard_error
    edges = shares(true, law, np.arange(BINS + 1) / BINS)
    assert found.density == pytest.approx(BINS * np.diff(edges), abs=5 * BINS * NOISE)


@pytest.mark.parametrize("said", [0.25, 0.5, 1.0])
def test_the_score_has_the_mean_that_quadrature_gives(said: float) -> None:
    """E ∫ (F - 1{x ≤ t})² dt = ∫ F² (1-G) + (1-F)² G dt over [0, 1], x from G."""
    law, true = stats.norm(0.5, said).cdf, stats.norm(0.5, 0.5).cdf
    expected, _ = integrate.quad(
        lambda t: law(t) ** 2 * (1 - true(t)) + (1 - law(t)) ** 2 * true(t), 0, 1
    )
    scores = mean_crps(gaussian(4, said=said, count=100))
    assert abs(scores.mean().item() - expected) < 4 * scores.std().item() / math.sqrt(100)


def test_the_score_sees_the_wide_sigma_that_coverage_lets_pass() -> None:
    """Nine values in ten are black. Their PIT is uniform below ½ for any σ, and so its distance
    from ½, which is all that central intervals see: at most the light tenth is amiss."""
    rng = torch.Generator().manual_seed(5)
    light = torch.rand(40, *SHAPE, generator=rng) < 0.1
    mean = light * torch.rand(40, *SHAPE, generator=rng)
    noisy = mean + light * 0.1 * torch.randn(40, *SHAPE, generator=rng)
    images = noisy.clamp(0, 1).mul(255).round().div(255)
    wide, right = (drawn(images, Independent(Normal(mean, sigma), 3)) for sigma in (1.0, 0.1))
    assert calibration(counts(wide)).error < 0.05
    assert mean_crps(wide).mean() > 5 * mean_crps(right).mean()


def test_a_density_of_equal_values_has_one_place_for_all_of_them() -> None:
    """Of N(½, ½²) cut to 8 bits, all of the 16 % at 0 lie at F(0), and those at 1 at F(1)."""
    low = stats.norm.cdf(-1 + 1 / 255)
    found = histogram(density_counts(gaussian(6, said=0.5)))
    for place in (math.floor(low * BINS), BINS - 1 - math.floor(low * BINS)):
        assert found[place] == pytest.approx(
            BINS * low + (1 - low * BINS % 1), abs=5 * BINS * NOISE
        )
    assert found[0] == found[-1] == 0


def test_a_shifted_mean_moves_the_histogram_and_keeps_the_variance_of_z() -> None:
    shifted = gaussian(2, mean=0.4, true=0.05, said=0.05)
    value, error = z_variance(z_moments(shifted))
    assert abs(value - 1 - (1 / 255 / 0.05) ** 2 / 12) < 4 * error
    density = calibration(counts(shifted)).density
    assert density == sorted(density, reverse=True)
    edges = shares(stats.norm(0.4, 0.05), stats.norm(0.5, 0.05), np.arange(BINS + 1) / BINS)
    assert density == pytest.approx(BINS * np.diff(edges), abs=0.05)


def test_errors_are_the_spread_over_repeats() -> None:
    # Errors of an image go together, as those of a decoder with z from a posterior do.
    def one(seed: int) -> tuple[float, float, float, float]:
        rng = torch.Generator().manual_seed(seed)
        scale = 0.5 + torch.rand(COUNT, 1, 1, 1, generator=rng)
        noise = 0.05 * scale * torch.randn(COUNT, 1, 8, 8, generator=rng)
        images = (0.5 + noise).clamp(0, 1).mul(255).round().div(255)
        of = drawn(images, Independent(Normal(torch.full_like(images, 0.5), 0.1), 3))
        found = calibration(counts(of))
        return found.error, found.standard_error, *z_variance(z_moments(of))

    errors, stated, variances, stated_variances = np.array([one(seed) for seed in range(60)]).T
    assert stated.mean() == pytest.approx(errors.std(ddof=1), rel=0.3)
    assert stated_variances.mean() == pytest.approx(variances.std(ddof=1), rel=0.3)


def test_a_discrete_decoder_that_is_right_is_calibrated() -> None:
    rng = torch.Generator().manual_seed(3)
    logits = 3 * torch.randn(64, 1, 8, 8, 256, generator=rng)
    levels = torch.multinomial(logits.softmax(-1).flatten(0, 3), 1, generator=rng)
    images = levels.reshape(64, 1, 8, 8) / 255
    of = drawn(images, Categorical(logits))
    values = images.numel()
    assert calibration(counts(of)).error < 3 * 0.5 / math.sqrt(values)
    value, error = z_variance(z_moments(of))
    assert abs(value - 1) < 4 * error


def test_a_certain_decoder_counts_errors_in_roundings() -> None:
    logits = torch.zeros(2, 1, 2, 2, 256)
    logits[..., 100] = 200.0
    images = torch.full((2, 1, 2, 2), 100 / 255)
    assert z_variance(z_moments(drawn(images, Categorical(logits)))) == (0, 0)
    images[:, :, 0] = 101 / 255
    mean, square = z_moments(drawn(images, Categorical(logits)))[0]
    assert mean.item() == pytest.approx(math.sqrt(12) / 2, rel=1e-4)
    assert square.item() == pytest.approx(0.5 * (1 / 255) ** 2 / MIN_VARIANCE, rel=1e-4)


def test_chunks_do_not_change_a_randomised_transform() -> None:
    images = torch.full((10, 1, 2, 2), 7 / 255)
    logits = torch.zeros(10, 1, 2, 2, 256)
    whole = counts(drawn(images, Categorical(logits)))
    stream = generator(0, "test")
    parts = [
        pit_counts(drawn(images[part], Categorical(logits[part])), stream)
        for part in (slice(0, 3), slice(3, 10))
    ]
    # Equal bits on every CPU: 256 equal probabilities and their sums are exact.
    assert torch.equal(torch.cat(parts), whole)
