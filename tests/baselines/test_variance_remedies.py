"""Gradients of the later remedies against their papers' formulas, written out by hand."""

import math

import pytest
import torch
from torch import Tensor

from baselines.build import build_decoder, build_model
from baselines.decoders.base import Decoder
from baselines.decoders.gaussian import OptimalGaussian, PerPixelGaussian
from baselines.decoders.variance_remedies import (
    BetaNllGaussian,
    BetaSigmaGaussian,
    FaithfulGaussian,
)
from baselines.options import MODELS, Link
from baselines.vae import Vae, step_terms
from tests.specs import decoder_spec, model_spec

SHAPE = (1, 6, 6)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(5, *SHAPE, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def output() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return (0.5 * torch.randn(5, 2, 6, 6, generator=generator)).requires_grad_()


def surrogate_gradient(decoder: Decoder, output: Tensor, images: Tensor) -> Tensor:
    distribution = decoder(output, decoder.initial_state(SHAPE), images)
    descended = decoder.surrogate(distribution, images, torch.zeros(len(images)))
    assert descended is not None
    assert descended.shape == (len(images),)
    (gradient,) = torch.autograd.grad(descended.sum(), output)
    return gradient


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
def test_beta_nll_is_its_papers(output: Tensor, images: Tensor, exponent: float) -> None:
    """Seitzer et al. 2022, Eq. 6 and 7: (μ-x)/σ^(2-2β) and ((1 - (x-μ)²/σ²)) σ^(2β) for ln σ."""
    decoder = BetaNllGaussian(link="identity", exponent=exponent, min_log_sigma=None)
    found = surrogate_gradient(decoder, output, images)
    mean, log_sigma = output.detach().chunk(2, dim=1)
    variance = (2 * log_sigma).exp()
    expected_mean = (mean - images) / variance ** (1 - exponent)
    expected_sigma = (1 - (images - mean).square() / variance) * variance**exponent
    torch.testing.assert_close(found, torch.cat([expected_mean, expected_sigma], dim=1))


def test_beta_nll_without_exponent_is_the_likelihood(output: Tensor, images: Tensor) -> None:
    plain = PerPixelGaussian(link="sigmoid", min_log_sigma=None)
    (expected,) = torch.autograd.grad(-plain(output, {}).log_prob(images).sum(), output)
    decoder = BetaNllGaussian(link="sigmoid", exponent=0.0, min_log_sigma=None)
    torch.testing.assert_close(surrogate_gradient(decoder, output, images), expected)


@pytest.mark.parametrize("link", ["identity", "sigmoid"])
def test_faithful_is_its_papers(output: Tensor, images: Tensor, link: Link) -> None:
    """The mean has the squared error's gradient, σ the likelihood's around a mean that stays."""
    found_mean, found_sigma = surrogate_gradient(
        FaithfulGaussian(link=link, min_log_sigma=None), output, images
    ).chunk(2, dim=1)
    raw, log_sigma = output.detach().chunk(2, dim=1)
    raw = raw.requires_grad_()
    mean = raw.sigmoid() if link == "sigmoid" else raw
    (expected,) = torch.autograd.grad(0.5 * (images - mean).square().sum(), raw)
    torch.testing.assert_close(found_mean, expected)
    expected = 1 - (images - mean.detach()).square() * (-2 * log_sigma).exp()
    torch.testing.assert_close(found_sigma, expected)


@pytest.mark.parametrize("model", list(MODELS))
def test_the_faithful_variance_moves_its_own_layer_alone(model: str) -> None:
    """Encoder and features have the gradients of a VAE with unit variance, whatever σ is."""
    size = {} if model == "linear_vae" else {"width": 4}
    spec = model_spec(model, latent=3, **size)
    side = min(spec.resolutions, default=28)
    body = build_model(spec, channels=1, resolution=side, outputs=2, detached_outputs=1)
    vae = Vae(body, FaithfulGaussian(link="sigmoid", min_log_sigma=None))
    parameters: dict[str, Tensor] = dict(vae.named_parameters())
    images, noise = torch.rand(6, *body.data_shape), torch.randn(6, body.noise_size)
    state = vae.initial_state()

    def gradients() -> dict[str, Tensor]:
        terms, _ = step_terms(vae, parameters, state, images, noise)
        found = torch.autograd.grad(terms.loss, list(parameters.values()))
        return dict(zip(parameters, found, strict=True))

    before = gradients()
    with torch.no_grad():
        for name, parameter in parameters.items():
            if "stopped" in name:
                parameter.add_(0.3)
    after = gradients()
    for name in parameters:
        if "stopped" in name:
            assert not torch.allclose(before[name], after[name]), name
        else:
            torch.testing.assert_close(before[name], after[name])


def test_detached_outputs_come_last_and_change_no_other_layer() -> None:
    torch.manual_seed(0)
    plain = build_model(model_spec("conv_vae", width=4), channels=3, resolution=28, outputs=2)
    torch.manual_seed(0)
    split = build_model(
        model_spec("conv_vae", width=4), channels=3, resolution=28, outputs=2, detached_outputs=1
    )
    names = [name for name, _ in plain.named_parameters()]
    assert [name for name, _ in split.named_parameters()][: len(names)] == names
    first = "encoder.0.weight"
    assert torch.equal(plain.get_parameter(first), split.get_parameter(first))
    assert split.generate(torch.randn(2, 20), {}).shape == (2, 6, 28, 28)


@pytest.mark.parametrize("beta", [0.1, 1.0, 5.0])
def test_beta_sigma_descends_distortion_and_weighted_rate(beta: float, images: Tensor) -> None:
    """(D/2) ln MSE + β · KL, and at β = 1 the optimal σ-VAE."""
    raw = torch.full((5, *SHAPE), 0.1, requires_grad=True)
    code = torch.randn(5, 3, requires_grad=True)

    def rate() -> Tensor:
        return 0.5 * code.square().sum(-1)

    decoder = BetaSigmaGaussian(beta=beta, over="batch")
    state = decoder.initial_state(SHAPE)
    descended = decoder.surrogate(decoder(raw, state, images), images, rate())
    ours = torch.autograd.grad(descended.mean(), [raw, code])
    mse = (images - raw.sigmoid()).square().mean()
    theirs = torch.autograd.grad(18 * mse.log() + beta * rate().mean(), [raw, code])
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    if math.isclose(beta, 1.0):
        plain = OptimalGaussian()
        elbo = (plain(raw, state, images).log_prob(images) - rate()).mean()
        expected = torch.autograd.grad(-elbo, [raw, code])
        torch.testing.assert_close(ours, expected)


def test_beta_sigma_is_per_image_as_published(images: Tensor) -> None:
    """(D/2) ln MSE of each image, on average: Eq. 5 per sample, up to its constant."""
    raw = torch.full((5, *SHAPE), 0.1, requires_grad=True)
    decoder = BetaSigmaGaussian(beta=1)
    descended = decoder.surrogate(decoder(raw, {}, images), images, torch.zeros(5))
    (ours,) = torch.autograd.grad(descended.mean(), raw)
    mse = (images - raw.sigmoid()).square().mean((1, 2, 3))
    (theirs,) = torch.autograd.grad(18 * mse.log().mean(), raw)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("decoder", ["beta_nll", "faithful", "beta_sigma"])
def test_the_reported_loss_is_the_negative_elbo(decoder: str) -> None:
    """Also where the gradient is another's: the values of all decoders compare."""
    torch.manual_seed(0)
    options = {"beta": 0.05} if decoder == "beta_sigma" else {}
    head = build_decoder(decoder_spec(decoder, **options))
    body = build_model(
        model_spec("linear_vae", latent=3),
        channels=1,
        resolution=28,
        outputs=head.outputs,
        detached_outputs=head.detached_outputs,
    )
    vae = Vae(body, head)
    terms, _ = step_terms(
        vae,
        dict(vae.named_parameters()),
        vae.initial_state(),
        torch.rand(6, 1, 28, 28),
        torch.randn(6, 3),
    )
    torch.testing.assert_close(terms.loss.detach(), terms.distortion + terms.rate)
