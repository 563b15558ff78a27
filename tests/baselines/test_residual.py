"""The autoencoder of latent diffusion: published counts, closed forms, symmetries."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributions import Normal, kl_divergence

from baselines.build import build_model
from baselines.decoders.gaussian import OptimalGaussian
from baselines.levels import misfit
from baselines.models.residual_vae import Attention, GroupNorm, Residual, ResidualVae
from baselines.vae import Vae, step_terms
from tests.baselines.drawn import batch, drawn, two_sets_of_weights
from tests.specs import model_spec


def made(resolution: int = 16, **options: object) -> ResidualVae:
    torch.manual_seed(0)
    options = options if "size" in options else {"width": 4, "norm_groups": 2, **options}
    spec = model_spec("residual_vae", **options)
    model = build_model(spec, channels=3, resolution=resolution)
    assert isinstance(model, ResidualVae)
    return model


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


# -- the published networks ------------------------------------------------------------------------


def test_kl_f8_has_the_parameters_of_the_published_autoencoder() -> None:
    """83,653,863: the number that users of Stable Diffusion's autoencoder print."""
    with FakeTensorMode():
        assert count(made(32, size="kl_f8")) == 83_653_863


def test_kl_f4_is_kl_f8_without_a_level_and_a_latent_channel() -> None:
    def convolution(inputs: int, outputs: int, kernel: int = 3) -> int:
        return kernel**2 * inputs * outputs + outputs

    residual = 2 * convolution(512, 512) + 2 * 2 * 512
    level = 2 * residual + 3 * residual + 2 * convolution(512, 512)
    ends = {
        latent: convolution(512, 2 * latent)
        + convolution(2 * latent, 2 * latent, 1)
        + convolution(latent, latent, 1)
        + convolution(latent, 512)
        for latent in (3, 4)
    }
    expected = 83_653_863 - level - ends[4] + ends[3]
    with FakeTensorMode():
        assert count(made(32, size="kl_f4")) == expected


@pytest.mark.parametrize(
    ("size", "resolution", "latent"),
    [
        ("tiny", 28, (4, 7, 7)),
        ("tiny", 32, (4, 8, 8)),
        ("small", 64, (4, 16, 16)),
        ("kl_f4", 64, (3, 16, 16)),
        ("kl_f8", 32, (4, 4, 4)),
        ("kl_f8", 128, (4, 16, 16)),
    ],
)
def test_shapes_of_the_sizes(size: str, resolution: int, latent: tuple[int, ...]) -> None:
    with FakeTensorMode():
        model = made(resolution, size=size)
        images, noise = batch(model, 2)
        draw, samples = drawn(model, images, noise), model.generate(noise, {})
    assert model.latent_shape == latent
    assert draw.output.shape == samples.shape == images.shape
    assert draw.rate.shape == (2, 1)
    assert [[part.shape for part in moments] for moments in draw.posteriors or ()] == [
        [(2, *latent)] * 2
    ]


@pytest.mark.parametrize(("downsampling", "side"), [(8, 28), (4, 30)])
def test_a_side_that_cannot_be_halved_so_often_is_refused(downsampling: int, side: int) -> None:
    fault = f"downsampling {downsampling} does not divide the images' side {side}"
    assert misfit(model_spec("residual_vae", downsampling=downsampling), side) == fault
    with pytest.raises(ValueError, match=fault):
        made(side, downsampling=downsampling)
    assert not misfit(model_spec("residual_vae", downsampling=downsampling), 32)


# -- the posterior ---------------------------------------------------------------------------------


@torch.no_grad()
def test_with_a_head_of_zero_the_posterior_is_the_prior() -> None:
    model = made()
    for parameter in model.head.parameters():
        parameter.zero_()
    images, noise = batch(model)
    draw = drawn(model, images, noise)
    assert torch.equal(draw.rate, torch.zeros(5, 1))
    assert torch.equal(draw.log_ratio, torch.zeros(5))
    assert torch.equal(draw.output, model.generate(noise, {}))


@torch.no_grad()
def test_rate_and_log_ratio_are_those_of_the_gaussians() -> None:
    model = made()
    images, noise = batch(model)
    draw = drawn(model, images, noise)
    ((mean, log_variance),) = draw.posteriors or ()
    posterior, prior = Normal(mean, (0.5 * log_variance).exp()), Normal(0.0, 1.0)
    rate = kl_divergence(posterior, prior).sum((1, 2, 3))
    torch.testing.assert_close(draw.rate.squeeze(1), rate)
    latent = mean + posterior.stddev * noise.unflatten(1, model.latent_shape)
    ratio = (prior.log_prob(latent) - posterior.log_prob(latent)).sum((1, 2, 3))
    torch.testing.assert_close(draw.log_ratio, ratio, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(draw.output, model.generate(latent.flatten(1), {}))


@torch.no_grad()
@pytest.mark.parametrize(("raw", "log_variance"), [(-1e4, -30.0), (1e4, 20.0)])
def test_the_log_variance_has_the_published_bounds(raw: float, log_variance: float) -> None:
    model = made()
    nn.init.constant_(model.head[-1].bias, raw)  # type: ignore[arg-type]
    context, _ = model.encode(batch(model)[0], {}, training=False)
    assert (context[1] == log_variance).all()


# -- what the network knows of places --------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("downsampling", [2, 4])
def test_an_object_that_moves_moves_its_latents(downsampling: int) -> None:
    """By one place for as many pixels as it stands for; and back in the reconstruction.

    Normalisation and attention see the whole image, in which only the place has changed.
    """
    side = 64 * downsampling
    model = made(side, downsampling=downsampling)
    steps = 2 * downsampling, 3 * downsampling
    torch.manual_seed(2)
    pattern = torch.rand(3, 8, 8)
    images = torch.full((2, 3, side, side), 0.4)
    for image, (down, right) in zip(images, ((0, 0), steps), strict=True):
        start = side // 2 + down, side // 2 + right
        image[:, start[0] : start[0] + 8, start[1] : start[1] + 8] = pattern
    context, _ = model.encode(images, {}, training=False)
    for values in context:
        maps = values.unflatten(1, model.latent_shape)
        assert maps[0].flatten(1).std(1).min() > 0.01
        same_but_at_the_edge(maps[1], maps[0].roll((2, 3), (1, 2)), edge=16)
    latent = torch.zeros(2, *model.latent_shape)
    latent[0, :, 32, 32] = latent[1, :, 34, 35] = 3
    output = model.generate(latent.flatten(1), {})
    assert output[0].std() > 0.01
    same_but_at_the_edge(output[1], output[0].roll(steps, (1, 2)), edge=16 * downsampling)


def same_but_at_the_edge(one: Tensor, other: Tensor, edge: int) -> None:
    """There zeros are padded."""
    inside = (slice(None), slice(edge, -edge), slice(edge, -edge))
    torch.testing.assert_close(one[inside], other[inside], rtol=0, atol=1e-4)


@torch.no_grad()
def test_attention_is_torchs() -> None:
    torch.manual_seed(0)
    layer, value = Attention(8, norm_groups=2), torch.randn(3, 8, 4, 5)
    parts = layer.inputs(layer.norm(value)).flatten(2).transpose(1, 2).chunk(3, dim=2)
    attended = F.scaled_dot_product_attention(*parts).transpose(1, 2).unflatten(2, (4, 5))
    expected = value + layer.projection(attended)
    torch.testing.assert_close(layer(value), expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_without_attention_and_normalisation_a_block_sees_its_neighbours() -> None:
    """Two convolutions of 3x3: a pixel reaches two pixels far in each direction."""
    block = Residual(4, 4, norm_groups=2)
    block.body[0], block.body[3] = nn.Identity(), nn.Identity()
    torch.manual_seed(0)
    value = torch.randn(1, 4, 9, 9)
    other = value.clone()
    other[..., 4, 4] += 1
    changed = (block(other) != block(value)).any(1)[0]
    expected = torch.zeros(9, 9, dtype=torch.bool)
    expected[2:7, 2:7] = True
    assert torch.equal(changed, expected)


# -- numbers ---------------------------------------------------------------------------------------


@torch.no_grad()
def test_normalisation_is_torchs_and_in_float32() -> None:
    torch.manual_seed(0)
    value = 1000 + torch.randn(3, 8, 4, 4)
    ours, torchs = GroupNorm(8, 4), nn.GroupNorm(4, 8, eps=1e-6)
    assert torch.equal(ours(value), torchs(value))
    rounded = value.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = ours(rounded)
    assert torch.equal(found, torchs(rounded.float()).bfloat16())
    assert GroupNorm(6, 4).num_groups == 2


@torch.no_grad()
def test_images_of_a_batch_do_not_mix() -> None:
    model = made()
    images, noise = batch(model, 7)
    together = drawn(model, images, noise)
    pieces = [drawn(model, images[part], noise[part]) for part in (slice(2), slice(2, 7))]
    for field in ("output", "rate", "log_ratio"):
        apart = torch.cat([getattr(piece, field) for piece in pieces])
        # Convolutions of another batch sum in another order.
        torch.testing.assert_close(apart, getattr(together, field), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_in_bfloat16_the_rate_and_a_narrow_posterior_survive() -> None:
    model = made()
    images, noise = batch(model)
    exact = drawn(model, images, noise)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = drawn(model, images, noise)
        # What is added is lost beside 3 in bfloat16, whose next number is 3.015625.
        features = model.first[0]
        context = (torch.full_like(noise, 3.0), torch.full_like(noise, -12.0))
        near, far = (model.draw(context, sign * noise, {}, training=False) for sign in (1, -1))
    assert rounded.rate.dtype == rounded.log_ratio.dtype == rounded.output.dtype == torch.float32
    torch.testing.assert_close(rounded.rate, exact.rate, rtol=0.05, atol=0.05)
    assert isinstance(features, nn.Conv2d)
    assert not torch.equal(near.output, far.output)


# -- training --------------------------------------------------------------------------------------


def test_gradients_reach_every_parameter_and_every_latent_at_once() -> None:
    """No layer begins at zero, so none has to wait for another."""
    model = made()
    vae = Vae(model, OptimalGaussian())
    images, noise = batch(model)
    noise.requires_grad_()
    terms, _ = step_terms(vae, dict(vae.named_parameters()), vae.initial_state(), images, noise)
    terms.loss.backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in vae.parameters())
    assert noise.grad is not None
    assert (noise.grad != 0).all()


def test_several_sets_of_weights_train_in_one_call() -> None:
    together, apart = two_sets_of_weights(made())
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-3)
