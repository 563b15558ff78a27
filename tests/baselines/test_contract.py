"""One contract for every decoder on every model: what a new one must keep."""

import itertools
from functools import cache

import pytest
import torch
from torch import Tensor

from baselines.build import build_decoder, build_model
from baselines.crps import crps
from baselines.distributions import EightBit
from baselines.levels import misfit
from baselines.models.base import SequenceModel
from baselines.options import DECODERS, MODELS
from baselines.probabilities import log_mass, pit
from baselines.state import State
from baselines.vae import Terms, Vae, per_item, step_terms
from tests.specs import decoder_spec, model_spec

BATCH = 3
REQUIRED = {"beta": {"beta": 0.1}, "beta_sigma": {"beta": 0.1}, "laplace_fixed": {"b": 0.1}}
WITHOUT_MASS = {"bernoulli": NotImplementedError, "low_rank_gaussian": TypeError}
SIDE = {"hierarchical": 16, "residual_vae": 16, "svg": 32}
SMALL: dict[str, dict[str, int]] = {
    "conv_vae": {"width": 4},
    "conv_vae_tf": {"width": 4},
    "linear_vae": {},
    "residual_vae": {"width": 2, "widest": 2, "norm_groups": 1},
    "hierarchical": {"width": 4, "middle": 2},
    "svg": {"width": 2, "features": 4, "hidden": 4, "past": 2, "future": 2},
}

pairs = pytest.mark.parametrize(
    ("decoder", "model", "channels"), list(itertools.product(DECODERS, MODELS, (1, 3)))
)


def make(decoder: str, model: str, channels: int, resolution: int | None = None) -> Vae:
    torch.manual_seed(0)
    head = build_decoder(decoder_spec(decoder, **REQUIRED.get(decoder, {})))
    spec = model_spec(model, latent=5, **SMALL[model])
    body = build_model(
        spec,
        channels=channels,
        resolution=resolution or SIDE.get(model, 28),
        outputs=head.outputs,
        detached_outputs=head.detached_outputs,
    )
    return Vae(body, head)


def batch(vae: Vae) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    images = torch.rand(BATCH, *vae.model.data_shape).mul(255).round() / 255
    return images, torch.randn(BATCH, vae.model.noise_size)


@cache
def stepped(decoder: str, model: str, channels: int) -> tuple[Vae, Tensor, Tensor, Terms, State]:
    """A VAE, images and noise, and the terms and state of their step; no test writes to them."""
    vae = make(decoder, model, channels)
    images, noise = batch(vae)
    parameters: dict[str, Tensor] = dict(vae.named_parameters())
    with torch.no_grad():
        terms, state = step_terms(vae, parameters, vae.initial_state(), images, noise)
    return vae, images, noise, terms, state


def repeated(vae: Vae, state: State) -> tuple[Terms, State]:
    """One step, asserted to be a function: equal arguments give equal bits, none is written to."""
    images, noise = batch(vae)
    before = {name: value.clone() for name, value in {**state, **vae.state_dict()}.items()}
    first = step_terms(vae, dict(vae.named_parameters()), state, images, noise)
    second = step_terms(vae, dict(vae.named_parameters()), state, images, noise)
    assert all(torch.equal(a, b) for a, b in zip(first[0], second[0], strict=True))
    assert first[1].keys() == state.keys()
    assert all(torch.equal(first[1][name], second[1][name]) for name in state)
    after = {**state, **vae.state_dict()}
    assert all(torch.equal(before[name], after[name]) for name in before)
    return first


def sampled(vae: Vae, images: Tensor, state: State) -> tuple[Tensor, Tensor]:
    """Raw output that has seen no target, and true images of its shape.

    Of a sequence it is what the model predicts from the first frames, and the frames after them.
    """
    model = vae.model
    torch.manual_seed(2)
    if not isinstance(model, SequenceModel):
        return model.generate(torch.randn(BATCH, model.noise_size), state), images
    noise, given = torch.randn(BATCH, model.rollout_size), images[:, : model.past]
    output = model.predict(noise, state, given, lambda raw: vae.decoder(raw, state).mean)
    return output, images[:, model.past : model.past + model.predicted]


@pairs
def test_gradients_reach_every_parameter(decoder: str, model: str, channels: int) -> None:
    vae = make(decoder, model, channels)
    images, noise = batch(vae)
    with torch.no_grad():
        for parameter in vae.model.parameters():  # a layer of zeros stops what is behind it
            parameter.add_(torch.randn_like(parameter), alpha=0.01)
    terms, _ = step_terms(vae, dict(vae.named_parameters()), vae.initial_state(), images, noise)
    terms.loss.backward()
    for name, parameter in vae.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


@pairs
def test_loss_is_the_negative_elbo_of_the_distribution(
    decoder: str, model: str, channels: int
) -> None:
    vae, images, noise, terms, _ = stepped(decoder, model, channels)
    state = vae.initial_state()
    context, _ = vae.model.encode(images, state, training=True)
    draw = vae.model.draw(context, noise, state, training=True)
    assert draw.rate.shape == (BATCH, len(vae.model.parts))
    assert sum(vae.model.parts.values()) == vae.model.noise_size
    target = vae.model.target(images)
    distribution = vae.decoder(draw.output, state, target)
    assert distribution.event_shape == vae.model.image_shape
    expected = (draw.rate.sum(-1) - per_item(distribution.log_prob(target))).mean()
    # Float32 sums of up to 2352 values in another order: 1e-7 · √2352 = 5e-6.
    torch.testing.assert_close(terms.loss, expected.detach(), rtol=1e-5, atol=1e-5)


@pairs
def test_a_step_is_a_function(decoder: str, model: str, channels: int) -> None:
    """On one machine; see `repeated`."""
    vae = make(decoder, model, channels)
    repeated(vae, vae.initial_state())


@pairs
def test_scoring_is_finite_and_in_range(decoder: str, model: str, channels: int) -> None:
    vae, images, _, _, state = stepped(decoder, model, channels)
    with torch.no_grad():
        output, images = sampled(vae, images, state)
        distribution = vae.decoder(output, state)
        mean, sample = distribution.mean, distribution.sample()
        log_prob = distribution.log_prob(images)
        assert (distribution.variance > 0).all()
        assert vae.decoder.sigma(distribution).shape == ()
    assert mean.shape == sample.shape == images.shape
    assert ((mean >= 0) & (mean <= 1)).all()
    assert sample.isfinite().all()
    assert log_prob.shape == images.shape[:-3]
    assert log_prob.isfinite().all()
    assert vae.decoder.is_discrete == isinstance(distribution, EightBit)
    if vae.decoder.is_discrete:
        level = sample * 255
        assert ((sample >= 0) & (sample <= 1)).all()
        torch.testing.assert_close(level, level.round(), rtol=0, atol=1e-4)


@pairs
def test_scoring_repeats_training(decoder: str, model: str, channels: int) -> None:
    """After one batch all running averages are that batch's, so scoring it sees no difference.

    The one documented exception: σ of each image is known in training alone.
    """
    vae, images, noise, terms, state = stepped(decoder, model, channels)
    with torch.no_grad():
        context, _ = vae.model.encode(images, state, training=False)
        draw = vae.model.draw(context, noise, state, training=False)
        scored = vae.decoder(draw.output, state)
        log_prob = per_item(scored.log_prob(vae.model.target(images)))
        loss = (draw.rate.sum(-1) - log_prob).mean()
    if getattr(vae.decoder, "over", None) == "image":
        assert loss > terms.loss
    else:
        torch.testing.assert_close(loss, terms.loss, rtol=1e-4, atol=1e-2)


@pairs
def test_every_likelihood_is_a_probability_of_levels(
    decoder: str, model: str, channels: int
) -> None:
    """All but the cross-entropy and values that depend on one another, which say so."""
    vae, images, _, _, state = stepped(decoder, model, channels)
    with torch.no_grad():
        output, images = sampled(vae, images, state)
        first, one = output[:1, ..., ::7, ::7], images[:1, ..., ::7, ::7]
        distribution = vae.decoder(first, state)
        if decoder in WITHOUT_MASS:
            with pytest.raises(WITHOUT_MASS[decoder]):
                log_mass(distribution, one)
            return
        levels = torch.arange(256) / 255
        of_each = vae.decoder(first.expand(256, *first.shape[1:]), state)
        every = levels.view(256, *[1] * (one.dim() - 1)).expand(256, *one.shape[1:])
        table = log_mass(of_each, every)[:, None]
        place = pit(distribution, one, torch.rand_like(one))
        own, score = log_mass(distribution, one), crps(distribution, one)
    assert own.dtype == place.dtype == torch.float64
    assert own.shape == place.shape == one.shape
    torch.testing.assert_close(table.exp().sum(0), torch.ones_like(own), rtol=0, atol=1e-6)
    assert ((place >= 0) & (place <= 1)).all()
    # E|X - x| - ½ E|X - X'|, X from the 8-bit law.
    values, p = levels.double(), table.exp().flatten(1)
    gaps = (values[:, None] - values).abs()
    distance = ((values[:, None] - one.flatten()).abs() * p).sum(0)
    expected = distance - 0.5 * (p * (gaps @ p)).sum(0)
    torch.testing.assert_close(score.double().flatten(), expected, rtol=0, atol=2e-6)
    if vae.decoder.is_discrete:
        # The second is a float32 sum of up to 48 values.
        torch.testing.assert_close(
            own.sum((-3, -2, -1)).float(), distribution.log_prob(one), rtol=1e-5, atol=1e-5
        )


@pairs
def test_bfloat16_networks_give_float32_likelihoods(
    decoder: str, model: str, channels: int
) -> None:
    vae, images, noise, exact, _ = stepped(decoder, model, channels)
    parameters: dict[str, Tensor] = dict(vae.named_parameters())
    with torch.no_grad():
        rounded, _ = step_terms(vae, parameters, vae.initial_state(), images, noise, torch.bfloat16)
    assert all(term.dtype == torch.float32 and term.isfinite() for term in rounded)
    torch.testing.assert_close(rounded.loss, exact.loss, rtol=0.02, atol=2.0)


@pairs
def test_weights_and_state_survive_saving(
    decoder: str, model: str, channels: int, tmp_path: object
) -> None:
    vae, images, _, _, state = stepped(decoder, model, channels)
    saved = {name: value.clone() for name, value in vae.state_dict().items()}
    torch.manual_seed(99)
    other = make(decoder, model, channels)
    for parameter in other.parameters():
        torch.nn.init.normal_(parameter)
    other.load_state_dict(saved)
    with torch.no_grad():
        (one, truth), (two, _) = sampled(vae, images, state), sampled(other, images, state)
        scores = [
            made.decoder(raw, state).log_prob(truth) for made, raw in ((vae, one), (other, two))
        ]
    # Equal shapes on one machine: equal bits.
    assert torch.equal(*scores)


@pytest.mark.parametrize(
    ("over", "shape"),
    [("batch", ()), ("image", ()), ("channel", (3, 1, 1)), ("pixel", (3, 28, 28))],
)
def test_a_running_variance_has_the_axes_that_images_share(
    over: str, shape: tuple[int, ...]
) -> None:
    head = build_decoder(decoder_spec("optimal", over=over))
    body = build_model(model_spec("linear_vae", latent=5), channels=3, resolution=28, outputs=1)
    vae = Vae(body, head)
    images, noise = batch(vae)
    state = vae.initial_state()
    _, after = step_terms(vae, dict(vae.named_parameters()), state, images, noise)
    assert state["decoder.variance"].shape == after["decoder.variance"].shape == shape


@pytest.mark.parametrize("resolution", [28, 32, 64, 128])
@pytest.mark.parametrize("model", list(MODELS))
def test_every_resolution(model: str, resolution: int) -> None:
    if fault := misfit(model_spec(model), resolution):
        with pytest.raises(ValueError, match=fault):
            make("per_pixel", model, 3, resolution)
        return
    vae = make("per_pixel", model, 3, resolution)
    images, noise = batch(vae)
    terms, _ = step_terms(vae, dict(vae.named_parameters()), vae.initial_state(), images, noise)
    assert terms.loss.isfinite()


def test_the_release_network_has_its_published_shapes() -> None:
    """Width 32, latent 20, 28x28: 6,272 features, 4f·7·7, between convolutions and heads."""
    model = build_model(model_spec("conv_vae"), channels=3, resolution=28, outputs=1)
    shapes = {name: tuple(value.shape) for name, value in model.named_parameters()}
    assert shapes["encoder.0.weight"] == (32, 3, 3, 3)
    assert shapes["encoder.2.weight"] == (64, 32, 4, 4)
    assert shapes["encoder.4.weight"] == (128, 64, 5, 5)
    assert shapes["head.weight"] == (40, 6272)
    assert shapes["decoder.0.weight"] == (6272, 20)
    assert shapes["decoder.2.weight"] == (128, 64, 6, 6)
    assert shapes["decoder.4.weight"] == (64, 32, 6, 6)
    assert shapes["output.weight"] == (32, 3, 5, 5)
