"""The coupled logistic mixture against PixelCNN++'s likelihood, sums over levels and samples."""

import itertools
from contextlib import nullcontext

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from baselines.build import build_decoder, build_model
from baselines.crps import crps
from baselines.decoders.discrete import LogisticMixtureDecoder
from baselines.discretised import CoupledLogisticMixture
from baselines.distributions import EightBit, LogisticMixture
from baselines.options import DECODERS
from baselines.probabilities import log_mass, pit
from baselines.vae import Vae, step_terms
from tests.specs import decoder_spec, model_spec

K = 3


def law(*shape: int, log_scale: float = -3.0, seed: int = 0) -> CoupledLogisticMixture:
    """Of pixels whose components lie inside [0, 1], and whose channels move one another."""
    generator = torch.Generator().manual_seed(seed)
    weight, location, scale, coupling = torch.randn(4, *shape, K, generator=generator).double()
    location = 0.2 + 0.6 * location.sigmoid()
    parts = [weight, location, log_scale + 0.3 * scale, (0.7 * coupling).tanh()]
    return CoupledLogisticMixture(torch.cat(parts, dim=-1))


def pixel_cnn(parameters: np.ndarray, images: np.ndarray) -> np.ndarray:
    """ln p of PixelCNN++ (Salimans et al. 2017, section 2.2 and Eq. 2), nats an image.

    Data and locations in [-1, 1], bins of half a level to each side; N, 3, H, W and N, 3, H, W, 4K.
    """
    weight, location, log_scale, coupling = np.split(parameters, 4, axis=-1)
    logits = weight.sum(axis=1)
    log_weight = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    x, m = 2 * images[..., None] - 1, 2 * location - 1
    inverse = np.exp(-log_scale) / 2  # the data are twice as wide
    red = m[:, 0]
    green = m[:, 1] + coupling[:, 0] * x[:, 0]
    blue = m[:, 2] + coupling[:, 1] * x[:, 0] + coupling[:, 2] * x[:, 1]
    centred = x - np.stack([red, green, blue], axis=1)
    plus, minus = (inverse * (centred + side / 255) for side in (1, -1))
    # In the upper tail the survival function keeps the digits that the cdf has lost.
    cdf, sf = scipy.special.expit(plus), scipy.special.expit(-minus)
    inner = np.where(centred < 0, cdf - scipy.special.expit(minus), sf - scipy.special.expit(-plus))
    mass = np.where(x < -0.999, cdf, np.where(x > 0.999, sf, inner))
    joint = np.log(mass).sum(axis=1) + log_weight
    result: np.ndarray = np.log(np.exp(joint).sum(-1)).sum((1, 2))
    return result


def test_it_is_pixel_cnns_log_likelihood() -> None:
    distribution = law(6, 3, 5, 5)
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (6, 3, 5, 5), generator=generator).double() / 255
    images[0], images[1, :, :2] = 0, 1
    expected = pixel_cnn(distribution.parameters.numpy(), images.numpy())
    np.testing.assert_allclose(distribution.log_prob(images), expected, rtol=1e-9)
    np.testing.assert_allclose(log_mass(distribution, images).sum((1, 2, 3)), expected, rtol=1e-9)


def test_the_decoder_gives_it_outputs_in_blocks() -> None:
    """A raw output's channels: those of red, then green, then blue, or whatever order, of 4K."""
    decoder = LogisticMixtureDecoder(components=K, coupled=True, min_log_scale=None)
    assert decoder.outputs == 4 * K
    output = torch.randn(2, 3 * 4 * K, 4, 4)
    raw = decoder.per_value(output)
    weight, location, log_scale, coupling = raw.chunk(4, dim=-1)
    centres = (torch.arange(K) + 0.5) / K
    parameters = [weight, location + centres, log_scale - np.log(2 * K), coupling.tanh()]
    expected = pixel_cnn(torch.cat(parameters, -1).double().numpy(), np.full((2, 3, 4, 4), 0.4))
    found = decoder(output, {}).log_prob(torch.full((2, 3, 4, 4), 0.4))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_its_probabilities_sum_to_one() -> None:
    """Over all colours of a pixel that a coarse law has: 256³ by chains of 256."""
    distribution = law(1, 3, 1, 1, log_scale=-1.0)
    levels = torch.arange(256).double() / 255
    total = 0.0
    for red in levels[::85]:
        colours = torch.stack(
            [red.expand(256, 256), levels[:, None].expand(256, 256), levels.expand(256, 256)], 0
        ).reshape(3, -1)
        masses = distribution.log_prob(colours.T.reshape(-1, 3, 1, 1)).exp()
        first = log_mass(distribution, colours[:, :1].T.reshape(1, 3, 1, 1))[0, 0].exp()
        assert masses.sum().item() == pytest.approx(first.item(), rel=1e-9)
        total += first.item()
    reds = levels.view(256, 1, 1, 1).expand(256, 3, 1, 1)
    assert log_mass(distribution, reds)[:, 0].exp().sum().item() == pytest.approx(1, abs=1e-9)


def test_without_coupling_and_with_one_component_channels_are_alone() -> None:
    torch.manual_seed(0)
    location, log_scale = torch.rand(4, 3, 5, 5, 1), torch.randn(4, 3, 5, 5, 1) - 3
    zero = torch.zeros_like(location)
    coupled = CoupledLogisticMixture(torch.cat([zero, location, log_scale, zero], -1))
    alone = LogisticMixture(torch.cat([zero, location, log_scale], -1))
    images = torch.rand(4, 3, 5, 5)
    torch.testing.assert_close(coupled.log_prob(images), alone.log_prob(images))
    torch.testing.assert_close(coupled.mean, alone.mean)
    torch.testing.assert_close(coupled.variance, alone.variance)
    for measure in (log_mass, crps):
        one, other = measure(coupled, images), measure(alone, images).double()
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_samples_follow_the_law() -> None:
    """The transform of each sampled value given those before it is uniform and independent."""
    torch.manual_seed(0)
    distribution = law(1, 3, 40, 40)
    samples = distribution.sample((5,)).flatten(0, 1)
    assert ((samples * 255 - (samples * 255).round()).abs() < 1e-9).all()
    repeated = CoupledLogisticMixture(distribution.parameters.expand(5, -1, -1, -1, -1))
    places = pit(repeated, samples, torch.rand(samples.shape)).movedim(1, 0).flatten(1).numpy()
    for channel in places:
        assert scipy.stats.kstest(channel, "uniform").pvalue > 1e-3
    for one, other in itertools.combinations(places, 2):
        assert scipy.stats.spearmanr(one, other).pvalue > 1e-3


@pytest.mark.parametrize(("log_scale", "least"), [(-5.0, 0.97), (-3.0, 0.9), (-2.0, 0.7)])
def test_moments_are_near_those_of_samples(log_scale: float, least: float) -> None:
    """Of the widest law, with a standard deviation of a quarter, the ends of [0, 1] cut much."""
    torch.manual_seed(0)
    distribution = law(1, 3, 6, 6, log_scale=log_scale)
    samples = distribution.sample((20_000,))[:, 0]
    error = (samples.mean(0) - distribution.mean[0]).abs()
    # Noise is 4 · 0.3/√20,000.
    assert error.max() < (0.02 if log_scale > -3 else 0.009)
    ratio = samples.std(0) / distribution.variance[0].sqrt()
    assert ratio.min() > least
    assert ratio.max() < 1.05


def test_the_score_of_a_channel_knows_the_ones_before() -> None:
    """With c₀ = 1 and narrow laws green is red moved: sure of it given red, wide without."""
    zero = torch.zeros(1, 3, 1, 1, 1)
    log_scale = torch.tensor([-1.0, -6.0, -6.0]).view(1, 3, 1, 1, 1)
    coupling = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1, 1)
    distribution = CoupledLogisticMixture(torch.cat([zero, zero + 0.5, log_scale, coupling], -1))
    image = torch.tensor([0.8, 0.8, 0.5]).view(1, 3, 1, 1)
    masses = log_mass(distribution, image).flatten().exp()
    assert masses[0] < 0.02
    assert masses[1] > 0.3
    assert crps(distribution, image).flatten()[1] < 0.01
    red, green, _ = distribution.sample((500,))[:, 0].flatten(1).T
    inside = (red > 0.05) & (red < 0.95)
    assert (red - green)[inside].abs().max() < 0.03


def test_shapes_of_many_batch_dimensions() -> None:
    distribution = law(2, 4, 3, 5, 5)
    assert isinstance(distribution, EightBit)
    images = distribution.sample()
    assert images.shape == distribution.mean.shape == distribution.variance.shape == (2, 4, 3, 5, 5)
    assert distribution.sample((7,)).shape == (7, 2, 4, 3, 5, 5)
    assert distribution.log_prob(images).shape == (2, 4)
    assert log_mass(distribution, images[:, :1]).shape == images.shape
    assert torch.equal(distribution.first(4).mean, distribution.mean.flatten(0, 1)[:4])


def test_gradients_are_slopes() -> None:
    torch.manual_seed(0)
    raw = law(1, 3, 2, 2).parameters.requires_grad_()
    images = torch.randint(0, 256, (1, 3, 2, 2)) / 255
    assert torch.autograd.gradcheck(
        lambda parameters: CoupledLogisticMixture(parameters).log_prob(images), raw
    )


def test_a_step_and_scoring_stay_on_a_gpu() -> None:
    """Followed on tensors without values; and every parameter has a gradient where they have."""
    for device, mode in (("cuda", FakeTensorMode()), ("cpu", nullcontext())):
        with mode, torch.device(device):
            head = build_decoder(decoder_spec("logistic_mixture", coupled=True))
            model = build_model(
                model_spec("conv_vae", latent=3, width=2), channels=3, resolution=28, outputs=20
            )
            vae = Vae(model, head)
            images, noise = torch.rand(4, 3, 28, 28), torch.randn(4, model.noise_size)
            parameters: dict[str, Tensor] = dict(vae.named_parameters())
            terms, state = step_terms(vae, parameters, vae.initial_state(), images, noise)
            output = model.generate(noise, state)
            found = [*terms, head(output, state).mean, head(output, state).variance]
        assert {value.device.type for value in found} == {device}
    terms.loss.backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in vae.parameters())


# -- the switch ------------------------------------------------------------------------------------


def test_off_it_is_in_no_record() -> None:
    usual = decoder_spec("logistic_mixture")
    off = decoder_spec("logistic_mixture", coupled=False)
    on = decoder_spec("logistic_mixture", coupled=True)
    assert usual == off
    assert "coupled" not in usual.model_dump() | off.model_dump(mode="json") | usual.options
    assert on.model_dump(mode="json")["coupled"] is True
    assert on.changed == {"coupled": True}
    assert DECODERS["logistic_mixture"](**on.model_dump()) == on
    assert build_decoder(on).outputs == 20
    assert build_decoder(usual).outputs == 15


@pytest.mark.parametrize("value", ["yes", 1, 0.0])
def test_it_is_a_switch(value: object) -> None:
    with pytest.raises(ValueError, match="boolean"):
        decoder_spec("logistic_mixture", coupled=value)


def test_grey_images_are_refused() -> None:
    on = decoder_spec("logistic_mixture", coupled=True)
    assert on.misfit(3) == decoder_spec("logistic_mixture").misfit(1) == ""
    with pytest.raises(ValueError, match="coupled: it needs images of three channels, not of 1"):
        build_decoder(on).initial_state((1, 28, 28))


def test_off_is_the_mixture_of_single_channels() -> None:
    torch.manual_seed(0)
    output, images = torch.randn(2, 45, 4, 4), torch.rand(2, 3, 4, 4)

    usual, off = LogisticMixtureDecoder(), LogisticMixtureDecoder(coupled=False)
    assert torch.equal(*(head(output, {}).log_prob(images) for head in (usual, off)))
