"""Models against torch's own distributions and closed forms."""

import pytest
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence

from baselines.models.conv_vae import ConvVae, ConvVaeTf
from baselines.models.linear_vae import LinearVae


def test_rate_and_log_ratio_are_those_of_the_gaussians() -> None:
    torch.manual_seed(0)
    model = LinearVae(channels=1, resolution=28, latent=7)
    mean, log_variance = torch.randn(5, 7), torch.randn(5, 7)
    noise = torch.randn(5, 7)
    draw = model.draw((mean, log_variance), noise, {}, training=False)
    posterior, prior = Normal(mean, (0.5 * log_variance).exp()), Normal(0.0, 1.0)
    latent = posterior.mean + posterior.stddev * noise
    torch.testing.assert_close(draw.rate, kl_divergence(posterior, prior).sum(-1, keepdim=True))
    ratio = (prior.log_prob(latent) - posterior.log_prob(latent)).sum(-1)
    torch.testing.assert_close(draw.log_ratio, ratio)


@pytest.mark.parametrize("rows", [5, 40])
def test_a_frozen_decoder_is_the_trained_one(rows: int) -> None:
    torch.manual_seed(0)
    model = ConvVae(channels=1, resolution=8, width=4, latent=7)
    latent = torch.randn(rows, 7)
    trained, frozen = (model.decode(latent, {}, training=on)[0] for on in (True, False))
    torch.testing.assert_close(frozen, trained)


def test_the_tensorflow_models_output_is_its_tanh() -> None:
    """sigmoid of our doubled output is (tanh + 1) / 2 of the release's last layer."""
    torch.manual_seed(0)
    model = ConvVaeTf(channels=1, resolution=28, width=4, latent=5)
    state = model.initial_state()
    images = torch.rand(6, 1, 28, 28)
    context, changed = model.encode(images, state, training=True)
    draw = model.draw(context, torch.randn(6, 5), {**state, **changed}, training=True)
    torch.testing.assert_close(draw.output.sigmoid(), ((draw.output / 2).tanh() + 1) / 2)
    assert set(changed) | set(draw.state) == set(state)


def test_weights_of_an_earlier_version_load() -> None:
    """Its layer after the latent had the latent's name."""
    old, new = (ConvVaeTf(channels=1, resolution=28, width=2, latent=3) for _ in range(2))
    weights = {k.replace("features.", "latent."): v for k, v in old.state_dict().items()}
    assert "latent.0.weight" in weights
    nn.Sequential(new).load_state_dict({f"0.{name}": value for name, value in weights.items()})
    for name, value in new.state_dict().items():
        assert torch.equal(value, old.state_dict()[name])
