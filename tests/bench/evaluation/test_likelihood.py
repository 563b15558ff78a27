"""Truths that the likelihoods must tell: known σ, probabilistic PCA, bounds."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal

from baselines.build import build_decoder, build_model
from baselines.decoders.gaussian import gaussian
from baselines.vae import Vae
from bench.evaluation.calibration import mean_crps, z_moments
from bench.evaluation.context import mean_and_error
from bench.evaluation.iwae import importance_weighted
from bench.evaluation.likelihood import (
    cross_fitted,
    distortion,
    eight_bit_distortion,
    fitted_sigma,
    gaussian_distortion,
    mean_variance,
    rate,
    squared_error,
)
from bench.evaluation.scorer import PosteriorSample, Scorer, score
from bench.run import Evaluation, Run, Training
from bench.training.step import scaled
from bench.training.train import train
from tests.specs import decoder_spec, model_spec

SIDE = 12


def make_run(decoder: str, training: Training, **options: object) -> Run:
    return Run(
        dataset="made",
        content="0" * 64,
        split_seed=0,
        model=model_spec("linear_vae", latent=3),
        decoder=decoder_spec(decoder, link="identity", **options),
        training=training,
        evaluation=Evaluation(),
        seed=0,
    )


def around_means(sigma: np.ndarray | float, count: int = 4096) -> torch.Tensor:
    """8-bit images: one of four smooth means, far from black and white, plus N(0, σ²)."""
    rng = np.random.default_rng(1)
    x, y = np.meshgrid(np.linspace(0, 1, SIDE), np.linspace(0, 1, SIDE))
    waves = (x, y, x * y, np.sin(3 * x))
    means = np.stack([0.4 + 0.2 * wave / wave.max() for wave in waves])
    images = means[rng.integers(0, 4, count)] + sigma * rng.normal(size=(count, SIDE, SIDE))
    eight_bit = (images.clip(0, 1) * 255).round().astype(np.uint8)
    return torch.from_numpy(eight_bit)[:, None]


@pytest.mark.parametrize("sigma", [0.05, 0.1])
@pytest.mark.parametrize(("decoder", "options"), [("shared", {"sigma_lr": 5}), ("optimal", {})])
def test_the_sigma_of_the_data_is_recovered(
    decoder: str, options: dict[str, object], sigma: float, tmp_path: Path
) -> None:
    images = around_means(sigma)
    # A large rate that falls to zero arrives as near in half the steps of a small one.
    training = Training(epochs=50, batch=256, lr=0.04, schedule="cosine")
    run = make_run(decoder, training, **options)
    trained = train(run, images, tmp_path)
    scorer = Scorer(trained.vae, trained.state, torch.float32)
    measures = {"variance": mean_variance, "squared_error": squared_error}
    scores = score(scorer, images, 0, "test", measures)
    found = scores["variance"].mean().sqrt().item()
    assert found == pytest.approx(sigma, rel=0.03)
    assert fitted_sigma(scores["squared_error"], SIDE**2) == pytest.approx(sigma, rel=0.03)


@pytest.mark.parametrize("log_sigma", [20.0, 30.0, 44.0, 60.0, 85.0])
def test_a_pixel_whose_variance_is_beyond_float32_spoils_no_measure(log_sigma: float) -> None:
    log_sigmas = torch.zeros(2, 1, SIDE, SIDE)
    log_sigmas[0, 0, 3, 3] = log_sigma
    images = torch.full((2, 1, SIDE, SIDE), 100 / 255)
    drawn = PosteriorSample(images, gaussian(images, log_sigmas), torch.zeros(2), ())
    for measure in (mean_variance, distortion, eight_bit_distortion, z_moments, mean_crps):
        assert measure(drawn).isfinite().all()
    # Of the bin as of the density: the one pixel is e^-log_sigma times as likely.
    for measure in (distortion, eight_bit_distortion):
        assert measure(drawn).diff().item() == pytest.approx(-log_sigma, abs=1e-3)
    assert mean_variance(drawn)[1].item() == pytest.approx(1)


def test_per_pixel_recovers_a_sigma_that_varies_over_the_image(tmp_path: Path) -> None:
    sigma = np.full((SIDE, SIDE), 0.04)
    sigma[:, SIDE // 2 :] = 0.12
    images = around_means(sigma)
    run = make_run("per_pixel", Training(epochs=150, batch=256, lr=0.01))
    trained = train(run, images, tmp_path)
    with torch.no_grad():
        noise = torch.randn(512, 3, generator=torch.Generator().manual_seed(0))
        scorer = Scorer(trained.vae, trained.state, torch.float32)
        found = scorer.posterior(images[:512], noise).variance.mean(0)[0].sqrt()
    assert found[:, : SIDE // 2].mean().item() == pytest.approx(0.04, rel=0.05)
    assert found[:, SIDE // 2 :].mean().item() == pytest.approx(0.12, rel=0.05)
    truth = torch.from_numpy(sigma).float()
    assert ((found / truth).log().abs() < 0.25).all()


# -- probabilistic PCA -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pca() -> tuple[Scorer, torch.Tensor, torch.Tensor]:
    """A linear VAE with known weights, images drawn from it, and their exact ln p(x)."""
    torch.manual_seed(0)
    beta = 2 * 0.1**2
    decoder = build_decoder(decoder_spec("beta", link="identity", beta=beta))
    model = build_model(model_spec("linear_vae", latent=3), channels=1, resolution=28, outputs=1)
    weight = 0.03 * torch.randn(784, 3)
    bias = torch.full((784,), 0.5)
    latent = torch.randn(256, 3)
    images = bias + latent @ weight.T + 0.1 * torch.randn(256, 784)
    eight_bit = (images.clamp(0, 1) * 255).round().to(torch.uint8).view(256, 1, 28, 28)
    # The exact posterior is N(M⁻¹Wᵀ(x-b), σ²M⁻¹), M = WᵀW + σ²I (Tipping & Bishop 1999); ours
    # has a diagonal covariance and a mean that is a little off, so the bound has a gap to close.
    moment = weight.T @ weight + 0.01 * torch.eye(3)
    with torch.no_grad():
        projection = torch.linalg.solve(moment, weight.T)
        for name, value in {
            "output.weight": weight,
            "output.bias": bias,
            "head.weight": projection,
            "head.bias": -projection @ bias + 0.05,
            "log_variance": (0.01 * torch.linalg.inv(moment)).diagonal().log() + 0.5,
        }.items():
            model.get_parameter(name).copy_(value)
    marginal = MultivariateNormal(
        bias.double(), (weight @ weight.T).double() + 0.01 * torch.eye(784).double()
    )
    exact = marginal.log_prob(scaled(eight_bit).flatten(1).double())
    return Scorer(Vae(model, decoder), {}, torch.float32), eight_bit, exact


def test_the_bound_approaches_pcas_likelihood_from_below(
    pca: tuple[Scorer, torch.Tensor, torch.Tensor],
) -> None:
    scorer, images, exact = pca
    gaps = []
    for draws in (1, 4, 32, 512):
        bound = importance_weighted(scorer, images, draws, seed=0)
        gap, error = mean_and_error(exact - bound.log_p)
        assert gap > -3 * error
        gaps.append(gap)
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[0] > 0.3
    assert gaps[-1] < 0.02


def test_one_draw_is_the_elbo(pca: tuple[Scorer, torch.Tensor, torch.Tensor]) -> None:
    """Averaged over draws, K = 1 and the ELBO with its closed-form rate are the same number."""
    scorer, images, _ = pca
    repeated = images.repeat(40, 1, 1, 1)
    elbo = score(scorer, repeated, 0, "draw", {"distortion": distortion, "rate": rate})
    single = importance_weighted(scorer, repeated, 1, seed=0)
    difference, error = mean_and_error(-(elbo["distortion"] + elbo["rate"]) - single.log_p)
    assert abs(difference) < 4 * error


def test_monte_carlo_error_is_the_spread_over_repeats(
    pca: tuple[Scorer, torch.Tensor, torch.Tensor],
) -> None:
    scorer, images, _ = pca
    bounds = [importance_weighted(scorer, images[:64], 256, seed=seed) for seed in range(12)]
    spread = torch.stack([bound.log_p for bound in bounds]).var(0).mean()
    stated = torch.stack([bound.monte_carlo_variance for bound in bounds]).mean()
    assert stated.item() == pytest.approx(spread.item(), rel=0.25)


def test_chunks_do_not_change_a_bound(
    pca: tuple[Scorer, torch.Tensor, torch.Tensor],
) -> None:
    scorer, images, _ = pca
    measures = {"distortion": distortion}
    whole = importance_weighted(scorer, images, 8, seed=0).log_p
    scores = score(scorer, images, 0, "draw", measures)["distortion"]
    # How many rows a matrix product has decides on some CPUs how it rounds. What is compared is a
    # float32 sum of 784 values, whose rounding is 1e-7 · √784 = 3e-6; other noise moves it by 1e-3.
    for chunk in (128, 48):  # more and less than share one stream of noise
        scorer = replace(scorer, most=chunk)
        bound = importance_weighted(scorer, images, 8, seed=0).log_p
        torch.testing.assert_close(bound, whole, rtol=1e-5, atol=0)
        found = score(scorer, images, 0, "draw", measures)["distortion"]
        torch.testing.assert_close(found, scores, rtol=1e-5, atol=0)


def test_the_effective_sample_is_that_of_two_gaussians(
    pca: tuple[Scorer, torch.Tensor, torch.Tensor],
) -> None:
    """Of K draws K / E_q[(p/q)²] count, p the exact posterior; for Gaussians that is closed."""
    scorer, images, _ = pca
    model, draws = scorer.vae.model, 4096
    weight = model.get_parameter("output.weight").detach().double()
    exact = weight.T @ weight / 0.01 + torch.eye(3)
    ours = (-model.get_parameter("log_variance").detach().double()).exp().diag()
    rest, offset = 2 * exact - ours, torch.full((3,), 0.05).double()
    mean_square = exact.det() / (ours.det() * rest.det()).sqrt()
    mean_square *= (0.5 * offset @ (ours + ours @ rest.inverse() @ ours) @ offset).exp()
    found = importance_weighted(scorer, images[:16], draws, seed=0).effective_draws
    assert 1 < mean_square < 3
    assert found.mean().item() / draws == pytest.approx(1 / mean_square.item(), rel=0.02)


def test_bits_of_a_narrow_bin_are_density_times_width(
    pca: tuple[Scorer, torch.Tensor, torch.Tensor],
) -> None:
    """Away from black and white and for σ of 25 levels, P(bin) = p(x) / 255 to 1 in 10,000."""
    scorer, images, _ = pca
    grey = images.clamp(1, 254)
    measures = {"density": distortion, "mass": eight_bit_distortion}
    scores = score(scorer, grey, 0, "draw", measures)
    widths = 784 * math.log(255)
    torch.testing.assert_close(scores["mass"], scores["density"] + widths, rtol=0, atol=0.2)


# -- the refitted σ ------------------------------------------------------------------------------


def test_the_fitted_sigma_is_the_best_one() -> None:
    errors = torch.rand(100, dtype=torch.float64) * 50
    sigma = fitted_sigma(errors, 784)
    best = gaussian_distortion(errors, 784, sigma).mean()
    for factor in (0.98, 1.02):
        assert gaussian_distortion(errors, 784, factor * sigma).mean() > best
    assert sigma == pytest.approx(math.sqrt(errors.mean().item() / 784))


def test_a_cross_fitted_sigma_is_worse_than_the_best_and_exact_of_equal_halves() -> None:
    """Of errors that repeat in pairs both halves ask for the same σ, which is the best one."""
    errors = torch.rand(100, dtype=torch.float64) * 50
    twins = errors.repeat_interleave(2)
    for values, equal in ((errors, False), (twins, True)):
        halves = cross_fitted(values, 784)
        assert halves is not None
        best = gaussian_distortion(values, 784, fitted_sigma(values, 784))
        if equal:
            torch.testing.assert_close(halves, best)
        else:
            assert halves.mean() > best.mean()


def test_without_an_error_there_is_no_cross_fitted_sigma() -> None:
    assert cross_fitted(torch.zeros(10), 784) is None
    assert cross_fitted(torch.tensor([0.0, 1.0]), 784) is None
    assert cross_fitted(torch.tensor([1.0]), 784) is None


def test_gaussian_distortion_is_the_decoders() -> None:
    decoder = build_decoder(decoder_spec("beta", link="identity", beta=0.02))
    mean, image = torch.rand(5, 1, 28, 28), torch.rand(5, 1, 28, 28)
    ours = gaussian_distortion((mean - image).square().sum(dim=(1, 2, 3)), 784, 0.1)
    # Two float32 sums of 784 values, whose terms round differently.
    torch.testing.assert_close(ours, -decoder(mean, {}).log_prob(image), rtol=1e-5, atol=0)
