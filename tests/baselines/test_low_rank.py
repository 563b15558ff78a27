"""The low-rank Gaussian against torch's own, SciPy's and its moments."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import LowRankMultivariateNormal

from baselines.decoders.gaussian import SharedGaussian, gaussian
from baselines.decoders.low_rank import LowRankGaussian, LowRankGaussianDecoder, solve

EVENT = (2, 3, 4)


def law(rank: int, log_sigma: float, *batch: int, scale: float = 0.3) -> LowRankGaussian:
    mean = torch.rand(*batch, *EVENT, dtype=torch.float64)
    factor = scale * torch.randn(*batch, rank, *EVENT, dtype=torch.float64)
    made = LowRankGaussian(mean, factor, torch.tensor(0.0))
    made.log_sigma = torch.tensor(log_sigma, dtype=torch.float64)
    return made


def peer(of: LowRankGaussian) -> LowRankMultivariateNormal:
    diagonal = (2 * of.log_sigma).exp().expand(of.loc.flatten(-3).shape)
    return LowRankMultivariateNormal(of.loc.flatten(-3), of.factor.flatten(-3).mT, diagonal)


@pytest.mark.parametrize("rank", [1, 3, 8, 30])
@pytest.mark.parametrize("log_sigma", [-3.0, 0.0, 2.0])
def test_it_is_torchs_own(rank: int, log_sigma: float) -> None:
    """Of more columns than values too."""
    torch.manual_seed(0)
    ours = law(rank, log_sigma, 5, 2)
    theirs, images = peer(ours), torch.rand(5, 2, *EVENT).double()
    torch.testing.assert_close(ours.log_prob(images), theirs.log_prob(images.flatten(-3)))
    torch.testing.assert_close(ours.variance.flatten(-3), theirs.variance)
    assert ours.mean.equal(ours.loc)


def test_it_is_scipys() -> None:
    torch.manual_seed(0)
    ours, image = law(3, -1.0), torch.rand(EVENT).double()
    columns = ours.factor.flatten(-3).numpy()
    covariance = columns.T @ columns + math.exp(-2) * np.eye(24)
    expected = scipy.stats.multivariate_normal(ours.loc.flatten(), covariance).logpdf(
        image.flatten()
    )
    assert ours.log_prob(image).item() == pytest.approx(expected, rel=1e-10)


def test_float32_keeps_its_digits_where_the_columns_explain_the_error() -> None:
    """σ of a quarter level and an error of U's own: ‖d‖²/σ² is 10⁸, of which nothing is left."""
    torch.manual_seed(0)
    exact = law(3, -7.0, 4, scale=1.0)
    images = exact.loc + (torch.randn(4, 3, 1, 1, 1) * exact.factor).sum(-4)
    images = images + math.exp(-7) * torch.randn(4, *EVENT)
    rounded = LowRankGaussian(exact.loc.float(), exact.factor.float(), exact.log_sigma)
    exact = LowRankGaussian(rounded.loc.double(), rounded.factor.double(), exact.log_sigma)
    found = rounded.log_prob(images.float())
    expected = peer(exact).log_prob(images.float().double().flatten(-3))
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=0.2)


def test_without_columns_to_speak_of_it_is_the_shared_gaussian() -> None:
    torch.manual_seed(0)
    output, images = torch.randn(4, 3, 5, 5), torch.rand(4, 3, 5, 5)
    padded = torch.cat([output, torch.zeros(4, 6, 5, 5)], dim=1)
    one, other = LowRankGaussianDecoder(rank=2)(padded, {}), SharedGaussian()(output, {})
    torch.testing.assert_close(one.log_prob(images), other.log_prob(images))
    torch.testing.assert_close(one.variance, other.variance.expand_as(images))
    torch.testing.assert_close(one.mean, other.mean)


def test_samples_have_the_covariance() -> None:
    torch.manual_seed(0)
    ours = law(2, -2.0)
    samples = ours.sample((40_000,)).flatten(1)
    found, expected = torch.cov(samples.T), peer(ours).covariance_matrix
    assert (found - expected).abs().max() < 6 * expected.max() / math.sqrt(20_000)
    assert (samples.mean(0) - ours.loc.flatten()).abs().max() < 0.02


def test_a_direction_of_a_column_is_cheap_and_others_are_not() -> None:
    """An error along U costs as of variance σ² + ‖U‖², one across it as of σ²."""
    factor = torch.zeros(1, *EVENT)
    factor[0, 0, 0, 0] = 1.0
    ours = LowRankGaussian(torch.zeros(EVENT), factor, torch.tensor(math.log(0.1)))
    plain = gaussian(torch.zeros(EVENT), torch.tensor(math.log(0.1)))
    along, across = torch.zeros(EVENT), torch.zeros(EVENT)
    along[0, 0, 0], across[1, 1, 1] = 0.5, 0.5
    zero = torch.zeros(EVENT)
    price = [(law.log_prob(zero) - law.log_prob(along)).item() for law in (ours, plain)]
    assert price[0] == pytest.approx(0.5 * 0.25 / 1.01, rel=1e-4)
    assert price[1] == pytest.approx(0.5 * 0.25 / 0.01, rel=1e-4)
    assert (ours.log_prob(zero) - ours.log_prob(across)).item() == pytest.approx(12.5, rel=1e-4)


@given(st.integers(1, 12), st.floats(-4, 4), st.integers(0, 2**31))
@settings(max_examples=50)
def test_elimination_solves(rank: int, log_scale: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(3, rank, 2 * rank, generator=generator, dtype=torch.float64)
    matrix = torch.eye(rank) + math.exp(log_scale) * root @ root.mT
    right = torch.randn(3, rank, 2, generator=generator, dtype=torch.float64)
    solution, log_det = solve(matrix, right)
    torch.testing.assert_close(matrix @ solution, right, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(log_det, torch.linalg.slogdet(matrix).logabsdet)


def test_gradients_are_slopes() -> None:
    torch.manual_seed(0)
    mean, factor = torch.rand(2, 1, 2, 2).double(), torch.randn(2, 2, 1, 2, 2).double()
    images = torch.rand(2, 1, 2, 2).double()

    def log_prob(mean: Tensor, factor: Tensor, log_sigma: Tensor) -> Tensor:
        made = LowRankGaussian(mean, factor, torch.tensor(0.0))
        made.log_sigma = log_sigma
        return made.log_prob(images)

    log_sigma = torch.tensor(-1.0).double()
    inputs = [value.requires_grad_() for value in (mean, factor, log_sigma)]
    assert torch.autograd.gradcheck(log_prob, inputs)


def test_shapes_of_many_batch_dimensions() -> None:
    ours = law(3, 0.0, 2, 5)
    images = ours.sample()
    assert images.shape == ours.variance.shape == (2, 5, *EVENT)
    assert ours.sample((7,)).shape == (7, 2, 5, *EVENT)
    assert ours.log_prob(images).shape == (2, 5)
    assert ours.log_prob(images[:, :1]).shape == (2, 5)
