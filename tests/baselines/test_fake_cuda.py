"""Every decoder on every model on tensors that have a device and no values.

Tensors of two devices, a wait for the device and a branch on a value all raise there. Autocast and
backward need a GPU that is there, so they are followed on a CPU without values.
"""

import itertools

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from baselines.options import DECODERS, MODELS
from baselines.state import State
from baselines.vae import Terms, Vae, step_terms
from tests.baselines.test_contract import BATCH, make, sampled

every_pair = pytest.mark.parametrize(
    ("decoder", "model"), list(itertools.product(DECODERS, MODELS))
)


def stepped(
    decoder: str, model: str, device: str, precision: torch.dtype
) -> tuple[Vae, Tensor, Terms, State]:
    """A VAE with a step's images, terms and new state, all on the device."""
    with torch.device(device):
        vae = make(decoder, model, 3)
        images = torch.rand(BATCH, *vae.model.data_shape)
        noise = torch.randn(BATCH, vae.model.noise_size)
        state = vae.initial_state()
    parameters: dict[str, Tensor] = dict(vae.named_parameters())
    terms, after = step_terms(vae, parameters, state, images, noise, precision)
    assert {value.device.type for value in (*terms, *after.values())} == {device}
    return vae, images, terms, after


@every_pair
def test_a_step_and_scoring_stay_on_a_gpu(decoder: str, model: str) -> None:
    with FakeTensorMode():
        vae, images, _, state = stepped(decoder, model, "cuda", torch.float32)
        noise = torch.randn(BATCH, vae.model.noise_size, device="cuda")
        with torch.no_grad():
            context, _ = vae.model.encode(images, state, training=False)
            draw = vae.model.draw(context, noise, state, training=False)
            scored = vae.decoder(draw.output, state).log_prob(vae.model.target(images))
            with torch.device("cuda"):
                mean = vae.decoder(sampled(vae, images, state)[0], state).mean
    found = (*context, draw.rate, draw.log_ratio, scored, mean)
    assert {value.device.type for value in found} == {"cuda"}


@every_pair
def test_gradients_need_no_values(decoder: str, model: str) -> None:
    with FakeTensorMode():
        vae, _, terms, _ = stepped(decoder, model, "cpu", torch.bfloat16)
        terms.loss.backward()
    for name, parameter in vae.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.shape == parameter.shape, name
