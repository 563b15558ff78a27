"""A trained VAE frozen for scoring, and the one pass over images that all its measures share."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.distributions import Distribution

from baselines.models import Context
from baselines.state import State
from baselines.vae import Vae
from bench.streams import normal
from bench.training import scaled

CHUNK = 512
"""The most images decoded at once; changes no number beyond rounding."""

CHUNK_VALUES = 1 << 24
"""The most raw output values at once: 64 MiB, of which measures hold a few copies in float64."""

POSTERIOR = "posterior draw"
"""The stream of the one draw of each scored image that its measures share."""


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

    @property
    def chunk(self) -> int:
        """How many images are decoded at once; fewer where each of their values has many logits."""
        values = self.vae.decoder.outputs * math.prod(self.vae.model.image_shape)
        return max(1, min(CHUNK, CHUNK_VALUES // values))

    def encode(self, images: Tensor) -> Context:
        """The context of 8-bit images (B, C, H, W)."""
        with self.autocast(images):
            return self.vae.model.encode(scaled(images), self.state, training=False)[0]

    def posterior(self, images: Tensor, noise: Tensor) -> "Drawn":
        """One posterior draw for each of 8-bit images (B, C, H, W), `noise` (B, noise_size)."""
        context = self.encode(images)
        with self.autocast(images):
            draw = self.vae.model.draw(context, noise, self.state, training=False)
        distribution = self.vae.decoder(draw.output, self.state)
        return Drawn(scaled(images), distribution, draw.rate, context)

    def prior(self, noise: Tensor) -> Distribution:
        """p(x|z) for draws from the prior, `noise` (B, noise_size)."""
        with self.autocast(noise):
            output = self.vae.model.generate(noise, self.state)
        distribution: Distribution = self.vae.decoder(output, self.state)
        return distribution

    @torch.inference_mode()
    def generate(self, noise: Tensor) -> Tensor:
        """Decoder means (B, C, H, W) for draws from the prior."""
        return torch.cat([self.prior(part).mean for part in noise.split(self.chunk)])

    @torch.inference_mode()
    def sample(self, noise: Tensor) -> Tensor:
        """Draws from p(x|z), (B, C, H, W), for draws from the prior, by torch's own generators."""
        return torch.cat([self.prior(part).sample() for part in noise.split(self.chunk)])

    @torch.inference_mode()
    def reconstruct(self, images: Tensor, noise: Tensor) -> Tensor:
        """Decoder means (B, C, H, W) of one posterior draw for 8-bit images."""
        parts = zip(images.split(self.chunk), noise.split(self.chunk), strict=True)
        return torch.cat([self.posterior(*part).mean for part in parts])


@dataclass(frozen=True)
class Drawn:
    """One draw z ~ q(z|x) for each of a chunk of images, and what p(x|z) is there.

    images: (B, C, H, W) in [0, 1]; rate: KL(q(z|x) || p(z)), nats, (B,).
    """

    images: Tensor
    distribution: Distribution
    rate: Tensor
    context: Context

    @cached_property
    def mean(self) -> Tensor:
        """Of p(x|z), (B, C, H, W)."""
        mean: Tensor = self.distribution.mean
        return mean

    @cached_property
    def variance(self) -> Tensor:
        """Of p(x|z), (B, C, H, W)."""
        variance: Tensor = self.distribution.variance
        return variance


Measure = Callable[[Drawn], Tensor]
"""What is kept of a chunk of B images: a number each, (B,), or a row each, (B, k)."""


@torch.inference_mode()
def score(
    scorer: Scorer, images: Tensor, seed: int, name: str, measures: Mapping[str, Measure]
) -> dict[str, Tensor]:
    """Measure 8-bit images (N, C, H, W) in one pass with one draw each.

    The draws are the stream `name` of `seed`. Each measure sees the chunks in the images' order;
    what it makes of them comes back joined, (N,) or (N, k), float64, on the CPU.
    """
    noise = normal((len(images), scorer.vae.model.noise_size), seed, name, device=images.device)
    size = scorer.chunk
    kept: dict[str, list[Tensor]] = {measure: [] for measure in measures}
    for chunk, chunk_noise in zip(images.split(size), noise.split(size), strict=True):
        drawn = scorer.posterior(chunk, chunk_noise)
        for measure, of in measures.items():
            kept[measure].append(of(drawn))
    return {measure: torch.cat(rows).double().cpu() for measure, rows in kept.items()}


def eight_bit(images: Tensor) -> Tensor:
    """Images in [0, 1] as the 8-bit values that a PNG would hold; what is outside is clipped."""
    return images.clamp(0, 1).mul(255).round().to(torch.uint8)
