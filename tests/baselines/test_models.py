"""Models against torch's own layers and closed forms."""

import torch
from torch import nn
from torch.distributions import Normal, kl_divergence

from baselines.models.conv_vae import BatchNorm, ConvVaeTf
from baselines.specs import MODELS, build_model


def test_rate_and_log_ratio_are_those_of_the_gaussians() -> None:
    torch.manual_seed(0)
    model = build_model(MODELS["linear_vae"](latent=7), channels=1, resolution=28, outputs=1)
    mean, log_variance = torch.randn(5, 7), torch.randn(5, 7)
    noise = torch.randn(5, 7)
    draw = model.draw((mean, log_variance), noise, {}, training=False)
    posterior, prior = Normal(mean, (0.5 * log_variance).exp()), Normal(0.0, 1.0)
    latent = posterior.mean + posterior.stddev * noise
    torch.testing.assert_close(draw.rate, kl_divergence(posterior, prior).sum(-1))
    ratio = (prior.log_prob(latent) - posterior.log_prob(latent)).sum(-1)
    torch.testing.assert_close(draw.log_ratio, ratio)


def test_batch_norm_is_torchs_with_returned_statistics() -> None:
    torch.manual_seed(0)
    ours, theirs = BatchNorm("norm", 3, decay=0.9), nn.BatchNorm2d(3, eps=1e-3, momentum=0.1)
    state = ours.initial_state()
    weight = 0.0
    for _ in range(4):
        value = torch.randn(8, 3, 5, 5) * 2 + 1
        result, changed = ours(value, state, training=True)
        torch.testing.assert_close(result, theirs(value))
        state = {**state, **changed}
        weight = 0.9 * weight + 0.1
    # torch's running mean starts at 0 and keeps that pull; ours is corrected for it.
    mean, _ = state["norm"] / state["norm.weight"]
    torch.testing.assert_close(mean * weight, theirs.running_mean)
    scored, changed = ours(torch.randn(2, 3, 5, 5), state, training=False)
    assert changed == {}
    assert scored.isfinite().all()


def test_the_tensorflow_models_output_is_its_tanh() -> None:
    """sigmoid of our doubled output is (tanh + 1) / 2 of the release's last layer."""
    torch.manual_seed(0)
    model = ConvVaeTf(
        channels=1, resolution=28, outputs=1, stopped=0, width=4, latent=5, decay=0.99
    )
    state = model.initial_state()
    images = torch.rand(6, 1, 28, 28)
    context, changed = model.encode(images, state, training=True)
    draw = model.draw(context, torch.randn(6, 5), {**state, **changed}, training=True)
    torch.testing.assert_close(draw.output.sigmoid(), ((draw.output / 2).tanh() + 1) / 2)
    assert set(changed) | set(draw.state) == set(state)
