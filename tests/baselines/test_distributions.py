"""Distributions over 8-bit images against SciPy, torch's own families and closed forms."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Bernoulli, Distribution, Independent, Laplace, Normal, StudentT

from baselines.build import build_decoder
from baselines.crps import crps
from baselines.distributions import Bitwise, Categorical, EightBit, LogisticMixture
from baselines.probabilities import cumulative, log_mass, pit
from tests.specs import decoder_spec

FAMILIES = {Categorical: 256, Bitwise: 8, LogisticMixture: 15}
LEVELS = torch.arange(256).view(256, 1, 1, 1) / 255
"""256 images of one value each, every level once."""

families = pytest.mark.parametrize("family", list(FAMILIES))


def random(family: type[EightBit], *shape: int) -> EightBit:
    torch.manual_seed(0)
    parameters = torch.randn(*shape, FAMILIES[family])
    if family is LogisticMixture:
        location, log_scale = parameters[..., 5:10].sigmoid(), parameters[..., 10:] - 3
        parameters = torch.cat([parameters[..., :5], location, log_scale], dim=-1)
    return family(parameters)


def one_value(base: Callable[..., Distribution], *parameters: float) -> Independent[Distribution]:
    tensors = [torch.tensor(value, dtype=torch.float64).view(1, 1, 1, 1) for value in parameters]
    return Independent(base(*tensors), 3)


def mass(distribution: Distribution) -> np.ndarray:
    """ln P of all 256 levels of a distribution over one value."""
    found = log_mass(distribution, LEVELS)
    assert found.shape == (256, 1, 1, 1)
    return found.flatten().numpy()


# -- the discrete families -------------------------------------------------------------------------


@pytest.mark.parametrize("family", [Categorical, Bitwise])
@pytest.mark.parametrize("logit", [0.0, 7.0])
def test_equal_logits_are_eight_bits_a_dimension(family: type[EightBit], logit: float) -> None:
    """Of a softmax whatever the logit; of the bits where each is a fair coin."""
    if family is Bitwise and logit:
        logit = 0.0
    distribution = family(torch.full((4, 3, 5, 5, FAMILIES[family]), logit))
    nats = -distribution.log_prob(torch.rand(4, 3, 5, 5))
    torch.testing.assert_close(nats / (75 * math.log(2)), torch.full((4,), 8.0))


@families
def test_moments_are_those_of_the_masses(family: type[EightBit]) -> None:
    distribution = random(family, 1, 1, 1)
    p = np.exp(mass(distribution))
    values = np.arange(256) / 255
    assert p.sum() == pytest.approx(1, abs=1e-9)
    mean = (p * values).sum()
    assert distribution.mean.item() == pytest.approx(mean, abs=1e-5)
    variance = (p * (values - mean) ** 2).sum()
    assert distribution.variance.item() == pytest.approx(variance, rel=1e-4)


@families
def test_samples_follow_the_masses(family: type[EightBit]) -> None:
    distribution = random(family, 1, 1, 1)
    torch.manual_seed(1)
    levels = distribution.sample((20_000,)).mul(255).round().long().flatten()
    counts = torch.bincount(levels, minlength=256).numpy()
    expected = 20_000 * np.exp(mass(distribution))
    order = np.argsort(expected)
    # Levels that expect few draws share a bin, as Pearson's test wants.
    bins = np.floor(expected[order].cumsum() / 50).astype(int)
    observed, expected = (np.bincount(bins, x[order]) for x in (counts, expected))
    kept = expected > 5
    statistic = ((observed - expected)[kept] ** 2 / expected[kept]).sum()
    assert scipy.stats.chi2.sf(statistic, kept.sum() - 1) > 1e-3


@families
def test_shapes_of_samples_and_of_many_batch_dimensions(family: type[EightBit]) -> None:
    distribution = random(family, 2, 3, 1, 4, 4)
    assert distribution.batch_shape == (2, 3)
    assert distribution.event_shape == (1, 4, 4)
    assert distribution.sample((5,)).shape == (5, 2, 3, 1, 4, 4)
    images = distribution.sample()
    assert images.shape == distribution.mean.shape == (2, 3, 1, 4, 4)
    assert distribution.log_prob(images).shape == (2, 3)
    assert log_mass(distribution, images[:, :1]).shape == images.shape
    assert torch.equal(distribution.first(4).mean, distribution.mean.flatten(0, 1)[:4])


@families
def test_a_pass_in_pieces_is_the_pass_at_once(
    family: type[EightBit], monkeypatch: pytest.MonkeyPatch
) -> None:
    distribution = random(family, 5, 1, 3, 3)
    images, uniform = torch.rand(5, 1, 3, 3), torch.rand(5, 1, 3, 3)

    def all_of_it() -> list[Tensor]:
        moments = [distribution.mean, distribution.variance]
        return [*moments, pit(distribution, images, uniform), crps(distribution, images)]

    at_once = all_of_it()
    monkeypatch.setattr("baselines.distributions.PIECE", 2 * 9 * 256)
    for one, other in zip(at_once, all_of_it(), strict=True):
        torch.testing.assert_close(one, other)


@families
def test_the_randomised_transform_of_own_samples_is_uniform(family: type[EightBit]) -> None:
    distribution = random(family, 8, 3, 9, 9)
    torch.manual_seed(2)
    images = distribution.sample()
    place = pit(distribution, images, torch.rand(images.shape)).flatten().numpy()
    assert scipy.stats.kstest(place, "uniform").pvalue > 1e-3


@families
def test_the_randomised_transform_spans_the_step(family: type[EightBit]) -> None:
    distribution = random(family, 1, 1, 1)
    images = LEVELS
    p = torch.from_numpy(np.exp(mass(distribution))).view(256, 1, 1, 1)
    low, high = (pit(distribution, images, torch.full_like(images, u)) for u in (0.0, 1.0))
    torch.testing.assert_close(high - low, p, rtol=0, atol=1e-9)
    torch.testing.assert_close(high, p.cumsum(0), rtol=0, atol=1e-9)


def test_the_categorical_gradient_is_that_of_the_cross_entropy() -> None:
    torch.manual_seed(0)
    logits = (5 * torch.randn(2, 3, 4, 4, 256, dtype=torch.float64)).requires_grad_()
    images = torch.rand(2, 3, 4, 4)
    weight = torch.tensor([1.0, -2.0])
    ours = Categorical(logits).log_prob(images)
    level = (images * 255).round().long().flatten()
    entropy = torch.nn.functional.cross_entropy(
        logits.reshape(-1, 256), level, reduction="none"
    ).reshape(2, -1)
    torch.testing.assert_close(ours, -entropy.sum(-1))
    (one,) = torch.autograd.grad((weight * ours).sum(), logits)
    (other,) = torch.autograd.grad(-(weight * entropy.sum(-1)).sum(), logits)
    torch.testing.assert_close(one, other)


def test_the_categorical_gradient_under_vmap() -> None:
    torch.manual_seed(0)
    logits, images = torch.randn(3, 2, 1, 2, 2, 256), torch.rand(3, 2, 1, 2, 2)
    gradient = torch.func.grad(lambda raw, x: Categorical(raw).log_prob(x).sum())
    together = torch.func.vmap(gradient)(logits, images)
    apart = torch.stack([gradient(*pair) for pair in zip(logits, images, strict=True)])
    torch.testing.assert_close(together, apart)


def test_bits_are_independent_classifiers() -> None:
    """A level of which every bit is named with certainty is the only one that can be."""
    for level in (0, 1, 128, 200, 255):
        bits = torch.tensor([level >> bit & 1 for bit in range(8)])
        distribution = Bitwise((200.0 * (2 * bits - 1)).view(1, 1, 1, 8))
        assert distribution.mean.item() == pytest.approx(level / 255)
        assert mass(distribution)[level] == pytest.approx(0, abs=1e-6)


@given(st.floats(-0.5, 1.5), st.floats(-7, 1))
@settings(max_examples=50)
def test_a_mixture_of_one_is_the_discretised_logistic(location: float, log_scale: float) -> None:
    raw = torch.tensor([0.3, location, log_scale], dtype=torch.float64).view(1, 1, 1, 3)
    logistic = scipy.stats.logistic(location, math.exp(log_scale))
    edges = np.concatenate([[-np.inf], (np.arange(255) + 0.5) / 255, [np.inf]])
    # In the upper tail the survival function keeps the digits that the cdf has lost.
    lower, upper = np.diff(logistic.cdf(edges)), -np.diff(logistic.sf(edges))
    expected = np.where(edges[1:] > location, upper, lower)
    found = np.exp(mass(LogisticMixture(raw)))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-300)


def test_a_mixture_is_the_weighted_sum_of_its_parts() -> None:
    location, log_scale = torch.tensor([0.2, 0.9]), torch.tensor([-4.0, -2.0])
    weight = torch.tensor([0.25, 0.75])
    whole = LogisticMixture(torch.cat([weight.log(), location, log_scale]).view(1, 1, 1, 6))
    parts = [
        LogisticMixture(torch.stack([torch.zeros(()), *rest]).view(1, 1, 1, 3))
        for rest in zip(location, log_scale, strict=True)
    ]
    expected = sum(w * np.exp(mass(part)) for w, part in zip((0.25, 0.75), parts, strict=True))
    np.testing.assert_allclose(np.exp(mass(whole)), expected, rtol=1e-5)


def test_a_mixture_of_logistics_begins_nearly_uniform_and_can_leave_the_range() -> None:
    """Raw zeros cost little more than 8 bits; a component beyond an end is that level alone."""
    decoder = build_decoder(decoder_spec("logistic_mixture"))
    raw = torch.zeros(256, decoder.outputs, 1, 1)
    assert 8 < -log_mass(decoder(raw, {}), LEVELS).mean() / math.log(2) < 8.2
    raw[:, 5:10] = -3  # the locations, output-major
    assert log_mass(decoder(raw, {}), 0 * LEVELS).exp().min() > 0.999


def test_a_far_logistic_keeps_a_gradient() -> None:
    """Where every naive difference of sigmoids is 0, the location is still pulled to the data."""
    raw = torch.tensor([0.0, 1.0, -7.0]).view(1, 1, 1, 3).requires_grad_()
    log_prob = LogisticMixture(raw).log_prob(torch.full((1, 1, 1), 0.2))
    (gradient,) = torch.autograd.grad(log_prob, raw)
    assert log_prob.isfinite()
    assert gradient.isfinite().all()
    assert gradient[..., 1].item() < -1000


# -- masses of continuous distributions ------------------------------------------------------------


def binned(cdf: Callable[..., np.ndarray], sf: Callable[..., np.ndarray]) -> np.ndarray:
    """P of all 256 bins from both tails of a distribution, the end bins open."""
    edges = np.concatenate([[-np.inf], (np.arange(255) + 0.5) / 255, [np.inf]])
    lower, upper = np.diff(cdf(edges)), -np.diff(sf(edges))
    return np.where(cdf(edges[1:]) < 0.5, lower, upper)


@given(st.floats(-0.5, 1.5), st.floats(-4, 3))
@settings(max_examples=50)
def test_gaussian_masses_are_scipys(mean: float, log_sigma: float) -> None:
    theirs = scipy.stats.norm(mean, math.exp(log_sigma))
    found = np.exp(mass(one_value(Normal, mean, math.exp(log_sigma))))
    np.testing.assert_allclose(found, binned(theirs.cdf, theirs.sf), rtol=1e-6, atol=1e-14)
    assert found.sum() == pytest.approx(1, abs=1e-9)


@given(st.floats(2.1, 1e3), st.floats(-0.5, 1.5), st.floats(-6, 1))
@settings(max_examples=50)
def test_student_masses_are_scipys(df: float, location: float, log_scale: float) -> None:
    theirs = scipy.stats.t(df, location, math.exp(log_scale))
    found = np.exp(mass(one_value(StudentT, df, location, math.exp(log_scale))))
    np.testing.assert_allclose(found, binned(theirs.cdf, theirs.sf), rtol=1e-5, atol=1e-13)
    assert found.sum() == pytest.approx(1, abs=1e-9)


@given(st.floats(-0.5, 1.5), st.floats(-6, 3))
@settings(max_examples=50)
def test_laplace_masses_are_scipys(location: float, log_b: float) -> None:
    theirs = scipy.stats.laplace(location, math.exp(log_b))
    found = np.exp(mass(one_value(Laplace, location, math.exp(log_b))))
    np.testing.assert_allclose(found, binned(theirs.cdf, theirs.sf), rtol=1e-6, atol=1e-300)
    assert found.sum() == pytest.approx(1, abs=1e-9)


def test_laplace_masses_of_latent_diffusions_scale() -> None:
    """Half a level is 3922 b wide: a step of a level costs 7843 nats; no mass underflows."""
    found = mass(one_value(Laplace, 0.0, 5e-7))
    assert found[0] == pytest.approx(0, abs=1e-12)
    steps = np.arange(1, 256) - 0.5
    np.testing.assert_allclose(found[1:], -steps / 255 / 5e-7 - math.log(2), rtol=1e-12)


def test_gaussian_masses_far_in_the_tail() -> None:
    """200 σ away a bin's mass is its inner edge's: ln Q(t) = -t²/2 - ln t - ½ ln 2π - 1/t² + …."""
    sigma = 1 / 255
    found = mass(one_value(Normal, 0.0, sigma))
    for level in (30, 100, 200, 255):
        t = level - 0.5
        log_tail = -t * t / 2 - math.log(t) - 0.5 * math.log(2 * math.pi) - 1 / t**2
        assert found[level] == pytest.approx(log_tail, abs=1e-4)
    mirrored = mass(one_value(Normal, 1.0, sigma))
    np.testing.assert_allclose(found, mirrored[::-1], rtol=1e-9, atol=1e-12)


def test_a_narrow_bin_is_density_times_width() -> None:
    for base in (Normal, Laplace):
        distribution = one_value(base, 0.4, 30.0)
        density = distribution.log_prob(LEVELS).numpy() - math.log(255)
        np.testing.assert_allclose(mass(distribution)[1:-1], density[1:-1], atol=1e-4)


def test_student_with_many_degrees_of_freedom_is_the_gaussian() -> None:
    student, normal = one_value(StudentT, 1e8, 0.3, 0.05), one_value(Normal, 0.3, 0.05)
    np.testing.assert_allclose(mass(student), mass(normal), rtol=1e-4, atol=1e-5)
    for places in (
        [pit(each, LEVELS, torch.full_like(LEVELS, 0.3)) for each in (student, normal)],
        [cumulative(each, LEVELS) for each in (student, normal)],
    ):
        torch.testing.assert_close(*places, rtol=0, atol=1e-7)
    torch.testing.assert_close(
        student.log_prob(LEVELS), normal.log_prob(LEVELS), rtol=1e-5, atol=1e-5
    )


def test_a_student_tail_beyond_float64_is_finite() -> None:
    found = mass(one_value(StudentT, 1e9, 0.0, math.exp(-6)))
    assert np.isfinite(found).all()
    assert (np.diff(found) < 0).all()


def test_any_base_with_a_cdf_will_do() -> None:
    """A user's own Laplace, whose tail is ln P = -x/b + const., has no mass of 0 anywhere."""
    found = mass(one_value(Laplace, 0.0, 0.002))
    assert np.exp(found).sum() == pytest.approx(1, abs=1e-6)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(np.diff(found)[100:254], -1 / (255 * 0.002), rtol=1e-6)
    place = cumulative(one_value(Laplace, 0.0, 0.1), LEVELS)
    np.testing.assert_allclose(
        place.flatten(), scipy.stats.laplace(0, 0.1).cdf(np.arange(256) / 255), atol=1e-7
    )


@pytest.mark.parametrize(
    ("law", "theirs"),
    [
        (one_value(Normal, 0.1, 0.2), scipy.stats.norm(0.1, 0.2)),
        (one_value(Normal, 0.9, 0.004), scipy.stats.norm(0.9, 0.004)),
        (one_value(StudentT, 2.1, 0.0, 0.01), scipy.stats.t(2.1, 0.0, 0.01)),
        (one_value(Laplace, 0.3, 0.1), scipy.stats.laplace(0.3, 0.1)),
    ],
    ids=["wide", "narrow", "student", "laplace"],
)
def test_the_transform_of_a_density_spans_the_bin_of_its_8_bit_law(
    law: Distribution, theirs: scipy.stats.rv_continuous
) -> None:
    """F of the lower edge to F of the upper one, 0 and 1 at the open ends, in the tails too."""
    edges = np.concatenate([[-np.inf], (np.arange(255) + 0.5) / 255, [np.inf]])
    low, mid, high = (pit(law, LEVELS, torch.full_like(LEVELS, u)).flatten() for u in (0, 0.25, 1))
    np.testing.assert_allclose(low, theirs.cdf(edges[:-1]), rtol=1e-4, atol=1e-300)
    np.testing.assert_allclose(high, theirs.cdf(edges[1:]), rtol=1e-4, atol=1e-300)
    torch.testing.assert_close(mid, low + 0.25 * (high - low))
    torch.testing.assert_close(high - low, log_mass(law, LEVELS).exp().flatten(), rtol=0, atol=1e-9)


def test_a_density_and_a_softmax_of_the_same_8_bit_law_have_the_same_transform() -> None:
    torch.manual_seed(0)
    mean, images, uniform = torch.rand(3, 20, 1, 4, 4)
    law = Independent(Normal(mean, 0.1), 3)
    levels = (torch.arange(256) / 255).view(256, 1, 1, 1, 1).expand(256, *mean.shape)
    masses = log_mass(Independent(Normal(mean.double(), 0.1), 3), levels)
    softmax = Categorical(masses.movedim(0, -1))
    for one, other in (
        (pit(law, images, uniform), pit(softmax, images, uniform)),
        (crps(law, images), crps(softmax, images)),
    ):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def test_the_transform_of_a_gaussians_own_values_is_uniform() -> None:
    """Of its draws as they are under the density, and cut to 8 bits under the 8-bit law."""
    torch.manual_seed(0)
    distribution = Independent(Normal(torch.rand(9, 3, 9, 9), 0.1 + torch.rand(9, 3, 9, 9)), 3)
    drawn = distribution.sample()
    images = drawn.clamp(0, 1).mul(255).round().div(255)
    places = pit(distribution, images, torch.rand(images.shape)), cumulative(distribution, drawn)
    for place in places:
        assert place.dtype == torch.float64
        assert scipy.stats.kstest(place.flatten().numpy(), "uniform").pvalue > 1e-3


def test_what_has_no_masses_says_so() -> None:
    image = torch.zeros(1, 1, 1)
    with pytest.raises(NotImplementedError):
        log_mass(Independent(Bernoulli(torch.full((1, 1, 1), 0.5)), 3), image)
    with pytest.raises(TypeError, match="Normal is neither"):
        log_mass(Normal(image, image + 1), image)


def test_a_law_of_levels_has_no_density_to_transform() -> None:
    with pytest.raises(TypeError, match="Categorical"):
        cumulative(Categorical(torch.zeros(1, 1, 1, 256)), torch.zeros(1, 1, 1))
