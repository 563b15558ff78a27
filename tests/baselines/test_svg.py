"""SVG against its definition: what each frame depends on, its rates, its prediction."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Normal, kl_divergence
from torch.func import functional_call, grad, vmap

from baselines.build import build_model
from baselines.decoders.gaussian import BetaGaussian
from baselines.models.base import Draw
from baselines.models.svg import Svg
from baselines.state import State
from baselines.vae import Vae
from tests.specs import model_spec

BATCH = 4
SKIPS = ("last_given", "svg", "previous")


def small(**options: Any) -> Svg:
    """Frames of 32x32, weights of a model that has been trained: every network matters."""
    torch.manual_seed(0)
    chosen = {"width": 4, "features": 6, "hidden": 8, "latent": 3, "past": 3, "future": 3}
    model = build_model(model_spec("svg", **{**chosen, **options}), channels=1, resolution=32)
    assert isinstance(model, Svg)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            alpha = 1.0 if "readout" in name else 0.2
            parameter.add_(torch.randn_like(parameter), alpha=alpha)
    return model


def batch(model: Svg, count: int = BATCH) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.rand(count, *model.data_shape), torch.randn(count, model.noise_size)


@torch.no_grad()
def trained(model: Svg) -> State:
    """The running statistics of a batch of 16."""
    images, noise = batch(model, 16)
    state = model.initial_state()
    context, changed = model.encode(images, state, training=True)
    draw = model.draw(context, noise, state, training=True)
    assert changed.keys() | draw.state.keys() == state.keys()
    return {**changed, **draw.state}


def drawn(model: Svg, images: Tensor, noise: Tensor, state: State) -> Draw:
    context, changed = model.encode(images, state, training=False)
    draw = model.draw(context, noise, state, training=False)
    assert changed == draw.state == {}
    return draw


def units(model: Svg, draw: Draw, noise: Tensor) -> Tensor:
    """u of each frame, (B, frames, latent), from the posteriors and the noise."""
    assert draw.posteriors is not None
    by_frame = noise.unflatten(1, (-1, model.latent)).unbind(1)
    found = [
        mean + (0.5 * log_variance).exp() * one
        for (mean, log_variance), one in zip(draw.posteriors, by_frame, strict=True)
    ]
    return torch.stack(found, dim=1)


# -- prediction ------------------------------------------------------------------------------------


@pytest.mark.parametrize("skip", SKIPS)
@pytest.mark.parametrize(
    "options",
    [{}, {"past": 1}, {"past": 2, "network": "vgg", "layers": 1}, {"prior": "fixed", "future": 1}],
)
@torch.no_grad()
def test_a_prediction_that_is_fed_the_truth_is_the_teacher_forced_pass(
    skip: str, options: dict[str, object]
) -> None:
    """Step by step and all at once, with the same latents: the noise of a prediction is u."""
    model = small(skip=skip, **options)
    state = trained(model)
    images, noise = batch(model)
    draw = drawn(model, images, noise, state)
    given = (model.past - 1) * model.latent
    latents = units(model, draw, noise)[:, model.past - 1 :].flatten(1)
    truth: Iterator[Tensor] = iter(images[:, model.past :].unbind(1))
    seen: list[Tensor] = []

    def next_frame(raw: Tensor) -> Tensor:
        seen.append(raw)
        return next(truth)

    found = model.predict(
        torch.cat([noise[:, :given], latents], dim=1), state, images[:, : model.past], next_frame
    )
    expected = draw.output[:, model.past - 1 :]
    assert expected.std() > 0.02
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    # Of the last frame no mean is fed back.
    assert len(seen) == model.predicted - 1
    assert all(torch.equal(one, found[:, place]) for place, one in enumerate(seen))


@pytest.mark.parametrize("skip", SKIPS)
@torch.no_grad()
def test_a_longer_prediction_begins_as_a_shorter_one(skip: str) -> None:
    short, long = small(skip=skip, horizon=2), small(skip=skip, horizon=7)
    state = trained(short)
    images, _ = batch(short)
    noise = torch.randn(BATCH, long.rollout_size)
    given = images[:, : short.past]
    first = short.predict(noise[:, : short.rollout_size], state, given, torch.sigmoid)
    whole = long.predict(noise, state, given, torch.sigmoid)
    assert whole.shape == (BATCH, 7, 1, 32, 32)
    torch.testing.assert_close(first, whole[:, :2])


@pytest.mark.parametrize("prior", ["learned", "fixed"])
def test_every_number_of_the_noise_and_every_given_frame_count(prior: str) -> None:
    model = small(prior=prior)
    state = trained(model)
    images, _ = batch(model)
    given = images[:, : model.past].clone().requires_grad_()
    noise = torch.randn(BATCH, model.rollout_size, requires_grad=True)
    model.predict(noise, state, given, torch.sigmoid)[:, -1].square().sum().backward()
    assert noise.grad is not None
    assert given.grad is not None
    assert (noise.grad != 0).all()
    assert (given.grad != 0).flatten(2).any(2).all()


# -- what a frame depends on -----------------------------------------------------------------------


def frames_that_move(output: Tensor, frames: Tensor) -> list[list[int]]:
    """For each frame of the output the places of the input frames that have a gradient."""
    found = []
    for place in range(output.shape[1]):
        total = output[:, place].square().sum()
        (gradient,) = torch.autograd.grad(total, frames, retain_graph=True)
        moved = (gradient != 0).transpose(0, 1).flatten(1).any(1)
        found.append(moved.nonzero().flatten().tolist())
    return found


@pytest.mark.parametrize("skip", SKIPS)
def test_no_frame_depends_on_a_later_one(skip: str) -> None:
    """Output t, of frame t + 1, has seen that frame in the posterior, and all before it."""
    model = small(skip=skip)
    state = trained(model)
    images, noise = batch(model)
    images.requires_grad_()
    draw = drawn(model, images, noise, state)
    upto = [list(range(place + 2)) for place in range(model.frames - 1)]
    assert frames_that_move(draw.output, images) == upto
    assert frames_that_move(draw.rate, images) == upto


@pytest.mark.parametrize(
    ("skip", "past", "scored", "predicted"),
    [
        ("last_given", 3, [0, 1, 2, 2, 2], [2, 2, 2]),
        # The release encodes x[t-1] and keeps its maps while t < past (train_svg_lp.py:308-312).
        ("svg", 3, [0, 1, 1, 1, 1], [1, 1, 1]),
        # Frames that are fed back are no given frames: a detached mean ends the gradient.
        ("previous", 3, [0, 1, 2, 3, 4], [2, None, None]),
        ("last_given", 2, [0, 1, 1, 1], [1, 1, 1]),
        ("svg", 2, [0, 0, 0, 0], [0, 0, 0]),
        ("svg", 1, [0, 0, 0], [0, 0, 0]),
        ("last_given", 1, [0, 0, 0], [0, 0, 0]),
    ],
)
@pytest.mark.parametrize("network", ["dcgan", "vgg"])
def test_the_maps_of_one_frame_decode_a_frame(
    network: str, skip: str, past: int, scored: list[int], predicted: list[int | None]
) -> None:
    """Where the predictor says nothing, an output depends on its skip alone."""
    model = small(skip=skip, past=past, future=3, network=network)
    state = trained(model)
    with torch.no_grad():
        model.predictor.readout.weight.zero_()
    images, noise = batch(model)
    images.requires_grad_()
    output = drawn(model, images, noise, state).output
    assert frames_that_move(output, images) == [[place] for place in scored]
    noise = torch.randn(BATCH, model.rollout_size)
    output = model.predict(noise, state, images[:, :past], lambda raw: raw.sigmoid().detach())
    shown = output[:, :1] if None in predicted else output
    assert frames_that_move(shown, images) == [[p] for p in predicted if p is not None]
    if skip == "previous":
        # The maps are those of the mean that is fed back.
        given = images[:, :past].detach()
        bright = model.predict(noise, state, given, torch.ones_like)
        dark = model.predict(noise, state, given, torch.zeros_like)
        assert torch.equal(bright[:, 0], dark[:, 0])
        assert (bright[:, 1:] != dark[:, 1:]).flatten(2).any(2).all()


@pytest.mark.parametrize("network", ["dcgan", "vgg"])
@torch.no_grad()
def test_sequences_of_a_batch_do_not_mix_in_scoring(network: str) -> None:
    """Batch norms use their running averages; in training they mix the frames of a batch."""
    model = small(network=network)
    state = trained(model)
    images, noise = batch(model, 7)
    rollout = torch.randn(7, model.rollout_size)

    def everything(rows: Tensor) -> list[Tensor]:
        draw = drawn(model, images[rows], noise[rows], state)
        given = images[rows][:, : model.past]
        predicted = model.predict(rollout[rows], state, given, torch.sigmoid)
        assert draw.posteriors is not None
        moments = [moment for pair in draw.posteriors for moment in pair]
        return [draw.output, draw.rate, draw.log_ratio, predicted, *moments]

    whole = everything(torch.arange(7))
    order = torch.tensor([3, 0, 6, 5, 1, 2, 4])
    for one, other in zip(everything(order), whole, strict=True):
        torch.testing.assert_close(one, other[order], rtol=1e-4, atol=1e-5)
    pieces = [everything(rows) for rows in torch.arange(7).split([2, 1, 4])]
    for other, *apart in zip(whole, *pieces, strict=True):
        torch.testing.assert_close(torch.cat(apart), other, rtol=1e-4, atol=1e-5)

    def training(rows: slice) -> Tensor:
        context, _ = model.encode(images[rows], state, training=True)
        return model.draw(context, noise[rows], state, training=True).output

    assert not torch.allclose(training(slice(2)), training(slice(7))[:2], atol=1e-2)


# -- closed forms ----------------------------------------------------------------------------------


@pytest.mark.parametrize("prior", ["learned", "fixed"])
@torch.no_grad()
def test_rates_and_ratios_are_those_of_torchs_gaussians(prior: str) -> None:
    model = small(prior=prior)
    state = trained(model)
    images, noise = batch(model)
    draw = drawn(model, images, noise, state)
    steps = model.frames - 1
    vectors = torch.stack(
        [model.encoder(frame, state, training=False)[0] for frame in images.unbind(1)], dim=1
    )

    def gaussian(raw: Tensor) -> Normal:
        mean, scale = raw.chunk(2, dim=-1)
        return Normal(mean, F.softplus(scale * math.log(2)) / math.log(2))

    posterior = gaussian(model.posterior(vectors[:, 1:])[0])
    before = Normal(torch.zeros(BATCH, steps, 3), torch.ones(BATCH, steps, 3))
    if prior == "learned":
        before = gaussian(model.learned_prior(vectors[:, :-1])[0])
    expected = kl_divergence(posterior, before).sum(-1)
    assert draw.rate.shape == (BATCH, steps) == (BATCH, len(model.parts))
    assert draw.rate.min() > 0.1
    torch.testing.assert_close(draw.rate, expected, rtol=1e-4, atol=1e-5)
    latent = posterior.mean + posterior.stddev * noise.unflatten(1, (steps, -1))
    ratio = (before.log_prob(latent) - posterior.log_prob(latent)).sum((1, 2))
    torch.testing.assert_close(draw.log_ratio, ratio, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        units(model, draw, noise), (latent - before.mean) / before.stddev, rtol=1e-4, atol=1e-4
    )


@torch.no_grad()
def test_each_frame_takes_its_own_numbers_of_the_noise() -> None:
    model = small()
    state = trained(model)
    images, noise = batch(model)
    before = drawn(model, images, noise, state)
    assert list(model.parts) == [f"frame {place}" for place in range(1, 6)]
    start = 0
    for place, size in enumerate(model.parts.values()):
        other = noise.clone()
        other[:, start : start + size] += 1
        start += size
        after = drawn(model, images, other, state)
        assert torch.equal(after.rate, before.rate)
        changed = (after.output != before.output).flatten(2).any(2)
        assert not changed[:, :place].any()
        assert changed[:, place:].all()
    assert start == model.noise_size


@torch.no_grad()
def test_rates_in_bfloat16_are_close() -> None:
    model = small()
    state = trained(model)
    images, noise = batch(model)
    exact = drawn(model, images, noise, state)
    given, rollout = images[:, : model.past], torch.randn(BATCH, model.rollout_size)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = drawn(model, images, noise, state)
        predicted = model.predict(rollout, state, given, torch.sigmoid)
    assert rounded.rate.dtype == rounded.log_ratio.dtype == rounded.output.dtype == torch.float32
    assert predicted.dtype == torch.float32
    torch.testing.assert_close(rounded.rate, exact.rate, rtol=0.02, atol=0.02)
    expected = model.predict(rollout, state, given, torch.sigmoid)
    torch.testing.assert_close(predicted.sigmoid(), expected.sigmoid(), rtol=0, atol=0.05)


def test_several_sets_of_weights_train_in_one_call() -> None:
    model = small()
    vae = Vae(model, BetaGaussian(beta=0.1))
    images, noise = batch(model)
    state, factors = vae.initial_state(), torch.tensor([0.9, 1.1])

    def loss(factor: Tensor) -> Tensor:
        parameters = {name: value * factor for name, value in vae.named_parameters()}
        terms, _ = functional_call(vae, parameters, (images, noise, state, torch.float32))
        value: Tensor = terms.loss
        return value

    together = vmap(grad(loss))(factors)
    apart = torch.stack([grad(loss)(factor) for factor in factors])
    torch.testing.assert_close(together, apart, rtol=1e-3, atol=1e-2)
