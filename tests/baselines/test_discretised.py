"""Laws integrated over the bins of levels, against SciPy and the densities that they come from."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Independent, Normal

from baselines.crps import crps
from baselines.decoders.discrete import DiscretisedGaussianDecoder
from baselines.discretised import DiscretisedGaussian
from baselines.probabilities import log_mass, pit

LEVELS = (torch.arange(256) / 255).view(256, 1, 1, 1)
"""256 images of one value each, every level once."""


def law(mean: float, log_sigma: float) -> DiscretisedGaussian:
    return DiscretisedGaussian(torch.tensor([mean, log_sigma]).view(1, 1, 1, 1, 2).double())


@given(st.floats(-0.5, 1.5), st.floats(-8, 6))
@settings(max_examples=100)
def test_masses_are_scipys(mean: float, log_sigma: float) -> None:
    """From both tails of its Φ, of which each keeps the digits that the other has lost."""
    mean, log_sigma = np.float32(mean).item(), np.float32(log_sigma).item()
    theirs = scipy.stats.norm(mean, math.exp(log_sigma))
    edges = np.concatenate([[-np.inf], (np.arange(255) + 0.5) / 255, [np.inf]])
    lower, upper = np.diff(theirs.cdf(edges)), -np.diff(theirs.sf(edges))
    expected = np.where(edges[1:] > mean, upper, lower)
    found = log_mass(law(mean, log_sigma), LEVELS).exp().flatten().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-300)
    assert found.sum() == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("mean", [-0.3, 0.0, 0.2, 0.5, 1.0, 7.0])
@pytest.mark.parametrize("log_sigma", [-8.0, -4.0, -1.0, 3.0])
def test_it_is_the_8_bit_law_of_the_density(mean: float, log_sigma: float) -> None:
    density = Independent(Normal(torch.full((1, 1, 1, 1), mean), math.exp(log_sigma)), 3)
    ours, place = law(mean, log_sigma), torch.full_like(LEVELS, 0.3)
    torch.testing.assert_close(
        log_mass(ours, LEVELS), log_mass(density, LEVELS), rtol=1e-6, atol=1e-12
    )
    for one, other in (
        (pit(ours, LEVELS, place), pit(density, LEVELS, place)),
        (crps(ours, LEVELS), crps(density, LEVELS)),
    ):
        torch.testing.assert_close(one.double(), other, rtol=0, atol=1e-6)


def gradients(mean: float, log_sigma: float, level: int) -> tuple[Tensor, Tensor]:
    """ln P in float32, as in training, and its gradient by μ and ln σ."""
    raw = torch.tensor([mean, log_sigma], requires_grad=True)
    log_p = DiscretisedGaussian(raw.view(1, 1, 1, 2)).log_prob(torch.full((1, 1, 1), level / 255))
    (gradient,) = torch.autograd.grad(log_p, raw)
    return log_p, gradient


@given(st.floats(-3, 4), st.floats(-12, 8), st.integers(0, 255))
@settings(max_examples=200)
def test_gradients_are_finite(mean: float, log_sigma: float, level: int) -> None:
    log_p, gradient = gradients(mean, log_sigma, level)
    assert log_p.isfinite()
    assert log_p <= 1e-6
    assert gradient.isfinite().all()


@given(st.floats(-0.5, 1.5), st.floats(-6, 4), st.sampled_from([0, 1, 100, 254, 255]))
@settings(max_examples=100)
def test_gradients_are_slopes(mean: float, log_sigma: float, level: int) -> None:
    mean, log_sigma = np.float32(mean).item(), np.float32(log_sigma).item()
    image = torch.full((1, 1, 1, 1), level / 255)
    raw = torch.tensor([mean, log_sigma], dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda p: DiscretisedGaussian(p.view(1, 1, 1, 1, 2)).log_prob(image),
        raw.requires_grad_(),
        rtol=1e-3,
        atol=1e-4,
    )


def test_a_far_value_pulls_as_the_density_does() -> None:
    """In the middle of a fine-grained law d ln P / dμ is (x-μ)/σ², even where P is 0 in float32."""
    _, gradient = gradients(0.9, -3.0, 51)
    assert gradient[0].item() == pytest.approx((0.2 - 0.9) / math.exp(-6), rel=0.01)
    log_p, _ = gradients(0.9, -3.0, 51)
    assert log_p.item() < -95


def test_sigma_is_found_below_the_width_of_a_bin() -> None:
    """Values of N(μ, (0.3/255)²) rounded to levels: the root mean squared error of a density has
    the variance of rounding in it, a twelfth of a bin squared (Sheppard)."""
    sigma = 0.3
    rng = np.random.default_rng(0)
    means = rng.uniform(50, 200, 20_000)
    levels = np.round(rng.normal(means, sigma))
    overstated = math.sqrt(((levels - means) ** 2).mean())
    assert overstated == pytest.approx(math.sqrt(sigma**2 + 1 / 12), rel=0.02)
    decoder = DiscretisedGaussianDecoder(initial_log_sigma=-5.0, min_log_sigma=None)
    output, images = (
        torch.from_numpy(x / 255).float().view(1, 1, 200, 100) for x in (means, levels)
    )
    optimiser = torch.optim.LBFGS(decoder.parameters(), max_iter=60, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss: Tensor = -decoder(output, {}).log_prob(images).mean() / images.numel()
        loss.backward()
        return loss.detach()

    optimiser.step(closure)
    assert decoder.log_sigma.exp().item() * 255 == pytest.approx(sigma, rel=0.03)


def test_certainty_of_a_black_image_costs_nothing() -> None:
    """With a mean of 0 too, though half of the density is below 0: the end bin is open."""
    decoder = DiscretisedGaussianDecoder(initial_log_sigma=-8, min_log_sigma=None)
    black = torch.zeros(1, 1, 4, 4)
    for place, nats in ((-0.1, 0.0), (0.0, 0.0), (0.5 / 255, 16 * math.log(2))):
        found = -decoder(black + place, {}).log_prob(black).item()
        assert found == pytest.approx(nats, abs=1e-4)
