"""Both bounds of the information in a code, on codes for which it is known."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats
from torch import Tensor
from torch.distributions import Normal

from bench.evaluation.context import mean_and_error
from bench.evaluation.information import effective_latents, information

Code = tuple[Tensor, Tensor, Tensor]
"""Posterior means, log variances and noise, (N, latent) each."""


def encodings(count: int, spread: list[float], sigma: float, seed: int = 0) -> Code:
    """Posterior means N(0, spread²), log variances 2 ln σ and noise: z ~ N(0, spread² + σ²)."""
    rng = torch.Generator().manual_seed(seed)
    mean = torch.tensor(spread) * torch.randn(count, len(spread), generator=rng)
    noise = torch.randn(count, len(spread), generator=rng)
    return mean, torch.full_like(mean, 2 * math.log(sigma)), noise


def onto_the_prior(variance: float, count: int = 1000, latent: int = 20) -> Code:
    """A code whose aggregate posterior is N(0, 1): I(x; z) = -latent/2 · ln(variance)."""
    return encodings(count, [math.sqrt(1 - variance)] * latent, math.sqrt(variance))


def rate(code: Code) -> Tensor:
    mean, log_variance, _ = code
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)


def assert_enclosed(code: Code, truth: float) -> None:
    """Both means are on their side of the truth, up to four standard errors."""
    bounds = information(*code)
    lower, below = mean_and_error(bounds.lower)
    upper, above = mean_and_error(bounds.upper)
    assert lower - 4 * below <= truth <= upper + 4 * above


@pytest.mark.parametrize("spread", [[0.0, 0.0], [0.9], [0.3, 0.6, 0.9]])
def test_both_parts_of_the_rate_are_the_closed_forms(spread: list[float]) -> None:
    """I(x; z) = ½ Σ ln(1 + s²/σ²), KL(N(0, s² + σ²) || N(0, 1)) = ½ Σ (v - 1 - ln v)."""
    sigma = 0.6
    code = encodings(6000, spread, sigma)
    variances = [s**2 + sigma**2 for s in spread]
    mutual = sum(0.5 * math.log(v / sigma**2) for v in variances)
    marginal = sum(0.5 * (v - 1 - math.log(v)) for v in variances)
    for bound in information(*code):
        for parts, expected in ((bound, mutual), (rate(code) - bound, marginal)):
            found, error = mean_and_error(parts)
            assert abs(found - expected) < 4 * error + 1e-3
    assert len(spread) < 3 or mutual > 0.8


@pytest.mark.parametrize("truth", [1.0, 2.0, 4.0])
def test_the_bounds_close_on_what_a_thousand_images_can_show(truth: float) -> None:
    code = onto_the_prior(math.exp(-truth / 10))
    assert_enclosed(code, truth)
    lower, upper = (bound.mean().item() for bound in information(*code))
    assert upper - lower < 0.1 * truth


@pytest.mark.parametrize(("variance", "truth"), [(0.3, 12.04), (0.1, 23.03), (0.02, 39.12)])
def test_the_bounds_part_where_the_code_carries_more(variance: float, truth: float) -> None:
    """The lower bound stays at ln N; the marginal KL, 0 in truth, is between its bounds."""
    code = onto_the_prior(variance)
    assert truth == pytest.approx(-10 * math.log(variance), abs=0.005)
    assert_enclosed(code, truth)
    lower, upper = (bound.mean().item() for bound in information(*code))
    assert lower == pytest.approx(math.log(1000), abs=0.2)
    assert rate(code).mean().item() - upper < 0 < rate(code).mean().item() - lower


@pytest.mark.parametrize(("a", "sigma"), [(1.0, 0.5), (0.5, 0.6), (3.0, 0.5)])
def test_two_clusters_have_the_information_of_their_mixture(a: float, sigma: float) -> None:
    """I(x; z) = h(z) - h(z|x), the first by quadrature; images are of two kinds, evenly."""

    def integrand(z: float) -> float:
        density = stats.norm.pdf(z, [-a, a], sigma).mean()
        return float(-density * math.log(density))

    entropy, _ = integrate.quad(integrand, -a - 8 * sigma, a + 8 * sigma)
    truth = entropy - 0.5 * math.log(2 * math.pi * math.e * sigma**2)
    mean, log_variance, noise = encodings(4000, [0.0], sigma)
    mean[:2000] -= a
    mean[2000:] += a
    for bound in information(mean, log_variance, noise):
        found, error = mean_and_error(bound)
        assert abs(found - truth) < 4 * error + 1e-3


def test_the_exact_posterior_of_a_linear_model_keeps_what_the_data_say() -> None:
    """x = W z + ε with z ~ N(0, I): q is Bayes' rule, I(x; z) = ½ ln |I + WᵀW/σ²|."""
    rng = torch.Generator().manual_seed(3)
    sizes, sigma = torch.tensor([3.0, 1.0, 0.4, 0.0]), 0.7
    basis = torch.linalg.qr(torch.randn(9, 4, generator=rng))[0] * sizes
    x = torch.randn(3000, 4, generator=rng) @ basis.T
    x = x + sigma * torch.randn(3000, 9, generator=rng)
    precision = 1 + sizes.square() / sigma**2
    mean = x @ basis / (sigma**2 * precision)
    log_variance = -precision.log().expand(3000, 4)
    code = (mean, log_variance, torch.randn(3000, 4, generator=rng))
    truth = 0.5 * precision.log().sum().item()
    assert truth > 2
    assert_enclosed(code, truth)
    assert_enclosed(code, rate(code).mean().item())  # whose marginal KL is 0


def test_information_is_a_sum_over_the_mixture_whatever_the_rows() -> None:
    mean, log_variance, noise = encodings(70, [1.0, 2.0], 0.7)
    log_variance = log_variance + mean.abs()  # each image its own width
    scale = (0.5 * log_variance.double()).exp()
    q = Normal(mean.double(), scale)
    densities = torch.stack(
        [q.log_prob(z).sum(1).exp() for z in mean.double() + scale * noise.double()]
    )
    own, total = densities.diagonal(), densities.sum(1)
    lower, upper = (own / (total / 70)).log(), (own / ((total - own) / 69)).log()
    for rows in (512, 70, 32, 1):
        found = information(mean, log_variance, noise, rows=rows)
        torch.testing.assert_close(found.lower, lower)
        torch.testing.assert_close(found.upper, upper)


@given(
    st.integers(2, 30),
    st.lists(st.floats(0, 30), min_size=1, max_size=6),
    st.floats(0.05, 3),
    st.integers(0, 9),
)
def test_the_lower_bound_is_never_above_the_upper_less_its_nth_part(
    count: int, spread: list[float], sigma: float, seed: int
) -> None:
    """In every image; so the bounds are in order unless the upper one is negative."""
    lower, upper = information(*encodings(count, spread, sigma, seed))
    slack = 1e-9 * (1 + upper.abs())
    assert (lower <= (1 - 1 / count) * upper + slack).all()
    assert (lower <= math.log(count) + 1e-9).all()


def test_far_apart_one_bound_saturates_at_ln_n_and_the_other_knows_no_ceiling() -> None:
    lower, upper = information(*encodings(300, [100.0] * 8, 0.001))
    torch.testing.assert_close(lower, torch.full_like(lower, math.log(300)), rtol=0, atol=1e-6)
    assert upper.min() > 1e6


def test_a_collapsed_posterior_carries_nothing() -> None:
    for bound in information(*encodings(300, [0.0] * 4, 1.0)):
        torch.testing.assert_close(bound, torch.zeros(300).double(), rtol=0, atol=1e-12)


def test_two_images_have_one_other_each_and_a_single_one_none() -> None:
    """With unit variances ln q(z|x) - ln q(z|x') is half the squared distance, plus the noise."""
    mean, noise = torch.tensor([[0.0], [3.0]]), torch.tensor([[0.5], [0.5]])
    bounds = information(mean, torch.zeros(2, 1), noise)
    ratios = torch.tensor([4.5 - 1.5, 4.5 + 1.5]).double()
    torch.testing.assert_close(bounds.upper, ratios)
    torch.testing.assert_close(bounds.lower, math.log(2) - (-ratios).exp().log1p())
    with pytest.raises(ValueError, match="two images or more, not 1"):
        information(mean[:1], torch.zeros(1, 1), noise[:1])


@pytest.mark.parametrize("used", [1, 3, 20])
def test_latents_that_share_the_rate_evenly_count_as_that_many(used: int) -> None:
    mean, log_variance = torch.zeros(50, 20), torch.zeros(50, 20)
    mean[::2, :used], mean[1::2, :used] = 1.5, -1.5
    assert effective_latents(mean, log_variance) == pytest.approx(used)
    log_variance[:, :used] = -3.0
    assert effective_latents(mean, log_variance) == pytest.approx(used)


def test_unequal_latents_count_by_their_share_and_none_where_there_is_no_rate() -> None:
    """Shares ½, ¼, ¼: 1/(¼ + 1/16 + 1/16) = 8/3, whatever the rate."""
    shares = torch.tensor([2.0, 1.0, 1.0, 0.0])
    for size in (1e-3, 1.0, 10.0):
        mean = (size * shares).sqrt().expand(5, 4)
        assert effective_latents(mean, torch.zeros(5, 4)) == pytest.approx(8 / 3)
    assert effective_latents(torch.zeros(5, 4), torch.zeros(5, 4)) == 0
