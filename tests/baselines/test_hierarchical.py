"""The hierarchical VAE against closed forms: an exact evidence, its rates, its noise."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from baselines.build import build_decoder, build_model
from baselines.decoders.gaussian import BetaGaussian
from baselines.models.hierarchical import Group, Hierarchical
from baselines.vae import Vae, step_terms
from tests.baselines.drawn import batch, drawn, two_sets_of_weights
from tests.specs import decoder_spec, model_spec


def small(**options: object) -> Hierarchical:
    """16x16 images, four groups, weights of a model that has been trained: none of them zero."""
    torch.manual_seed(0)
    model = build_model(
        model_spec("hierarchical", width=6, middle=4, latent=2, groups="2@1 1@4 1@8", **options),
        channels=1,
        resolution=16,
    )
    assert isinstance(model, Hierarchical)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return model


# -- closed forms ----------------------------------------------------------------------------------


def test_at_the_start_the_posterior_is_the_prior() -> None:
    """Bit for bit: no rate, and reconstructions are samples."""
    torch.manual_seed(0)
    model = Hierarchical(channels=3, resolution=32)
    images, noise = batch(model)
    draw = drawn(model, images, noise)
    assert torch.equal(draw.rate, torch.zeros(5, 4))
    assert torch.equal(draw.log_ratio, torch.zeros(5))
    assert torch.equal(draw.output, model.generate(noise, {}))
    assert draw.output.std() > 0.01


class Affine(nn.Module):
    """A block that is affine in every pixel: each output's weights, then its constant."""

    def __init__(self, *rows: list[float]) -> None:
        super().__init__()
        self.table = torch.tensor(rows, dtype=torch.float32)

    def precise(self, value: Tensor) -> Tensor:
        return F.conv2d(value, self.table[:, :-1, None, None], self.table[:, -1])


def raw_scale(scale: float) -> float:
    """What `scale_of` maps to a scale."""
    return math.log(math.expm1(scale * math.log(2))) / math.log(2)


class LinearHierarchy:
    """Two groups whose networks are affine, so that p(x) is Gaussian and the posterior known.

    Group 1 has one latent u, group 2 one for each of 4x4 patches of 4x4 pixels, and the mean of a
    pixel is a·u + b·v of its patch. x has covariance a² + b² in the patch + σ² on the diagonal.
    """

    a, b, sigma = 0.7, 0.4, 0.5
    first, prior_weight, prior_scale, shift, second, out = 1.5, -0.6, 0.8, 0.3, 0.9, 0.5

    def __init__(self, blur: float = 0.0) -> None:
        """`blur` moves the posterior away from the true one."""
        self.model = Hierarchical(
            channels=1, resolution=16, width=1, middle=1, latent=1, groups="1@1 1@4",
            encoder="0@full",
        )  # fmt: skip
        # Above 20 a SiLU is the identity in float32.
        high = 20.0
        one = torch.zeros(1, 1, 3, 3)
        one[..., 1, 1] = 1
        loadings = self.first * (1 + self.shift + self.second * self.prior_weight)
        a, b = self.out * loadings, self.out * self.second * self.prior_scale
        self.covariance = self._covariance(a, b)
        # Given u, a patch's mean is a·u + b·v + N(0, σ²/16); without it all means are a·u + noise.
        precision = 1 + 16 * b**2 / self.sigma**2
        patch = 16 * b / self.sigma**2 / precision
        noise = b**2 + self.sigma**2 / 16
        top_precision = 1 + 16 * a**2 / noise
        mean = 16 * a / noise / top_precision
        with torch.no_grad():
            self.model.stem.weight.copy_(one / 2)
            self.model.stem.bias.fill_(0.5)  # type: ignore[union-attr]
            self.model.output.weight.copy_(self.out * one)  # type: ignore[operator]
            self.model.output.bias.fill_(-self.out * high)  # type: ignore[operator]
            self.model.offsets["16"].fill_(high)
            for group, weight in zip(self.model.top_down, (self.first, self.second), strict=True):
                assert isinstance(group, Group)
                group.projection.weight.fill_(weight)
                group.residual.last.weight.zero_()
        top, below = self.model.top_down
        top.prior = Affine([0, 0], [0, 0], [0, 0])
        top.posterior = Affine([0, mean, blur], [0, 0, raw_scale(top_precision**-0.5) + blur])
        below.prior = Affine(
            [self.prior_weight, 0], [0, raw_scale(self.prior_scale)], [self.shift, 0]
        )
        below.posterior = Affine(
            [-patch * a / self.first, patch, -blur], [0, 0, raw_scale(precision**-0.5) + blur]
        )
        self.decoder = BetaGaussian(beta=2 * self.sigma**2, link="identity")

    def _covariance(self, a: float, b: float) -> Tensor:
        patch = torch.arange(4).repeat_interleave(4)
        of_pixel = (4 * patch[:, None] + patch).flatten()
        same = (of_pixel[:, None] == of_pixel).double()
        return a**2 + b**2 * same + self.sigma**2 * torch.eye(256, dtype=torch.float64)

    def evidence(self, images: Tensor) -> Tensor:
        marginal = MultivariateNormal(torch.zeros(256, dtype=torch.float64), self.covariance)
        value: Tensor = marginal.log_prob(images.flatten(1).double())
        return value

    def log_weights(self, images: Tensor, noise: Tensor) -> Tensor:
        draw = drawn(self.model, images, noise)
        log_p: Tensor = self.decoder(draw.output, {}).log_prob(images)
        return (log_p + draw.log_ratio).double()


@torch.no_grad()
def test_with_the_true_posterior_every_draw_gives_the_exact_evidence() -> None:
    """ln p(x|z) + ln p(z) - ln q(z|x) = ln p(x): encoder, groups, scales and sums are right."""
    hierarchy = LinearHierarchy()
    images, noise = batch(hierarchy.model, 20)
    found = hierarchy.log_weights(images, noise)
    torch.testing.assert_close(found, hierarchy.evidence(images), rtol=0, atol=0.01)
    # Samples have the variances and covariances of p(x).
    noise = torch.randn(10_000, hierarchy.model.noise_size)
    mean = hierarchy.model.generate(noise, {}).flatten(1)
    model = hierarchy.covariance - hierarchy.sigma**2 * torch.eye(256)
    torch.testing.assert_close(mean.T.cov().double(), model, rtol=0, atol=0.03)


@torch.no_grad()
def test_with_another_posterior_the_importance_weighted_bound_reaches_it() -> None:
    hierarchy = LinearHierarchy(blur=0.1)
    images, _ = batch(hierarchy.model, 1)
    noise = torch.randn(4096, hierarchy.model.noise_size)
    weights = hierarchy.log_weights(images.expand(4096, -1, -1, -1), noise)
    exact = hierarchy.evidence(images).item()
    assert weights.mean().item() < exact - 0.05
    bound = (weights.logsumexp(0) - math.log(4096)).item()
    error = (weights - bound).exp().std().item() / 64
    assert bound == pytest.approx(exact, abs=4 * error + 0.01)
    assert error < 0.05


@torch.no_grad()
def test_the_mean_of_the_log_ratio_is_minus_the_rate() -> None:
    model = small()
    images, _ = batch(model, 1)
    count = 8_000
    noise = torch.randn(count, model.noise_size)
    draw = drawn(model, images.expand(count, -1, -1, -1), noise)
    assert draw.rate.mean(0).min() > 0.03
    gap = (draw.rate.sum(1) + draw.log_ratio).double()
    assert abs(gap.mean().item()) < 4 * gap.std().item() / math.sqrt(count)
    # The top group's rate does not depend on the draw, and is that of torch's Gaussians.
    context, _ = model.encode(images, {}, training=False)
    mean, log_variance = model.top(context)
    top = kl_divergence(Normal(mean, (0.5 * log_variance).exp()), Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(draw.rate[:, 0], top.expand(count))


# -- noise -----------------------------------------------------------------------------------------


@torch.no_grad()
def test_each_part_takes_its_own_numbers_of_the_noise() -> None:
    """Other numbers in one part leave the rates of it and of the parts above as they were."""
    model = small()
    assert model.parts == {"1x1.1": 2, "1x1.2": 2, "4x4": 32, "8x8": 128}
    images, noise = batch(model)
    before = drawn(model, images, noise)
    start = 0
    for index, size in enumerate(model.parts.values()):
        other = noise.clone()
        other[:, start : start + size] += 1
        start += size
        after = drawn(model, images, other)
        assert torch.equal(after.rate[:, : index + 1], before.rate[:, : index + 1])
        assert (after.rate[:, index + 1 :] != before.rate[:, index + 1 :]).all()
        assert (after.output != before.output).flatten(1).any(1).all()
    assert start == model.noise_size


def test_every_number_of_the_noise_counts() -> None:
    model = small()
    noise = batch(model, 1)[1].requires_grad_()
    model.generate(noise, {}).square().sum().backward()
    assert noise.grad is not None
    assert (noise.grad != 0).all()


@torch.no_grad()
def test_at_temperature_zero_there_is_one_image() -> None:
    model = small()
    _, noise = batch(model)
    warm, cold = model.generate(noise, {}), model.generate(0 * noise, {})
    assert torch.equal(cold, cold[:1].expand_as(cold))
    assert not torch.allclose(warm, warm[:1].expand_as(warm), atol=0.1)


@torch.no_grad()
def test_images_of_a_batch_do_not_mix() -> None:
    model = small()
    images, noise = batch(model, 7)
    together = drawn(model, images, noise)
    order = torch.tensor([3, 0, 6, 5, 1, 2, 4])
    permuted = drawn(model, images[order], noise[order])
    pieces = [drawn(model, images[part], noise[part]) for part in (slice(2), slice(2, 7))]
    for field in ("output", "rate", "log_ratio"):
        whole = getattr(together, field)
        apart = torch.cat([getattr(piece, field) for piece in pieces])
        # Convolutions of another batch sum in another order.
        torch.testing.assert_close(apart, whole, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(getattr(permuted, field), whole[order], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_rates_in_bfloat16_are_close() -> None:
    model = small()
    images, noise = batch(model)
    exact = drawn(model, images, noise)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = drawn(model, images, noise)
    assert rounded.rate.dtype == rounded.log_ratio.dtype == rounded.output.dtype == torch.float32
    torch.testing.assert_close(rounded.rate, exact.rate, rtol=0, atol=0.01)


# -- training --------------------------------------------------------------------------------------


def test_zero_heads_let_every_gradient_through_after_two_steps() -> None:
    """A head of weight zero has a gradient and passes none on, so what is behind it starts later.

    The top group's prior sees features of zero, so that its head has to wait for its bias.
    """
    torch.manual_seed(0)
    model = Hierarchical(channels=1, resolution=16, width=6, middle=4, encoder="1@full 1@below")
    vae = Vae(model, build_decoder(decoder_spec("optimal")))
    images, noise = batch(model)
    optimizer = torch.optim.Adam(vae.parameters(), 1e-3)
    waiting = []
    for _ in range(3):
        terms, _ = step_terms(vae, dict(vae.named_parameters()), vae.initial_state(), images, noise)
        optimizer.zero_grad()
        terms.loss.backward()
        named = vae.model.named_parameters()
        waiting.append({name for name, p in named if p.grad is None or not p.grad.any()})
        optimizer.step()
    behind = {name for name, _ in model.named_parameters()
              if name.startswith(("stem", "bottom_up")) or ".prior.body" in name
              or ".posterior.body" in name}  # fmt: skip
    assert waiting[0] == behind | {"top_down.0.prior.last.weight"}
    assert all(name.startswith("top_down.0.prior.body") for name in waiting[1])
    assert waiting[2] == set()


def test_the_groups_open_as_sigma_falls() -> None:
    """No warm-up of the rate is needed: σ starts large and the groups silent."""
    torch.manual_seed(1)
    model = Hierarchical(channels=1, resolution=16, width=16, middle=8, latent=2, groups="1@1 1@4")
    vae = Vae(model, build_decoder(decoder_spec("optimal")))
    # One brightness an image, and one a patch of 4x4 pixels.
    patches = torch.rand(64, 1, 4, 4).repeat_interleave(4, 2).repeat_interleave(4, 3)
    images = (torch.rand(64, 1, 1, 1) + patches) / 2
    optimizer, state = torch.optim.Adam(vae.parameters(), 3e-3), vae.initial_state()
    rates, sigmas = [], []
    for step in range(101):
        noise = torch.randn(64, model.noise_size)
        terms, state = step_terms(vae, dict(vae.named_parameters()), state, images, noise)
        optimizer.zero_grad()
        terms.loss.backward()
        optimizer.step()
        state = {name: value.detach() for name, value in state.items()}
        if step in (20, 100):
            rates.append(drawn(model, images, noise).rate.mean(0))
            sigmas.append(terms.sigma)
    assert (rates[0] < 0.1).all()
    assert (rates[1] > 1).all()
    assert sigmas[1] < sigmas[0] / 2


def test_several_sets_of_weights_train_in_one_call() -> None:
    together, apart = two_sets_of_weights(small())
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-3)
