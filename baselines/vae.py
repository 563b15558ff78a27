"""A model, a decoder and a balance together, and the objective that trains all of them."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from baselines.balances.base import Balance, Batch
from baselines.balances.elbo import Elbo
from baselines.decoders.base import Decoder, descended
from baselines.models.base import Model
from baselines.state import State


class Terms(NamedTuple):
    """What one step measures, each a scalar, in nats per image (or sequence) except σ.

    `loss` = `distortion` + `rate` is the negative ELBO; `sigma` is the root mean variance of
    p(x|z).

    >>> Terms._fields
    ('loss', 'distortion', 'rate', 'sigma')
    """

    loss: Tensor
    distortion: Tensor
    rate: Tensor
    sigma: Tensor


class Vae(nn.Module):
    """A model, the decoder on top of it, and the rule that weighs the rate in training.

    >>> from baselines.decoders.gaussian import SharedGaussian
    >>> from baselines.models.conv_vae import ConvVae
    >>> vae = Vae(ConvVae(channels=1, resolution=28, width=4), SharedGaussian())
    >>> images, noise = torch.rand(5, 1, 28, 28), torch.randn(5, vae.model.noise_size)
    >>> terms, state = vae(images, noise, vae.initial_state(), torch.float32)
    >>> torch.allclose(terms.loss, terms.distortion + terms.rate)
    True
    """

    def __init__(self, model: Model, decoder: Decoder, balance: Balance | None = None) -> None:
        super().__init__()
        self.model = model
        self.decoder = decoder
        self.balance = Elbo() if balance is None else balance

    def initial_state(self, total: int = 0) -> State:
        """All state before the first batch, on the CPU; training takes `total` steps."""
        decoder = self.decoder.initial_state(self.model.image_shape)
        return {**self.model.initial_state(), **decoder, **self.balance.initial_state(total)}

    def forward(
        self, images: Tensor, noise: Tensor, state: State, precision: torch.dtype
    ) -> tuple[Terms, State]:
        """The negative ELBO of a training batch, summed over dimensions, averaged over images.

        The loss has this value for every decoder and balance. Its gradient is that of
        distortion + weight · rate, with the balance's weight, and of the decoder's surrogate in
        place of that sum where it has one: the rate that the surrogate sees is weighted.

        Arguments:
            images: (B, C, H, W) in [0, 1], float32; sequences (B, T, C, H, W).
            noise: standard normal, (B, noise_size).
            state: as returned by the last step; not written.
            precision: of the networks; the decoder and the KL are always float32.
        """
        with torch.autocast(images.device.type, precision, enabled=precision != torch.float32):
            context, encoder_state = self.model.encode(images, state, training=True)
            draw = self.model.draw(context, noise, state, training=True)
        target = self.model.target(images)
        distribution = self.decoder(draw.output, state, target)
        distortion = -per_item(distribution.log_prob(target)).mean()
        if draw.rate.ndim != 2:
            raise ValueError(
                f"{type(self.model).__name__}: `Draw.rate` must be (B, parts), "
                f"not {tuple(draw.rate.shape)}"
            )
        rate = draw.rate.sum(-1).mean()
        decoder_state = self.decoder.update(distribution, target, state)
        batch = Batch(distribution, target, distortion.detach(), draw.rate.detach())
        weight, balance_state = self.balance(batch, state)
        weighted = draw.rate if weight is None else draw.rate * weight
        # A frame of a sequence has a rate of its own.
        rates = weighted if self.model.is_sequence else weighted.sum(-1)
        surrogate = self.decoder.surrogate(distribution, target, rates)
        sought = None if surrogate is None else per_item(surrogate)
        if sought is None and weight is not None:
            sought = distortion + weighted.sum(-1).mean()
        loss = descended(distortion + rate, sought)
        with torch.no_grad():
            sigma = self.decoder.sigma(distribution)
        terms = Terms(loss, distortion.detach(), rate.detach(), sigma)
        return terms, {**state, **encoder_state, **draw.state, **decoder_state, **balance_state}


def per_item(values: Tensor) -> Tensor:
    """Values (B, ...) summed over all dimensions but the batch, (B,): an image, or all its frames.

    >>> per_item(torch.tensor([1.0, 2.0])), per_item(torch.ones(2, 3))
    (tensor([1., 2.]), tensor([3., 3.]))
    """
    # Flattening would copy channels-last images, and sum them in another order.
    return values.sum(dim=tuple(range(1, values.ndim))) if values.ndim > 1 else values


def step_terms(
    vae: Vae,
    parameters: Mapping[str, Tensor],
    state: State,
    images: Tensor,
    noise: Tensor,
    precision: torch.dtype = torch.float32,
) -> tuple[Terms, State]:
    """A training step as a function: parameters, state, batch, noise → loss terms, new state.

    >>> from baselines.decoders.gaussian import OptimalGaussian
    >>> from baselines.models.linear_vae import LinearVae
    >>> vae = Vae(LinearVae(channels=1, resolution=8, latent=3), OptimalGaussian())
    >>> before, parameters = vae.initial_state(), dict(vae.named_parameters())
    >>> images, noise = torch.rand(5, 1, 8, 8), torch.randn(5, 3)
    >>> terms, after = step_terms(vae, parameters, before, images, noise)
    >>> torch.allclose(terms.sigma, (after["decoder.variance"] * 10).sqrt())  # of weight 1 - 0.9
    True
    """
    result: tuple[Terms, State] = functional_call(
        vae, dict(parameters), (images, noise, state, precision), strict=False
    )
    return result
