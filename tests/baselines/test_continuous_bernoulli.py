"""The continuous Bernoulli law against torch's own, SciPy's truncated exponential and integrals."""

import math
from decimal import Decimal, localcontext

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import ContinuousBernoulli as Peer
from torch.distributions import Independent

from baselines.continuous_bernoulli import ContinuousBernoulli, log_sinhc
from baselines.decoders.continuous_bernoulli import ContinuousBernoulliDecoder
from baselines.decoders.discrete import BernoulliDecoder
from baselines.probabilities import cumulative, log_mass

LEVELS = (torch.arange(256) / 255).view(256, 1, 1, 1)

logits = st.one_of(st.floats(-60, 60), st.floats(-1e-2, 1e-2), st.sampled_from([0.0, 1.0, -1.0]))


def law(logit: float) -> ContinuousBernoulli:
    return ContinuousBernoulli(torch.tensor(logit, dtype=torch.float64))


def fallen(logit: float) -> scipy.stats.rv_continuous:
    """SciPy's law of x, or of 1-x where the density rises, and which of the two."""
    slope = abs(logit)
    return scipy.stats.truncexpon(slope, scale=1 / slope)


@given(st.floats(-12, 12))
@settings(max_examples=100)
def test_it_is_torchs_own_away_from_the_middle(logit: float) -> None:
    if abs(logit) < 0.5:
        logit = math.copysign(0.5, logit)
    peer = Peer(logits=torch.tensor(logit, dtype=torch.float64))
    x = torch.linspace(0, 1, 9).double()
    ours = law(logit)
    torch.testing.assert_close(ours.log_prob(x), peer.log_prob(x), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(ours.cdf(x), peer.cdf(x), rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(ours.mean, peer.mean, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(ours.variance, peer.variance, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("logit", [1e-9, 1e-4, 0.01, 0.3, 0.999, 1.001, 3.0, 40.0, 300.0])
def test_it_is_the_exponential_law_cut_to_the_unit_interval(logit: float) -> None:
    x = np.linspace(0, 1, 9)
    for sign in (-1, 1):
        ours, places = law(sign * logit), torch.from_numpy(x)
        theirs, at = fallen(logit), (x if sign < 0 else 1 - x)
        np.testing.assert_allclose(ours.log_prob(places), theirs.logpdf(at), rtol=1e-7, atol=1e-7)
        expected = theirs.cdf(at) if sign < 0 else theirs.sf(at)
        np.testing.assert_allclose(ours.cdf(places), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("logit", [0.0, 1e-12, 1e-3, 0.002, 0.05, 0.99, 1.01, 5.0, 80.0])
def test_moments_have_all_their_digits(logit: float) -> None:
    """Against 60 digits, beside ½ too, where λ has no more than 4 or 5 of them in float32."""
    with localcontext() as context:
        context.prec = 60
        a = Decimal(logit)
        if logit:
            sinh = ((a / 2).exp() - (-a / 2).exp()) / 2
            mean, variance = 1 / (1 - (-a).exp()) - 1 / a, 1 / a**2 - 1 / (4 * sinh**2)
            normaliser = (sinh / (a / 2)).ln()
        else:
            mean, variance, normaliser = Decimal("0.5"), Decimal(1) / 12, Decimal(0)
    for sign in (-1, 1):
        found = law(sign * logit)
        assert found.mean.item() == pytest.approx(float(mean if sign > 0 else 1 - mean), rel=1e-9)
        assert found.variance.item() == pytest.approx(float(variance), rel=1e-8)
    half = torch.tensor(logit / 2, dtype=torch.float64)
    assert log_sinhc(half).item() == pytest.approx(float(normaliser), rel=1e-8, abs=1e-18)


@given(logits)
@settings(max_examples=100)
def test_the_masses_of_levels_sum_to_one_and_are_steps_of_the_cdf(logit: float) -> None:
    one = Independent(ContinuousBernoulli(torch.tensor(logit).view(1, 1, 1, 1)), 3)
    masses = log_mass(one, LEVELS).exp().flatten()
    assert masses.sum().item() == pytest.approx(1, abs=1e-9)
    edges = ((torch.arange(255).double() + 0.5) / 255).view(255, 1, 1, 1)
    torch.testing.assert_close(
        masses.cumsum(0)[:-1], cumulative(one, edges).flatten(), rtol=1e-9, atol=1e-12
    )


def test_a_mass_far_in_the_tail_has_its_digits() -> None:
    """Of a density a e^(-ax), ln P of a bin is -a·(lower edge) + ln(1 - e^(-a/255))."""
    one = Independent(ContinuousBernoulli(torch.full((1, 1, 1, 1), -1e5)), 3)
    found = log_mass(one, LEVELS).flatten()[1:-1]
    lower = (torch.arange(1, 255).double() - 0.5) / 255
    torch.testing.assert_close(found, -1e5 * lower, rtol=1e-12, atol=1e-9)


@given(logits, st.floats(0, 1))
@settings(max_examples=200)
def test_the_gradient_is_the_distance_to_the_mean(logit: float, x: float) -> None:
    """d ln p / da = x - E x, as in every exponential family; in float32, as in training."""
    raw = torch.tensor(logit, requires_grad=True)
    (gradient,) = torch.autograd.grad(ContinuousBernoulli(raw).log_prob(torch.tensor(x)), raw)
    expected = x - law(raw.item()).mean.item()
    assert gradient.item() == pytest.approx(expected, abs=1e-6)


def test_at_zero_it_is_uniform_with_a_gradient() -> None:
    raw = torch.zeros(3, requires_grad=True)
    x = torch.tensor([0.0, 0.5, 1.0])
    log_p = ContinuousBernoulli(raw).log_prob(x)
    (gradient,) = torch.autograd.grad(log_p.sum(), raw)
    assert torch.equal(log_p, torch.zeros(3))
    torch.testing.assert_close(gradient, x - 0.5)


@pytest.mark.parametrize("logit", [-30.0, -1.0, 0.0, 1e-4, 2.5, 400.0])
def test_samples_follow_the_law(logit: float) -> None:
    torch.manual_seed(0)
    samples = ContinuousBernoulli(torch.tensor(logit)).sample((4000,))
    assert ((samples >= 0) & (samples <= 1)).all()
    place = law(logit).cdf(samples.double())
    assert scipy.stats.kstest(place.numpy(), "uniform").pvalue > 1e-3


def test_it_is_the_cross_entropy_and_its_normaliser() -> None:
    """-ln p = BCE - ln C(λ), and C is at least 2 (Loaiza-Ganem & Cunningham, Eq. 6 and below)."""
    torch.manual_seed(0)
    output, images = 3 * torch.randn(4, 1, 5, 5), torch.rand(4, 1, 5, 5)
    ours = ContinuousBernoulliDecoder()(output, {}).log_prob(images)
    cross_entropy = -BernoulliDecoder()(output, {}).log_prob(images)
    dark = Peer(logits=output.double()).log_prob(torch.zeros(()).double())
    normaliser = (dark - torch.log1p(-output.double().sigmoid())).sum((1, 2, 3)).float()
    torch.testing.assert_close(ours + cross_entropy, normaliser, rtol=1e-5, atol=1e-4)
    assert (ours + cross_entropy >= 25 * math.log(2) - 1e-4).all()
