"""The rate's two parts on linear-Gaussian data, where both have closed forms."""

import math

import pytest
import torch

from bench.evaluation.context import mean_and_error
from bench.evaluation.information import active_units, information


def encodings(count: int, spread: list[float], sigma: float) -> tuple[torch.Tensor, ...]:
    """Posterior means N(0, spread²), log variances 2 ln σ and noise: z ~ N(0, spread² + σ²)."""
    rng = torch.Generator().manual_seed(0)
    mean = torch.tensor(spread) * torch.randn(count, len(spread), generator=rng)
    noise = torch.randn(count, len(spread), generator=rng)
    return mean, torch.full_like(mean, 2 * math.log(sigma)), noise


@pytest.mark.parametrize("spread", [[0.0, 0.0], [0.9], [0.3, 0.6, 0.9]])
def test_both_parts_of_the_rate_are_the_closed_forms(spread: list[float]) -> None:
    """I(x; z) = ½ Σ ln(1 + s²/σ²), KL(N(0, s² + σ²) || N(0, 1)) = ½ Σ (v - 1 - ln v)."""
    sigma = 0.6
    mean, log_variance, noise = encodings(6000, spread, sigma)
    rate = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
    values = information(mean, log_variance, noise)
    variances = [s**2 + sigma**2 for s in spread]
    mutual = sum(0.5 * math.log(v / sigma**2) for v in variances)
    marginal = sum(0.5 * (v - 1 - math.log(v)) for v in variances)
    for parts, expected in ((values, mutual), (rate - values, marginal)):
        found, error = mean_and_error(parts)
        assert abs(found - expected) < 4 * error + 1e-3
    assert len(spread) < 3 or mutual > 0.8


def test_information_is_a_sum_over_the_mixture_whatever_the_rows() -> None:
    mean, log_variance, noise = encodings(70, [1.0, 2.0], 0.7)
    log_variance = log_variance + mean.abs()  # each image its own width
    scale = (0.5 * log_variance.double()).exp()
    draws = mean.double() + scale * noise.double()
    q = torch.distributions.Normal(mean.double(), scale)
    expected = [
        q.log_prob(z).sum(1)[n] - (q.log_prob(z).sum(1).exp().mean()).log()
        for n, z in enumerate(draws)
    ]
    for rows in (512, 70, 32, 1):
        found = information(mean, log_variance, noise, rows=rows)
        torch.testing.assert_close(found, torch.stack(expected))


def test_it_saturates_at_ln_n_and_never_passes_it() -> None:
    mean, log_variance, noise = encodings(300, [100.0] * 8, 0.001)
    found = information(mean, log_variance, noise)
    assert (found <= math.log(300) + 1e-9).all()
    assert found.mean().item() == pytest.approx(math.log(300), abs=1e-6)


def test_a_collapsed_posterior_carries_nothing() -> None:
    mean, log_variance, noise = encodings(300, [0.0] * 4, 1.0)
    found = information(mean, log_variance, noise)
    torch.testing.assert_close(found, torch.zeros(300).double(), rtol=0, atol=1e-12)


def test_a_unit_is_active_when_its_mean_moves() -> None:
    mean, _, _ = encodings(4000, [0.0, 0.08, 0.12, 1.0], 1.0)
    assert active_units(mean + 5) == 2
