"""A trained VAE frozen for scoring, and the one pass over images that all its measures share."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Generator, Tensor
from torch.distributions import Distribution

from baselines.models.base import Context
from baselines.state import State
from baselines.vae import Vae
from bench.evaluation.out_of_memory import Chunks, cat, joined
from bench.rng import normal
from bench.training.step import scaled

CHUNK_VALUES = 1 << 24
"""The most raw output values at once: 64 MiB, of which measures hold a few copies in float64."""

POSTERIOR = "posterior draw"
"""The stream of the one draw of each scored image that its measures share."""

SAMPLES = "samples"
"""The stream of the draws from the prior whose images are compared with real ones."""


@dataclass(frozen=True)
class Scorer:
    """A trained VAE, frozen for scoring: its σ comes from training, never from what it scores.

    `most` images are decoded at once, which changes no number beyond rounding.
    """

    vae: Vae
    state: State
    precision: torch.dtype
    most: int = 512

    def autocast(self, images: Tensor) -> torch.autocast:
        return torch.autocast(
            images.device.type, self.precision, enabled=self.precision != torch.float32
        )

    @property
    def chunk(self) -> int:
        """The most images decoded at once; fewer where each of their values has many logits."""
        values = self.vae.decoder.outputs * math.prod(self.vae.model.image_shape)
        return max(1, min(self.most, CHUNK_VALUES // values))

    @cached_property
    def chunks(self) -> Chunks:
        """How many images are decoded at once: a chunk, or less once memory has run out."""
        return Chunks(self.chunk)

    @cached_property
    def _drawn_together(self) -> Chunks:
        return Chunks(self.chunk)

    def encode(self, images: Tensor) -> Context:
        """The context of 8-bit images (B, C, H, W)."""
        with self.autocast(images):
            return self.vae.model.encode(scaled(images), self.state, training=False)[0]

    def posterior(self, images: Tensor, noise: Tensor) -> "PosteriorSample":
        """One posterior draw for each of 8-bit images (B, C, H, W), `noise` (B, noise_size)."""
        context = self.encode(images)
        with self.autocast(images):
            draw = self.vae.model.draw(context, noise, self.state, training=False)
        distribution = self.vae.decoder(draw.output, self.state)
        return PosteriorSample(scaled(images), distribution, draw.rate, context)

    def prior(self, noise: Tensor) -> Distribution:
        """p(x|z) for draws from the prior, `noise` (B, noise_size)."""
        distribution: Distribution = self.vae.decoder(self._output(noise), self.state)
        return distribution

    def _output(self, noise: Tensor) -> Tensor:
        with self.autocast(noise):
            return self.vae.model.generate(noise, self.state)

    @torch.inference_mode()
    def generate(self, noise: Tensor) -> Tensor:
        """Decoder means (B, C, H, W) for draws from the prior."""
        return self._in_chunks(lambda part: self.prior(part).mean, noise)

    @torch.inference_mode()
    def sample(self, noise: Tensor) -> Tensor:
        """Draws from p(x|z), (B, C, H, W), for draws from the prior, by torch's own generators.

        They follow the images that are drawn together. Hence the network may work on fewer at
        once for want of memory, while p(x|z) is drawn from a chunk at a time; where memory lacks
        for that too, the draws of a family that rejects some, and those on CUDA, are others.
        """

        def draw(output: Tensor) -> Tensor:
            drawn: Tensor = self.vae.decoder(output, self.state).sample()
            return drawn

        chunks, generators = [], _generators(noise.device)
        for part in noise.split(self.chunk):
            output = self._in_chunks(self._output, part)
            drawing = partial(joined, draw, (output,))
            chunks.append(self._drawn_together.attempt(len(part), drawing, *generators))
        return cat(chunks)

    @torch.inference_mode()
    def reconstruct(self, images: Tensor, noise: Tensor) -> Tensor:
        """Decoder means (B, C, H, W) of one posterior draw for 8-bit images."""
        return self._in_chunks(lambda *part: self.posterior(*part).mean, images, noise)

    def _in_chunks(self, of: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """`of` inputs (B, ...), worked out for a chunk at a time, and joined."""
        chunks = zip(*(value.split(self.chunk) for value in inputs), strict=True)
        return cat(
            [self.chunks.attempt(len(chunk[0]), partial(joined, of, chunk)) for chunk in chunks]
        )


def _generators(device: torch.device) -> list[Generator]:
    """Those that torch draws from by itself, on the CPU and on `device`."""
    found = [torch.default_generator]
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        found.append(torch.cuda.default_generators[index])
    return found


@dataclass(frozen=True)
class PosteriorSample:
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


Measure = Callable[[PosteriorSample], Tensor]
"""What is kept of a chunk of B images: a number each, (B,), or a row each, (B, k)."""


@torch.inference_mode()
def score(
    scorer: Scorer,
    images: Tensor,
    seed: int,
    name: str,
    measures: Mapping[str, Measure],
    *generators: Generator,
) -> dict[str, Tensor]:
    """Measure 8-bit images (N, C, H, W) in one pass with one draw each.

    The draws are the stream `name` of `seed`. Each measure sees the chunks in the images' order;
    what it makes of them comes back joined, (N,) or (N, k), float64, on the CPU. `generators` are
    those that measures draw from.
    """
    noise = normal((len(images), scorer.vae.model.noise_size), seed, name, device=images.device)
    kept: dict[str, Tensor] = {}
    for start in range(0, len(images), scorer.chunk):
        chunk = slice(start, start + scorer.chunk)
        measured = partial(_measured, scorer, images[chunk], noise[chunk], measures)
        found = scorer.chunks.attempt(len(images[chunk]), measured, *generators)
        for measure, rows in found.items():
            # Room for all at once: small results between large temporaries keep an allocator
            # from using the space of these again.
            if measure not in kept:
                kept[measure] = rows.new_empty(len(images), *rows.shape[1:])
            kept[measure][chunk] = rows
    return {measure: rows.double().cpu() for measure, rows in kept.items()}


def _measured(
    scorer: Scorer, images: Tensor, noise: Tensor, measures: Mapping[str, Measure], size: int
) -> dict[str, Tensor]:
    rows: dict[str, list[Tensor]] = {measure: [] for measure in measures}
    for part, part_noise in zip(images.split(size), noise.split(size), strict=True):
        drawn = scorer.posterior(part, part_noise)
        for measure, of in measures.items():
            rows[measure].append(of(drawn))
    return {measure: cat(parts) for measure, parts in rows.items()}


def eight_bit(images: Tensor) -> Tensor:
    """Images in [0, 1] as the 8-bit values that a PNG would hold; what is outside is clipped."""
    return images.clamp(0, 1).mul(255).round().to(torch.uint8)
