"""Calibration of Gaussians whose σ is right, doubled or shifted, and of certain discrete ones."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from baselines.distributions import Categorical
from bench.evaluation.calibration import (
    BINS,
    MIN_VARIANCE,
    calibration,
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


def gaussian(seed: int, *, said: float = 1.0, shift: float = 0.0) -> PosteriorSample:
    """Images from N(m, 0.1²) scored as N(m + shift·0.1, (said·0.1)²)."""
    rng = torch.Generator().manual_seed(seed)
    mean = torch.rand(COUNT, *SHAPE, generator=rng)
    images = mean + 0.1 * torch.randn(COUNT, *SHAPE, generator=rng)
    return drawn(images, Independent(Normal(mean + 0.1 * shift, torch.tensor(0.1 * said)), 3))


def counts(of: PosteriorSample) -> Tensor:
    return pit_counts(of, generator(0, "test"))


def test_a_calibrated_decoder_has_none_but_sampling_noise() -> None:
    found = calibration(counts(gaussian(0)))
    values = COUNT * math.prod(SHAPE)
    assert found.error < 3 * 0.5 / math.sqrt(values)
    assert found.error < 4 * found.standard_error + 1e-4
    assert found.nominal == pytest.approx(np.arange(1, 100) / 100)
    assert found.observed == pytest.approx(found.nominal, abs=4 * 0.5 / math.sqrt(values))
    assert found.density == pytest.approx([1.0] * BINS, abs=5 * math.sqrt(BINS / values))
    value, error = z_variance(z_moments(gaussian(0)))
    assert abs(value - 1) < 4 * error


@pytest.mark.parametrize("said", [2.0, 0.5])
def test_a_wrong_sigma_has_the_error_that_theory_gives(said: float) -> None:
    """An interval of q covers 2Φ(said·Φ⁻¹((1+q)/2)) - 1."""
    found = calibration(counts(gaussian(1, said=said)))
    nominal = np.arange(1, 100) / 100
    covered = 2 * stats.norm.cdf(said * stats.norm.ppf((1 + nominal) / 2)) - 1
    assert found.observed == pytest.approx(covered, abs=0.005)
    expected = np.abs(covered - nominal).mean()
    assert abs(found.error - expected) < 4 * found.standard_error
    fine = (np.arange(100_000) + 0.5) / 100_000
    integral = np.abs(2 * stats.norm.cdf(said * stats.norm.ppf((1 + fine) / 2)) - 1 - fine).mean()
    assert found.error == pytest.approx(integral, abs=0.005)
    value, error = z_variance(z_moments(gaussian(1, said=said)))
    assert abs(value - said**-2) < 4 * error


def test_a_shifted_mean_moves_the_histogram_but_not_the_variance_of_z() -> None:
    shifted = gaussian(2, shift=1)
    value, error = z_variance(z_moments(shifted))
    assert abs(value - 1) < 4 * error
    density = calibration(counts(shifted)).density
    assert density == sorted(density, reverse=True)
    edges = stats.norm.cdf(stats.norm.ppf(np.linspace(0, 1, BINS + 1)) + 1)
    assert density == pytest.approx(BINS * np.diff(edges), abs=0.05)


def test_errors_are_the_spread_over_repeats() -> None:
    # Errors of an image go together, as those of a decoder with z from a posterior do.
    def one(seed: int) -> tuple[float, float, float, float]:
        rng = torch.Generator().manual_seed(seed)
        scale = 0.5 + torch.rand(COUNT, 1, 1, 1, generator=rng)
        images = scale * torch.randn(COUNT, 1, 8, 8, generator=rng)
        of = drawn(images, Independent(Normal(torch.zeros_like(images), torch.tensor(2.0)), 3))
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
