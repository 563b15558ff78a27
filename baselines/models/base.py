"""What every model is: images in, one posterior draw's raw output, rate and density ratio out."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from baselines.state import State

Context = tuple[Tensor, ...]
"""What the encoder knows of a batch of images; every tensor's first dimension is the batch."""


class Draw(NamedTuple):
    """One draw z ~ q(z|x) for each image of a batch.

    Attributes:
        output: raw network output for the decoder, (B, outputs * C, H, W), float32.
        rate: KL(q(z|x) || p(z)) in nats, (B,), in closed form where there is one.
        log_ratio: ln p(z) - ln q(z|x) at the draw, in nats, (B,), for importance weights.
        state: the model's state entries that this batch changed (training only).
    """

    output: Tensor
    rate: Tensor
    log_ratio: Tensor
    state: State


class Model(nn.Module):
    """q(z|x), p(z) and the network in front of the decoder.

    All randomness comes in as `noise`, standard normal numbers (B, noise_size): no module draws
    its own, so that a step can be repeated, captured and vectorised. Nothing is written in
    `forward`: what training changes besides parameters is returned as state.

    Attributes:
        image_shape: (C, H, W) of the data.
        noise_size: standard normal numbers that one draw consumes.
    """

    image_shape: tuple[int, int, int]
    noise_size: int

    def initial_state(self) -> State:
        """Running statistics before the first batch."""
        return {}

    def encode(self, images: Tensor, state: State, *, training: bool) -> tuple[Context, State]:
        """The context of images (B, C, H, W) in [0, 1], and the changed state entries."""
        raise NotImplementedError

    def draw(self, context: Context, noise: Tensor, state: State, *, training: bool) -> Draw:
        """One posterior draw per context row, decoded."""
        raise NotImplementedError

    def generate(self, noise: Tensor, state: State) -> Tensor:
        """Raw output (B, outputs * C, H, W) for draws from the prior."""
        raise NotImplementedError


class GaussianLatentModel(Model):
    """A model with one latent vector, q(z|x) diagonal Gaussian and p(z) = N(0, I).

    The context is (mean, log variance), each (B, latent) and float32.
    """

    def decode(self, latent: Tensor, state: State, *, training: bool) -> tuple[Tensor, State]:
        """Raw output for latents (B, latent), and the changed state entries."""
        raise NotImplementedError

    def draw(self, context: Context, noise: Tensor, state: State, *, training: bool) -> Draw:
        mean, log_variance = context
        latent = mean + (0.5 * log_variance).exp() * noise
        output, changed = self.decode(latent, state, training=training)
        rate = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(-1)
        log_ratio = 0.5 * (noise.square() - latent.square() + log_variance).sum(-1)
        return Draw(output, rate, log_ratio, changed)

    def generate(self, noise: Tensor, state: State) -> Tensor:
        return self.decode(noise, state, training=False)[0]


def full_precision(module: nn.Module, value: Tensor) -> Tensor:
    """Apply `module` in float32 inside an autocast region.

    For the layers whose outputs are exponentiated (log variances) or scored (images): eight bits
    of mantissa in ln σ are a visible error in nats.
    """
    with torch.autocast(value.device.type, enabled=False):
        result: Tensor = module(value.float())
    return result


def read_out(output: nn.Module, stopped: nn.Module | None, features: Tensor) -> Tensor:
    """Raw decoder output in float32, from features that the first layer alone may move.

    The outputs of `stopped` stand last along dimension 1 and send no gradient to `features`
    (Stirn et al. 2023).
    """
    result = full_precision(output, features)
    if stopped is None:
        return result
    return torch.cat([result, full_precision(stopped, features.detach())], dim=1)
