"""The linear VAE, whose likelihood has a closed form to check everything else against."""

import math

import torch
from torch import Tensor, nn

from baselines.layers import full_precision, output_head
from baselines.models.base import Context, GaussianLatentModel
from baselines.options import model
from baselines.state import State


@model("linear_vae")
class LinearVae(GaussianLatentModel):
    """Affine encoder and decoder, equivalent to probabilistic PCA (Lucas et al. 2019).

    The encoder's mean is affine, its variance one learned number per latent. With a Gaussian
    decoder (`link: identity`) of variance σ² the marginal p(x) is that of probabilistic PCA,
    N(b, W Wᵀ + σ² I) (Tipping & Bishop 1999), and the optimal posterior is in the family, so its
    bound can be tight.

    >>> model = LinearVae(channels=1, resolution=8, latent=3)
    >>> {name: tuple(value.shape) for name, value in model.named_parameters()}
    {'log_variance': (3,), 'head.weight': (3, 64), 'head.bias': (3,),
     'output.weight': (64, 3), 'output.bias': (64,)}
    """

    honours_detached_outputs = True

    def setup(self) -> None:
        size = math.prod(self.image_shape)
        self.head = nn.Linear(size, self.latent)
        self.log_variance = nn.Parameter(torch.zeros(self.latent))

        def last(outputs: int) -> nn.Module:
            layer = nn.Linear(self.latent, outputs * size)
            nn.init.normal_(layer.weight, std=1 / math.sqrt(size))
            return layer

        self.output = last(self.outputs - self.detached_outputs)
        self.stopped = last(self.detached_outputs) if self.detached_outputs else None

    def encode(self, images: Tensor, state: State, *, training: bool) -> tuple[Context, State]:
        mean = full_precision(self.head, images.flatten(1))
        return (mean, self.log_variance.expand_as(mean)), {}

    def decode(self, latent: Tensor, state: State, *, training: bool) -> tuple[Tensor, State]:
        output = output_head(self.output, self.stopped, latent)
        return output.unflatten(1, (-1, *self.image_shape[1:])), {}
