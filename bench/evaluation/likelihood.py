"""Bounds on the likelihood: the negative ELBO, the importance-weighted bound, a refitted σ."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from baselines.models import Context
from baselines.state import State
from baselines.vae import Vae
from bench.streams import normal
from bench.training import scaled

CHUNK = 512
"""Images decoded at once; changes no number beyond rounding."""

BLOCK = 128
"""Images that share one noise stream in `importance_weighted`; part of what fixes its draws."""


@dataclass(frozen=True)
class Scorer:
    """A trained VAE, frozen for scoring: its σ comes from training, never from what it scores."""

    vae: Vae
    state: State
    precision: torch.dtype

    def autocast(self, images: Tensor) -> torch.autocast:
        return torch.autocast(
            images.device.type, self.precision, enabled=self.precision != torch.float32
        )

    def encode(self, images: Tensor) -> Context:
        """The context of 8-bit images (B, C, H, W)."""
        with self.autocast(images):
            return self.vae.model.encode(scaled(images), self.state, training=False)[0]

    def reconstruct(self, images: Tensor, noise: Tensor) -> Tensor:
        """Decoder means in [0, 1] of one posterior draw for 8-bit images."""
        with torch.inference_mode():
            context = self.encode(images)
            with self.autocast(images):
                draw = self.vae.model.draw(context, noise, self.state, training=False)
            return self._mean(draw.output)

    def generate(self, noise: Tensor) -> Tensor:
        """Decoder means (B, C, H, W) for draws from the prior, `noise` (B, noise_size)."""
        with torch.inference_mode():
            with self.autocast(noise):
                output = self.vae.model.generate(noise, self.state)
            return self._mean(output)

    def _mean(self, output: Tensor) -> Tensor:
        mean: Tensor = self.vae.decoder(output, self.state).mean
        return mean


@dataclass(frozen=True)
class Scores:
    """One posterior draw's score of every image, each (N,), float64, on the CPU.

    distortion: -ln p(x|z), nats; rate: KL(q(z|x) || p(z)), nats; squared_error: ||x - μ(z)||²;
    variance: mean variance of p(x|z) over the image.
    """

    distortion: Tensor
    rate: Tensor
    squared_error: Tensor
    variance: Tensor


@torch.inference_mode()
def score(scorer: Scorer, images: Tensor, seed: int, name: str) -> Scores:
    """Score 8-bit images with one draw each, from the stream `name` of `seed`."""
    noise = normal((len(images), scorer.vae.model.noise_size), seed, name, device=images.device)
    rows = []
    for chunk, chunk_noise in zip(images.split(CHUNK), noise.split(CHUNK), strict=True):
        target = scaled(chunk)
        context = scorer.encode(chunk)
        with scorer.autocast(chunk):
            draw = scorer.vae.model.draw(context, chunk_noise, scorer.state, training=False)
        distribution = scorer.vae.decoder(draw.output, scorer.state)
        squared_error = (target - distribution.mean).square().sum(dim=(1, 2, 3))
        variance = distribution.variance.mean(dim=(1, 2, 3))
        distortion = -distribution.log_prob(target)
        rows.append(torch.stack([distortion, draw.rate, squared_error, variance]))
    return Scores(*torch.cat(rows, dim=1).double().cpu())


def mean_and_error(values: Tensor) -> tuple[float, float]:
    """The mean of independent values (N,) and its standard error."""
    error = values.std() / math.sqrt(len(values)) if len(values) > 1 else torch.tensor(math.inf)
    return values.mean().item(), error.item()


def fitted_sigma(training: Scores, dimensions: int) -> float:
    """The σ that maximises a fixed-σ Gaussian's likelihood of the training data: its RMSE."""
    return math.sqrt(training.squared_error.mean().item() / dimensions)


def gaussian_distortion(squared_error: Tensor, dimensions: int, sigma: float) -> Tensor:
    """-ln N(x; μ, σ² I) in nats from ||x - μ||², for images of `dimensions` values."""
    constant = dimensions * (math.log(sigma) + 0.5 * math.log(2 * math.pi))
    return squared_error / (2 * sigma**2) + constant


@dataclass(frozen=True)
class Bound:
    """The importance-weighted bound on ln p(x), by image, (N,), float64, nats.

    `monte_carlo_variance` is that of each image's value over repeated draws (delta method).
    """

    log_p: Tensor
    monte_carlo_variance: Tensor


@torch.inference_mode()
def importance_weighted(scorer: Scorer, images: Tensor, draws: int, seed: int) -> Bound:
    """ln (1/K) Σ_k p(x|z_k) p(z_k) / q(z_k|x), z_k ~ q(z|x), for 8-bit images.

    A lower bound of ln p(x) in expectation, tighter with every draw (Burda et al. 2016, Eq. 8).
    Encodes once; the weights are summed in float64.
    """
    log_ps, variances = [], []
    for index, block in enumerate(images.split(BLOCK)):
        context, target = scorer.encode(block), scaled(block)
        shape = (draws, len(block), scorer.vae.model.noise_size)
        noise = normal(shape, seed, "importance weights", index, device=images.device)
        together = max(1, CHUNK // len(block))
        weights = torch.cat(
            [_log_weights(scorer, context, target, part) for part in noise.split(together)]
        )
        log_p = weights.logsumexp(0) - math.log(draws)
        relative = (weights - log_p).exp()
        log_ps.append(log_p)
        variances.append(relative.var(0) / draws if draws > 1 else torch.full_like(log_p, math.inf))
    return Bound(torch.cat(log_ps).cpu(), torch.cat(variances).cpu())


def _log_weights(scorer: Scorer, context: Context, target: Tensor, noise: Tensor) -> Tensor:
    """ln p(x|z) + ln p(z) - ln q(z|x), (K, B), for noise (K, B, noise_size)."""
    draws, count = noise.shape[:2]
    repeated = tuple(
        part.expand(draws, *part.shape).reshape(draws * count, *part.shape[1:]) for part in context
    )
    with scorer.autocast(target):
        draw = scorer.vae.model.draw(repeated, noise.flatten(0, 1), scorer.state, training=False)
    distribution = scorer.vae.decoder(draw.output.unflatten(0, (draws, count)), scorer.state)
    log_ratio = draw.log_ratio.unflatten(0, (draws, count))
    log_weights: Tensor = distribution.log_prob(target) + log_ratio
    return log_weights.double()
