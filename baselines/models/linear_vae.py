"""The linear VAE, whose likelihood has a closed form to check everything else against."""

import math

import torch
from torch import Tensor, nn

from baselines.models.base import Context, GaussianLatentModel, full_precision, read_out
from baselines.state import State


class LinearVae(GaussianLatentModel):
    """Affine encoder mean, one learned variance per latent, affine decoder (Lucas et al. 2019).

    With a Gaussian decoder (`link: identity`) of variance σ² the marginal p(x) is that of
    probabilistic PCA, N(b, W Wᵀ + σ² I) (Tipping & Bishop 1999), and the optimal posterior lies
    in the family, so its bound can be tight.
    """

    def __init__(
        self, *, channels: int, resolution: int, outputs: int, stopped: int, latent: int
    ) -> None:
        super().__init__()
        size = channels * resolution * resolution
        self.noise_size = latent
        self.head = nn.Linear(size, latent)
        self.log_variance = nn.Parameter(torch.zeros(latent))
        self.image_shape = (channels, resolution, resolution)

        def last(outputs: int) -> nn.Module:
            layer = nn.Linear(latent, outputs * size)
            nn.init.normal_(layer.weight, std=1 / math.sqrt(size))
            return layer

        self.output = last(outputs - stopped)
        self.stopped = last(stopped) if stopped else None

    def encode(self, images: Tensor, state: State, *, training: bool) -> tuple[Context, State]:
        mean = full_precision(self.head, images.flatten(1))
        return (mean, self.log_variance.expand_as(mean)), {}

    def decode(self, latent: Tensor, state: State, *, training: bool) -> tuple[Tensor, State]:
        output = read_out(self.output, self.stopped, latent)
        return output.unflatten(1, (-1, *self.image_shape[1:])), {}
