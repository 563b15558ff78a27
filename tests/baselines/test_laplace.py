"""Laplace decoders against SciPy's maximum-likelihood fit, torch's law and closed forms."""

import math
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from torch.distributions import Laplace

from baselines.beta import translate
from baselines.decoders.laplace import (
    FixedLaplace,
    LearnedLaplace,
    OptimalLaplace,
    deviation_from_the_median_image,
)

IMAGE = (1, 6, 6)


def optimal(**options: Any) -> OptimalLaplace:
    return OptimalLaplace(link="identity", **options)


def test_the_analytic_scale_is_the_maximum_likelihood_fit() -> None:
    rng = np.random.default_rng(0)
    errors = rng.laplace(0, 0.07, (5, *IMAGE))
    _, theirs = scipy.stats.laplace.fit(errors.ravel(), floc=0)
    target, location = torch.from_numpy(errors + 0.5).float(), torch.full(errors.shape, 0.5)
    decoder = optimal()
    law = decoder(location, decoder.initial_state(IMAGE), target)
    torch.testing.assert_close(law.variance, torch.full_like(location, 2 * theirs**2))
    # At the maximum each value costs 1 + ln 2b on average.
    expected = errors.size * (1 + math.log(2 * theirs))
    assert -law.log_prob(target).sum().item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("over", "axes"),
    [("batch", (0, 1, 2, 3)), ("image", (1, 2, 3)), ("channel", (0, 2, 3)), ("pixel", (0,))],
)
def test_the_axes_of_the_mean_are_the_option(over: str, axes: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    errors = rng.laplace(0, rng.uniform(0.01, 0.2, (7, 3, 6, 6)))
    expected = np.abs(errors).mean(axis=axes, keepdims=True)
    target, location = torch.from_numpy(errors).float(), torch.zeros(errors.shape)
    decoder = optimal(over=over)
    state = decoder.initial_state((3, 6, 6))
    law = decoder(location, state, target)
    b = (law.variance / 2).sqrt().numpy()
    np.testing.assert_allclose(b, np.broadcast_to(expected, errors.shape), rtol=1e-5)
    state |= decoder.update(law, target, state)
    scored = (decoder(location, state).variance / 2).sqrt().numpy()
    shared = expected.mean() if over == "image" else expected
    np.testing.assert_allclose(scored, np.broadcast_to(shared, errors.shape), rtol=1e-5)


def test_the_gradient_is_the_same_through_the_scale_and_around_it() -> None:
    """Where b is the optimum nothing flows through it: each value pulls with ±1/MAE."""
    target = torch.tensor([0.1, 0.5, 0.9, 0.3]).view(1, 1, 2, 2)
    gradients = []
    for stop in (False, True):
        output = torch.full((1, 1, 2, 2), 0.4, requires_grad=True)
        decoder = optimal(stop_gradient=stop)
        law = decoder(output, decoder.initial_state((1, 2, 2)), target)
        (gradient,) = torch.autograd.grad(-law.log_prob(target).sum(), output)
        gradients.append(gradient)
    mae = (0.3 + 0.1 + 0.5 + 0.1) / 4
    expected = torch.tensor([1.0, -1.0, -1.0, 1.0]).view(1, 1, 2, 2) / mae
    for gradient in gradients:
        torch.testing.assert_close(gradient, expected)


def test_a_perfect_fit_stops_at_the_floor() -> None:
    decoder = optimal(min_log_b=-4.0)
    image = torch.rand(2, *IMAGE)
    law = decoder(image, decoder.initial_state(IMAGE), image)
    torch.testing.assert_close(law.variance, torch.full_like(image, 2 * math.exp(-8)))


def test_a_scored_scale_comes_from_training_alone() -> None:
    decoder = optimal()
    state = decoder.initial_state(IMAGE)
    location = torch.full((4, *IMAGE), 0.5)
    for _ in range(3):
        target = location - 0.2
        state |= decoder.update(decoder(location, state, target), target, state)
    torch.testing.assert_close(decoder(location, state).variance, torch.full_like(location, 0.08))


def test_the_fixed_scale_is_torchs_law() -> None:
    output, image = torch.randn(4, *IMAGE), torch.rand(4, *IMAGE)
    found = FixedLaplace(b=0.03)(output, {}).log_prob(image)
    theirs = Laplace(output.sigmoid(), 0.03).log_prob(image).sum((1, 2, 3))
    torch.testing.assert_close(found, theirs)


def test_latent_diffusions_weight_is_a_scale_on_our_data() -> None:
    """Gradients of its loss on [-1, 1], L1 summed beside w·KL, are b times those of -ln p."""
    torch.manual_seed(0)
    weight = 1e-6
    b = translate("l1-sum", weight, "1x6x6", data_range=2).laplace_b
    assert b is not None
    assert b == pytest.approx(5e-7)
    output, image = torch.rand(3, *IMAGE, requires_grad=True), torch.rand(3, *IMAGE)
    theirs = ((2 * image - 1) - (2 * output - 1)).abs().sum()
    ours = -FixedLaplace(link="identity", b=b)(output, {}).log_prob(image).sum()
    (a,), (c,) = (torch.autograd.grad(loss, output) for loss in (theirs, ours))
    # Divided by the KL's weight in each loss: 1e-6 there, 1 here.
    torch.testing.assert_close(a / weight, c)


def test_the_learned_scale_descends_to_the_mean_absolute_error() -> None:
    torch.manual_seed(0)
    decoder = LearnedLaplace(link="identity", min_log_b=None)
    target = 0.5 + Laplace(0.0, 0.1).sample((8, *IMAGE))
    location = torch.full_like(target, 0.5)
    optimiser = torch.optim.LBFGS(decoder.parameters(), max_iter=50)

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss: torch.Tensor = -decoder(location, {}).log_prob(target).mean()
        loss.backward()
        return loss.detach()

    optimiser.step(closure)
    assert decoder.log_b.exp().item() == pytest.approx((target - 0.5).abs().mean().item(), rel=1e-3)


def test_the_learned_scale_has_a_learning_rate_of_its_own() -> None:
    assert LearnedLaplace().learning_rates() == {}
    assert LearnedLaplace(b_lr=20).learning_rates() == {"log_b": 20.0}


@pytest.mark.parametrize("count", [1, 2, 7, 1000])
def test_a_learned_scale_can_begin_at_the_data(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """At numpy's deviation from the median image, in one piece or in several."""
    monkeypatch.setattr("baselines.decoders.laplace.VALUES", 10_000)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, 4, 4), dtype=torch.uint8, generator=generator)
    values = images.numpy() / 255
    expected = np.abs(values - np.median(values, axis=0)).mean()
    found = deviation_from_the_median_image(images)
    assert found == pytest.approx(max(expected, 0.5 / 255), rel=1e-12)
    decoder = LearnedLaplace(initial_log_b="data")
    decoder.initialise(images)
    assert decoder.log_b.exp().item() == pytest.approx(found, rel=1e-6)
