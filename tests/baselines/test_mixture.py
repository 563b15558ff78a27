"""EM for spherical Gaussian mixtures against closed forms and scikit-learn's."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.mixture import GaussianMixture
from torch import Tensor

from baselines.mixture import SphericalMixture, VarianceRule, fit, initial, step

CENTRES = torch.tensor([[-3.0, 0.0], [3.0, 0.0], [0.0, 4.0]], dtype=torch.float64)
SIGMAS = torch.tensor([0.4, 0.8, 0.6], dtype=torch.float64)
TRUTH = SphericalMixture(torch.tensor([0.5, 0.3, 0.2]).double(), CENTRES, SIGMAS.square())


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def points() -> Tensor:
    return TRUTH.sample(600, stream())


def near_truth() -> SphericalMixture:
    return SphericalMixture(torch.full((3,), 1 / 3).double(), CENTRES + 0.3, torch.ones(3).double())


def test_learned_variances_are_those_of_scikit_learn(points: Tensor) -> None:
    start = initial(points, 3, stream(4))
    peer = GaussianMixture(
        3, covariance_type="spherical", reg_covar=0, tol=1e-14, max_iter=2000,
        weights_init=start.weights.numpy(), means_init=start.means.numpy(),
        precisions_init=1 / start.variances.numpy(),
    ).fit(points.numpy())  # fmt: skip
    ours = fit(points, start, "per_component", tolerance=1e-14)
    assert ours.converged
    np.testing.assert_allclose(ours.mixture.variances, peer.covariances_, rtol=1e-6)
    np.testing.assert_allclose(ours.mixture.means, peer.means_, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(ours.mixture.weights, peer.weights_, rtol=1e-6)
    np.testing.assert_allclose(ours.mixture.log_prob(points), peer.score_samples(points.numpy()))


def test_shared_variance_is_what_the_fit_leaves_of_the_total(points: Tensor) -> None:
    # Huygens: the variance within components is the total less that of their centres.
    mixture = fit(points, near_truth(), "shared", tolerance=1e-14).mixture
    mean = points.mean(dim=0)
    total = (points - mean).square().sum(dim=1).mean()
    between = mixture.weights @ (mixture.means - mean).square().sum(dim=1)
    np.testing.assert_allclose(mixture.variances, ((total - between) / 2).expand(3), rtol=1e-6)
    # The gradient of the likelihood in ln v is zero there, and nowhere beside.
    log_v = mixture.variances[0].log().requires_grad_()
    moved = SphericalMixture(mixture.weights, mixture.means, log_v.exp().expand(3))
    (slope,) = torch.autograd.grad(moved.log_prob(points).mean(), log_v)
    assert abs(slope) < 1e-6


@pytest.mark.parametrize("rule", ["shared", "per_component"])
def test_one_component_is_the_sample_mean_and_variance(rule: VarianceRule, points: Tensor) -> None:
    mixture = fit(points, initial(points, 1, stream()), rule).mixture
    data = points.numpy()
    np.testing.assert_allclose(mixture.means[0], data.mean(axis=0))
    np.testing.assert_allclose(mixture.sigma**2, data.var(axis=0).mean())


def test_density_is_that_of_torch(points: Tensor) -> None:
    normal = torch.distributions.Normal(CENTRES, SIGMAS.unsqueeze(1))
    peer = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(TRUTH.weights), torch.distributions.Independent(normal, 1)
    )
    torch.testing.assert_close(TRUTH.log_prob(points), peer.log_prob(points))


@st.composite
def tables(draw: st.DrawFn) -> Tensor:
    numbers = st.integers(-8, 8)  # coarse, so that points coincide and components run empty
    rows = draw(st.lists(st.tuples(numbers, numbers), min_size=4, max_size=20))
    return torch.tensor(rows, dtype=torch.float64) * draw(st.sampled_from([1e-3, 1.0, 1e3]))


@settings(max_examples=60, deadline=None)
@given(
    tables(),
    st.integers(1, 4),
    st.sampled_from(["fixed", "shared", "per_component"]),
    st.sampled_from([None, 1e-4, 1.0, 1e4]),
    st.integers(0, 3),
)
def test_likelihood_never_falls(
    points: Tensor, components: int, rule: VarianceRule, variance: float | None, seed: int
) -> None:
    start = initial(points, components, stream(seed), variance)
    floor = min(1e-6, float(start.variances.min()))
    found = fit(points, start, rule, iterations=40, min_variance=floor)
    trace = found.log_likelihoods
    assert trace.isfinite().all()
    slack = 1e-12 * trace.abs().clamp(min=1)[:-1]
    assert (trace.diff() >= -slack).all()
    mixture = found.mixture
    torch.testing.assert_close(mixture.weights.sum(), torch.tensor(1.0).double())
    assert mixture.means.isfinite().all()
    assert (mixture.variances >= floor).all()


def test_a_component_without_points_keeps_its_place_and_loses_its_weight(points: Tensor) -> None:
    far = torch.tensor([[1e4, 1e4]]).double()
    thirds, ones = torch.full((3,), 1 / 3).double(), torch.ones(3).double()
    start = SphericalMixture(thirds, torch.cat([CENTRES[:2], far]), ones)
    after, _ = step(start, points, "per_component", 1e-6)
    assert after.weights[2] == 0
    assert torch.equal(after.means[2:], far)
    assert after.variances[2] == 1
    again = fit(points, after, "shared").mixture
    assert again.log_prob(points).isfinite().all()


def test_a_component_on_a_single_point_ends_at_the_least_variance(points: Tensor) -> None:
    lonely = torch.cat([points, torch.tensor([[50.0, 50.0]]).double()])
    variances = torch.cat([TRUTH.variances, torch.tensor([1e-2]).double()])
    weights, means = torch.full((4,), 0.25).double(), torch.cat([CENTRES, lonely[-1:]])
    start = SphericalMixture(weights, means, variances)
    mixture = fit(lonely, start, "per_component", min_variance=1e-4).mixture
    assert mixture.variances[3] == pytest.approx(1e-4)


def test_too_large_a_variance_merges_and_too_small_a_one_scores_worse(points: Tensor) -> None:
    fresh = TRUTH.sample(2000, stream(9))
    scores = {}
    for name, variance in (("large", 3.5**2), ("small", 0.1**2), ("learned", None)):
        start = SphericalMixture(
            near_truth().weights, CENTRES, torch.full((3,), variance or 1.0).double()
        )
        mixture = fit(points, start, "shared" if variance is None else "fixed").mixture
        scores[name] = float(mixture.log_prob(fresh).mean())
        if name == "large":
            assert mixture.components_used(points) == pytest.approx(1, abs=1e-4)
            torch.testing.assert_close(
                mixture.means, points.mean(dim=0).expand(3, 2), atol=0.02, rtol=0
            )
        else:
            assert mixture.components_used(points) > 2.7
    assert scores["learned"] > scores["large"] + 0.5
    assert scores["learned"] > scores["small"] + 5


def test_components_used_counts_components_that_are_told_apart() -> None:
    # Of weights w without overlap it is the perplexity exp H(w).
    weights = torch.tensor([0.5, 0.25, 0.25]).double()
    mixture = SphericalMixture(weights, 100 * CENTRES, torch.ones(3).double())
    points = mixture.means[[0, 0, 1, 2]]
    assert mixture.components_used(points) == pytest.approx(math.exp(1.5 * math.log(2)))


def test_samples_have_the_moments_of_the_mixture() -> None:
    count = 40_000
    drawn = TRUTH.sample(count, stream(1))
    mean = TRUTH.weights @ CENTRES
    spread = TRUTH.weights @ (CENTRES - mean).square() + TRUTH.sigma**2
    errors = (spread / count).sqrt()
    assert ((drawn.mean(dim=0) - mean).abs() < 4 * errors).all()
    torch.testing.assert_close(drawn.var(dim=0), spread, rtol=0.03, atol=0)


def test_the_start_is_fixed_by_its_stream_and_lies_on_points(points: Tensor) -> None:
    first, second = initial(points, 3, stream(7)), initial(points, 3, stream(7))
    assert torch.equal(first.means, second.means)
    assert (first.means.unsqueeze(1) == points).all(dim=2).any(dim=1).all()
    same = torch.ones(5, 2).double()
    assert initial(same, 3, stream()).variances.tolist() == [1.0, 1.0, 1.0]


def test_what_cannot_be_fitted_is_refused(points: Tensor) -> None:
    with pytest.raises(ValueError, match="finite points"):
        initial(torch.tensor([[math.nan, 0.0]]), 1, stream())
    with pytest.raises(ValueError, match="finite points"):
        fit(points[:, 0], TRUTH, "shared")
    with pytest.raises(ValueError, match="4 components for 3 points"):
        initial(points[:3], 4, stream())
    with pytest.raises(ValueError, match="positive"):
        initial(points, 3, stream(), variance=0.0)
