"""The linear VAE, whose likelihood has a closed form to check everything else against."""

import math

import torch
from torch import Tensor, nn

from baselines.models.base import Context, GaussianLatentModel, full_precision
from baselines.state import State


class LinearVae(GaussianLatentModel):
    """Affine encoder mean, one learned variance per latent, affine decoder (Lucas et al. 2019).

    With a Gaussian decoder (`link: identity`) of variance σ² the marginal p(x) is that of
    probabilistic PCA, N(b, W Wᵀ + σ² I) (Tipping & Bishop 1999), and the optimal posterior lies
    in the family, so its bound can be tight.
    """

    def __init__(self, *, channels: int, resolution: int, outputs: int, latent: int) -> None:
        super().__init__()
        size = channels * resolution * resolution
        self.noise_size = latent
        self.head = nn.Linear(size, latent)
        self.log_variance = nn.Parameter(torch.zeros(latent))
        self.output = nn.Linear(latent, outputs * size)
        self.shape = (outputs * channels, resolution, resolution)
        nn.init.normal_(self.output.weight, std=1 / math.sqrt(size))

    def encode(self, images: Tensor, state: State, *, training: bool) -> tuple[Context, State]:
        mean = full_precision(self.head, images.flatten(1))
        return (mean, self.log_variance.expand_as(mean)), {}

    def decode(self, latent: Tensor, state: State, *, training: bool) -> tuple[Tensor, State]:
        return full_precision(self.output, latent).unflatten(-1, self.shape), {}
