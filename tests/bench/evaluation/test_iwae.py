"""The importance-weighted bound where the truth is known: exact posteriors, normal log weights."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from baselines.build import build_decoder, build_model
from baselines.vae import Vae
from bench.evaluation.context import mean_and_error
from bench.evaluation.iwae import importance_weighted, jackknife, last_doubling, log_mean
from bench.evaluation.scorer import Scorer
from bench.training.step import scaled
from tests.specs import decoder_spec, model_spec

SIDE, LATENT, SIGMA, COUNT = 12, 2, 0.1, 512
Exact = tuple[Scorer, Tensor, Tensor]


def linear_gaussian(widening: float) -> Exact:
    """A linear VAE, 8-bit images drawn from it, and their exact ln p(x).

    q(z|x) is the true posterior with its variance times `widening`. The weights' columns are
    orthogonal, so that the true posterior is a diagonal Gaussian as well.
    """
    rng = torch.Generator().manual_seed(0)
    size = SIDE * SIDE
    orthonormal = torch.linalg.qr(torch.randn(size, LATENT, generator=rng, dtype=torch.float64))[0]
    weight, bias = orthonormal * torch.tensor([0.6, 0.3]), torch.full((size,), 0.5)
    latent = torch.randn(COUNT, LATENT, generator=rng, dtype=torch.float64)
    noise = torch.randn(COUNT, size, generator=rng, dtype=torch.float64)
    values = bias + latent @ weight.T + SIGMA * noise
    images = (values.clamp(0, 1) * 255).round().to(torch.uint8).view(COUNT, 1, SIDE, SIDE)
    # N(M⁻¹Wᵀ(x-b), σ²M⁻¹), M = WᵀW + σ²I (Tipping & Bishop 1999).
    moment = weight.square().sum(0) + SIGMA**2
    decoder = build_decoder(decoder_spec("beta", link="identity", beta=2 * SIGMA**2))
    spec = model_spec("linear_vae", latent=LATENT)
    model = build_model(spec, channels=1, resolution=SIDE, outputs=1)
    with torch.no_grad():
        projection = weight.T / moment[:, None]
        for name, value in {
            "output.weight": weight,
            "output.bias": bias,
            "head.weight": projection,
            "head.bias": -projection @ bias.double(),
            "log_variance": (widening * SIGMA**2 / moment).log(),
        }.items():
            model.get_parameter(name).copy_(value)
    covariance = weight @ weight.T + SIGMA**2 * torch.eye(size)
    marginal = MultivariateNormal(bias.double(), covariance)
    exact = marginal.log_prob(scaled(images).flatten(1).double())
    return Scorer(Vae(model, decoder), {}, torch.float32), images, exact


def test_with_the_true_posterior_every_draw_gives_the_evidence() -> None:
    scorer, images, exact = linear_gaussian(1.0)
    bound = importance_weighted(scorer, images, 16, seed=0)
    # Sums of 144 values in float32, of some 130 nats.
    torch.testing.assert_close(bound.log_p, exact, rtol=0, atol=1e-3)
    torch.testing.assert_close(bound.effective_draws, torch.full_like(exact, 16), rtol=1e-5, atol=0)
    assert bound.monte_carlo_variance.max().sqrt() < 1e-3
    assert bound.gain.abs().max() < 1e-3


def test_a_posterior_of_double_variance_has_uniform_weights() -> None:
    """p/q = 2 exp(-½|ε|²) with two latents, and exp(-½|ε|²) is uniform on [0, 1].

    So the bound less ln p(x) is the log mean of K numbers 2U, whatever the image.
    """
    scorer, images, exact = linear_gaussian(2.0)
    uniform = 2 * np.random.default_rng(0).random((16, 200_000))
    truth = np.log(uniform.mean(0))
    bounds = [importance_weighted(scorer, images, 16, seed=seed) for seed in range(24)]
    gaps = torch.stack([bound.log_p - exact for bound in bounds])
    gap, error = mean_and_error(gaps.flatten())
    assert abs(gap - truth.mean()) < 4 * error
    assert gap < -5 * error  # a lower bound, and visibly one
    stated = torch.stack([bound.monte_carlo_variance for bound in bounds])
    assert stated.mean().sqrt() == pytest.approx(truth.std(), rel=0.03)
    assert gaps.var(0).mean().sqrt() == pytest.approx(truth.std(), rel=0.05)
    effective = (uniform.sum(0) ** 2 / np.square(uniform).sum(0)).mean()
    found = torch.stack([bound.effective_draws for bound in bounds]).mean()
    assert found.item() == pytest.approx(effective, rel=0.01)
    # Doubling the draws halves a bias that falls as 1/K, so that what it gained is what is left.
    gain = torch.stack([bound.gain for bound in bounds]).mean()
    assert gain.item() == pytest.approx(-truth.mean(), rel=0.15)


def test_one_draw_tells_nothing_of_its_spread() -> None:
    scorer, images, _ = linear_gaussian(2.0)
    bound = importance_weighted(scorer, images[:10], 1, seed=0)
    assert bound.monte_carlo_variance.isnan().all()
    assert bound.gain.isnan().all()
    assert (bound.effective_draws == 1).all()


def log_weights(spread: float, draws: int, images: int, seed: int) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return spread * torch.randn(draws, images, generator=rng, dtype=torch.float64)


@pytest.mark.parametrize("draws", [2, 5, 16, 64])
@pytest.mark.parametrize("spread", [0.1, 1, 3, 10, 100])
def test_the_monte_carlo_error_is_the_spread_over_repeats(spread: float, draws: int) -> None:
    """At a spread of 100 one draw is all of the sum, where the delta method is 50 times too small.

    Two draws of wide weights are the hardest: the error is then 1.3 times too large.
    """
    weights = log_weights(spread, draws, 10_000, seed=draws)
    stated, true = jackknife(weights).mean().sqrt().item(), log_mean(weights).std().item()
    assert stated == pytest.approx(true, rel=0.35 if draws == 2 else 0.18)


@pytest.mark.parametrize("draws", [5, 16])
@pytest.mark.parametrize("spread", [0.1, 1, 10, 100])
def test_two_errors_cover_the_mean_of_repeats(spread: float, draws: int) -> None:
    """A repeat has 100 images; the share of covered means has a standard error of 0.01."""
    repeats, images = 500, 100
    weights = log_weights(spread, draws, repeats * images, seed=7)
    bounds = log_mean(weights).view(repeats, images).mean(1)
    errors = jackknife(weights).view(repeats, images).sum(1).sqrt() / images
    covered = ((bounds - bounds.mean()).abs() < 1.96 * errors).double().mean().item()
    assert 0.91 < covered < 0.99


def test_the_jackknife_leaves_out_each_draw_in_turn() -> None:
    """Of a mean of K numbers it is the variance over K, for weights that are nearly equal too."""
    weights = torch.tensor([[0.0], [-2000.0], [-2003.0]], dtype=torch.float64)
    left = torch.stack([log_mean(torch.cat([weights[:k], weights[k + 1 :]])) for k in range(3)])
    torch.testing.assert_close(jackknife(weights), 2 * left.var(0, correction=0))
    close = 1e-6 * log_weights(1.0, 8, 50, seed=0)
    torch.testing.assert_close(jackknife(close), close.var(0) / 8, rtol=1e-4, atol=0)


def test_an_odd_draw_is_left_out_of_the_doubling() -> None:
    weights = log_weights(1.0, 7, 50, seed=0)
    assert last_doubling(weights).equal(last_doubling(weights[:6]))
    shifted = last_doubling(weights + 1000)
    torch.testing.assert_close(shifted, last_doubling(weights), rtol=0, atol=1e-9)
