"""Gaussian decoders against closed forms and the paper's constants."""

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from baselines.build import build_decoder
from baselines.decoders.base import soft_clip
from baselines.decoders.gaussian import (
    BetaGaussian,
    MeanReducedMse,
    OptimalGaussian,
    PerPixelGaussian,
    SharedGaussian,
    UnitGaussian,
)
from baselines.models.linear_vae import LinearVae
from baselines.state import new_average, read_average, update_average
from baselines.vae import Vae
from tests.specs import decoder_spec

SVHN = (3, 28, 28)
IMAGE = (1, 6, 6)


def optimal(**options: Any) -> OptimalGaussian:
    return OptimalGaussian(link="identity", **options)


@pytest.mark.parametrize(
    ("beta", "constant"), [(10, 4054), (1, 1346), (0.1, -1362), (0.01, -4069), (2, 2161)]
)
def test_beta_constants_of_the_paper(beta: float, constant: float) -> None:
    """-log p of a perfect mean on SVHN (D = 2352) is D·½·ln(πβ); β = 2 is the unit variance."""
    decoder = BetaGaussian(link="identity", beta=beta)
    image = torch.rand(1, *SVHN)
    nll = -decoder(image, {}).log_prob(image).item()
    assert nll == pytest.approx(constant, abs=1)


@pytest.mark.parametrize("log_sigma", [0.0, 35.0, 50.0, 85.0])
def test_a_pixel_whose_variance_is_beyond_float32_ends_no_training(log_sigma: float) -> None:
    """Only the loss may end one: -ln σ is finite and so is its gradient, which brings σ down."""
    torch.manual_seed(0)
    model = LinearVae(channels=1, resolution=6, latent=2, outputs=2)
    vae = Vae(model, PerPixelGaussian(link="identity"))
    parameters = dict(model.named_parameters())
    weight, bias = parameters["output.weight"], parameters["output.bias"]
    with torch.no_grad():
        weight[36] = 0.0  # of the first pixel's ln σ
        bias[36] = log_sigma
    images, noise = torch.rand(4, *IMAGE), torch.randn(4, 2)
    terms, _ = vae(images, noise, vae.initial_state(), torch.float32)
    terms.loss.backward()
    assert torch.stack(terms).isfinite().all()
    # One pixel of 36; of these only e³⁵ has a square that float32 holds.
    if log_sigma == 35.0:
        assert float(terms.sigma) == pytest.approx(math.exp(35) / 6, rel=1e-4)
    if log_sigma >= 35.0:
        assert bias.grad is not None
        assert bias.grad[36].item() == pytest.approx(1, abs=1e-3)


def test_beta_two_is_the_unit_gaussian() -> None:
    output, image = torch.randn(4, *SVHN), torch.rand(4, *SVHN)
    beta = BetaGaussian(link="sigmoid", beta=2.0)(output, {}).log_prob(image)
    unit = UnitGaussian(link="sigmoid")(output, {}).log_prob(image)
    torch.testing.assert_close(beta, unit)


@given(st.floats(1e-3, 10.0))
def test_beta_is_the_weight_of_the_rate(beta: float) -> None:
    """Gradients of ||x - μ||² + β·KL and of the Gaussian's negative ELBO are parallel, factor β."""
    torch.manual_seed(0)
    output = torch.randn(3, 1, 4, 4, requires_grad=True)
    image = torch.rand(3, 1, 4, 4)
    decoder = BetaGaussian(link="identity", beta=beta)
    (ours,) = torch.autograd.grad(-decoder(output, {}).log_prob(image).sum(), output)
    (theirs,) = torch.autograd.grad((image - output).square().sum(), output)
    torch.testing.assert_close(beta * ours, theirs, rtol=1e-4, atol=1e-5)


def test_mse_is_the_releases_mean_reduced_loss() -> None:
    """One loss of the release, mse_loss(mean) + KL(sum), has B times our gradients."""
    batch = 5
    output = torch.randn(batch, 1, 8, 8, requires_grad=True)
    code = torch.randn(batch, 3, requires_grad=True)
    image = torch.rand(batch, 1, 8, 8)
    decoder = MeanReducedMse(link="sigmoid")
    rate = 0.5 * code.square().sum(-1)
    ours = torch.autograd.grad(
        -decoder(output, decoder.initial_state(IMAGE), image).log_prob(image).mean() + rate.mean(),
        [output, code],
    )
    theirs = torch.autograd.grad(
        F.mse_loss(torch.sigmoid(output), image) + 0.5 * code.square().sum(), [output, code]
    )
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(batch * one, other)


def test_optimal_sigma_is_the_best_of_all() -> None:
    torch.manual_seed(0)
    mean, image = torch.rand(16, *SVHN), torch.rand(16, *SVHN)
    decoder = optimal()
    best = decoder(mean, decoder.initial_state(IMAGE), image).log_prob(image).sum()
    rmse = F.mse_loss(mean, image).sqrt().item()
    for factor in (0.9, 0.99, 1.01, 1.1):
        fixed = BetaGaussian(link="identity", beta=2 * (rmse * factor) ** 2)
        assert fixed(mean, {}).log_prob(image).sum() < best
    at_optimum = BetaGaussian(link="identity", beta=2 * rmse**2)
    torch.testing.assert_close(at_optimum(mean, {}).log_prob(image).sum(), best)


@pytest.mark.parametrize("over", ["batch", "image"])
def test_optimal_loss_is_half_d_log_mse(over: str) -> None:
    mean, image = torch.rand(8, 1, 6, 6), torch.rand(8, 1, 6, 6)
    decoder = optimal(over=over)
    nll = -decoder(mean, decoder.initial_state(IMAGE), image).log_prob(image)
    error = (mean - image).square()
    mse = error.mean() if over == "batch" else error.mean(dim=(1, 2, 3))
    expected = 18 * (mse.log() + math.log(2 * math.pi) + 1)
    torch.testing.assert_close(nll.mean(), expected.mean())


@pytest.mark.parametrize("over", ["batch", "image"])
def test_stopping_the_gradient_changes_nothing(over: str) -> None:
    """σ* is a stationary point of the loss, so the path through it carries no gradient."""
    image = torch.rand(8, 1, 6, 6)
    gradients: list[torch.Tensor] = []
    for stop in (False, True):
        output = torch.full((8, 1, 6, 6), 0.3, requires_grad=True)
        decoder = optimal(over=over, stop_gradient=stop)
        loss = -decoder(output, decoder.initial_state(IMAGE), image).log_prob(image).sum()
        gradients += torch.autograd.grad(loss, output)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("over", "axes"),
    [("batch", (0, 1, 2, 3)), ("image", (1, 2, 3)), ("channel", (0, 2, 3)), ("pixel", (0,))],
)
def test_the_axes_of_the_mean_are_the_option(over: str, axes: tuple[int, ...]) -> None:
    """σ² over an axis is the maximum-likelihood fit of all that it spans: torch's own variance."""
    torch.manual_seed(0)
    scale = torch.rand(7, 3, 6, 6) + 0.1
    image = 0.5 + scale * torch.randn(7, 3, 6, 6)
    # With the sample mean as μ the squared errors' mean is the sample variance.
    mean = image.mean(dim=axes, keepdim=True).expand_as(image)
    decoder = optimal(over=over)
    state = decoder.initial_state((3, 6, 6))
    distribution = decoder(mean, state, image)
    expected = image.var(dim=axes, correction=0, keepdim=True).expand_as(image)
    torch.testing.assert_close(distribution.variance, expected)
    state |= decoder.update(distribution, image, state)
    scored = decoder(mean, state).variance
    if over == "image":
        torch.testing.assert_close(scored, expected.mean().expand_as(image))
    else:
        torch.testing.assert_close(scored, expected)


def test_a_finer_sigma_never_fits_worse() -> None:
    torch.manual_seed(0)
    mean, image = torch.rand(16, *SVHN), torch.rand(16, *SVHN)
    fits = {}
    for over in ("batch", "channel", "pixel", "image"):
        decoder = optimal(over=over)
        fits[over] = decoder(mean, decoder.initial_state(SVHN), image).log_prob(image).sum()
    assert fits["batch"] < fits["channel"] < fits["pixel"]
    assert fits["batch"] < fits["image"]


def test_a_scored_sigma_comes_from_training_alone() -> None:
    """Scoring does not look at the images: the σ is the running average, whatever is scored."""
    decoder = optimal(decay=0.9)
    state = decoder.initial_state(IMAGE)
    mean = torch.full((4, 1, 6, 6), 0.5)
    for _ in range(3):
        target = mean + 0.2
        state |= decoder.update(decoder(mean, state, target), target, state)
    distribution = decoder(mean, state)
    torch.testing.assert_close(distribution.variance, torch.full_like(mean, 0.04))


@pytest.mark.parametrize("over", ["batch", "image", "channel", "pixel"])
def test_a_running_sigma_trains_as_it_scores(over: str) -> None:
    """The loss is SE/2γ² + D ln γ + D/2 ln 2π, γ² an average of the MSE of all batches so far."""
    torch.manual_seed(0)
    decoder = optimal(over=over, running=True, decay=0.75)
    state, errors = decoder.initial_state(SVHN), []
    axes = {"channel": (0, 2, 3), "pixel": (0,)}.get(over, (0, 1, 2, 3))
    for _ in range(4):
        output = torch.rand(5, *SVHN, requires_grad=True)
        target = torch.rand(5, *SVHN)
        trained = decoder(output, state, target)
        state |= decoder.update(trained, target, state)
        errors.append((target - output).detach().numpy() ** 2)
        weights = 0.75 ** np.arange(len(errors))[::-1]
        batches = [error.mean(axis=axes, keepdims=True) for error in errors]
        averaged = np.average(np.stack(batches), axis=0, weights=weights)
        gamma = torch.from_numpy(np.broadcast_to(averaged, output.shape).copy()).float()
        log_p = trained.log_prob(target)
        squares = torch.from_numpy(errors[-1]) / (2 * gamma)
        constant = 0.5 * math.log(2 * math.pi)
        expected = -(squares + 0.5 * gamma.log() + constant).sum((1, 2, 3))
        torch.testing.assert_close(log_p.detach(), expected, rtol=1e-4, atol=1e-2)
        (gradient,) = torch.autograd.grad(log_p.sum(), output)
        torch.testing.assert_close(gradient, (target - output).detach() / gamma)
        scored = decoder(output, state)
        assert torch.equal(scored.variance, trained.variance)


def test_a_running_sigma_that_is_off_is_in_no_record() -> None:
    for name, options in (("optimal", {}), ("optimal_per_image", {}), ("beta_sigma", {"beta": 1})):
        usual, off, on = (
            decoder_spec(name, **options, **more)
            for more in ({}, {"running": False}, {"running": True})
        )
        assert usual == off
        assert "running" not in usual.model_dump(mode="json")
        assert on.model_dump(mode="json")["running"] is True
        assert vars(build_decoder(on))["running"] is True


def test_a_perfect_fit_stops_at_the_floor() -> None:
    decoder = optimal(min_log_sigma=-4.0)
    image = torch.rand(2, 1, 6, 6)
    distribution = decoder(image, decoder.initial_state(IMAGE), image)
    torch.testing.assert_close(distribution.variance, torch.full_like(image, math.exp(-8)))


def test_the_learned_sigma_has_a_learning_rate_of_its_own() -> None:
    assert SharedGaussian().learning_rates() == {}
    assert SharedGaussian(sigma_lr=20).learning_rates() == {"log_sigma": 20.0}


@pytest.mark.parametrize("count", [2, 10_000])
def test_a_learned_sigma_can_begin_at_the_data(count: int) -> None:
    """At numpy's standard deviation around the mean image, of more images than one pass holds."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, 4, 4), dtype=torch.uint8, generator=generator)
    decoder = SharedGaussian(initial_log_sigma="data", min_log_sigma=None)
    decoder.initialise(images)
    expected = np.sqrt((images.numpy() / 255).var(axis=0).mean())
    assert decoder.log_sigma.exp().item() == pytest.approx(expected, rel=1e-6)
    elsewhere = SharedGaussian(initial_log_sigma=-1)
    elsewhere.initialise(images)
    assert elsewhere.log_sigma.item() == -1


@given(st.floats(-50, 50), st.floats(-6, -1), st.floats(0, 6))
def test_soft_clip_stays_inside_and_keeps_a_gradient(value: float, low: float, high: float) -> None:
    x = torch.tensor(value, dtype=torch.float64, requires_grad=True)
    clipped = soft_clip(x, low, high)
    # The upper bound is applied first, so the lower one may lift a value by softplus(low - high).
    assert low <= clipped.item() <= high + math.log1p(math.exp(low - high)) + 1e-9
    (gradient,) = torch.autograd.grad(clipped, x)
    assert 0 < gradient <= 1


def test_soft_clip_is_the_identity_far_inside() -> None:
    assert soft_clip(torch.tensor(0.0), -30.0, 30.0).item() == pytest.approx(0, abs=1e-6)
    assert soft_clip(torch.tensor(-3.0), -6.0, None).item() == pytest.approx(-3 + 0.0486, abs=1e-4)


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=30), st.floats(0, 0.999))
def test_running_average_has_no_start_up_pull(values: list[float], decay: float) -> None:
    """The average of equal values is that value from the first on; else it stays in their range."""
    state = new_average("a")
    for value in values:
        state |= update_average(state, "a", torch.tensor(value), decay)
    result = read_average(state, "a").item()
    assert min(values) - 1e-3 <= result <= max(values) + 1e-3
    if decay == 0:
        assert result == pytest.approx(values[-1], abs=1e-5)
