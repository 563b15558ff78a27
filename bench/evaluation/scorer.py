"""A trained VAE frozen for scoring, and the one pass over images that all measures share."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain

import torch
from torch import Generator, Tensor
from torch.distributions import Distribution

from baselines.decoders.base import bounded
from baselines.models.base import Context, Moments, SequenceModel
from baselines.state import State
from baselines.vae import Vae
from bench.evaluation.out_of_memory import Chunks, cat, joined
from bench.rng import NormalRows, UniformRows
from bench.training.step import scaled

CHUNK_VALUES = 1 << 24
"""The most numbers of a pass at once: 64 MiB in float32; measures hold a few copies in float64."""

IN_CACHE = 128
"""How many images, or frames, a CPU decodes at once: the maps of more leave its caches."""

POSTERIOR = "posterior draw"
"""The stream of the one draw of each scored image that its measures share."""

TRAINING = "posterior draw of training images"
"""The stream of the same of training images, by their place."""

SAMPLES = "samples"
"""The stream of the draws from the prior whose images are compared with real ones."""


@dataclass(frozen=True)
class Scorer:
    """A trained VAE, frozen for scoring: its σ comes from training, never from what it scores.

    `most` images, or frames, are drawn together, and decoded at once on a GPU. How many are decoded
    at once changes no number beyond rounding.
    """

    vae: Vae
    state: State
    precision: torch.dtype
    most: int = 512

    def autocast(self, images: Tensor) -> torch.autocast:
        return torch.autocast(
            images.device.type, self.precision, enabled=self.precision != torch.float32
        )

    @cached_property
    def chunk(self) -> int:
        """The most images decoded at once; fewer where each has many logits, latents or features.

        Counted are the network's output, its noise and its context. Of videos, how many sequences
        or predictions, whichever are longer.
        """
        model, shape = self.vae.model, self._shape
        one = torch.zeros(1, *model.data_shape, dtype=torch.uint8, device=self._device)
        with torch.inference_mode():
            context = sum(part.numel() for part in self.encode(one))
        output = self.vae.decoder.outputs * math.prod(shape)
        most = CHUNK_VALUES // (output + model.noise_size + context)
        return max(1, min(self._items(self.most), most))

    def _items(self, images: int) -> int:
        """How many images, sequences or predictions so many images or frames are, at least one."""
        return max(1, images // math.prod(self._shape[:-3]))

    @property
    def _shape(self) -> tuple[int, ...]:
        """The longest that is decoded: an image's, or that of a sequence or its predictions."""
        model = self.vae.model
        if isinstance(model, SequenceModel):
            return (max(model.frames, model.past + model.predicted), *model.image_shape)
        return tuple(model.data_shape)

    @property
    def _device(self) -> torch.device:
        return next(chain(self.vae.parameters(), self.state.values()), torch.empty(0)).device

    @cached_property
    def chunks(self) -> Chunks:
        """How many images are decoded at once: a chunk, fewer on a CPU or in little memory."""
        on_cpu = self._device.type == "cpu"
        return Chunks(min(self.chunk, self._items(IN_CACHE)) if on_cpu else self.chunk)

    @cached_property
    def _drawn_together(self) -> Chunks:
        return Chunks(self.chunk)

    def encode(self, images: Tensor, dither: Tensor | None = None) -> Context:
        """The context of 8-bit images (B, C, H, W), which `dither` dequantises; see `scaled`."""
        data = scaled(images, dither)
        with self.autocast(images):
            return self.vae.model.encode(data, self.state, training=False)[0]

    def posterior(
        self, images: Tensor, noise: Tensor, dither: Tensor | None = None
    ) -> "PosteriorSample":
        """One posterior draw for each of 8-bit images (B, C, H, W), `noise` (B, noise_size)."""
        context = self.encode(images, dither)
        with self.autocast(images):
            draw = self.vae.model.draw(context, noise, self.state, training=False)
        distribution = self.vae.decoder(draw.output, self.state)
        target = self.vae.model.target(scaled(images, dither))
        return PosteriorSample(target, distribution, draw.rate, context, draw.posteriors)

    def prior(self, noise: Tensor) -> Distribution:
        """p(x|z) for draws from the prior, `noise` (B, noise_size)."""
        return self._law(self._output(noise))

    def predicted(self, given: Tensor, noise: Tensor) -> Distribution:
        """p(x|z) of the frames that follow the 8-bit frames `given`, (B, past, C, H, W).

        Arguments:
            noise: standard normal, (B, rollout_size).

        Returns:
            A distribution of batch shape (B, predicted); its mean is not clipped.
        """
        return self._law(self._rolled_out(given, noise))

    def _rolled_out(self, given: Tensor, noise: Tensor) -> Tensor:
        model = self.vae.model
        assert isinstance(model, SequenceModel)

        def mean(output: Tensor) -> Tensor:
            # The decoder works in float32 whatever the network's precision.
            with torch.autocast(output.device.type, enabled=False):
                image: Tensor = self._law(output).mean
                return image

        with self.autocast(given):
            return model.predict(noise, self.state, scaled(given), mean)

    def _law(self, output: Tensor) -> Distribution:
        distribution: Distribution = self.vae.decoder(output, self.state)
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

        The draws depend on which images are drawn together. So the network may run on fewer images
        when memory runs out, while p(x|z) is still drawn from a whole chunk at a time. If sampling
        itself is split, rejection samplers and CUDA give other draws.
        """
        return self._drawn(self._output, noise)

    @torch.inference_mode()
    def predict(self, given: Tensor, noise: Tensor) -> Tensor:
        """Decoder means (B, predicted, C, H, W) of `predicted`, a chunk at a time."""
        return self._in_chunks(lambda *part: self.predicted(*part).mean, given, noise)

    @torch.inference_mode()
    def sample_predicted(self, given: Tensor, noise: Tensor) -> Tensor:
        """Draws from p(x|z) of `predicted`, (B, predicted, C, H, W), as `sample` draws them."""
        return self._drawn(self._rolled_out, given, noise)

    def _drawn(self, output_of: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        def draw(output: Tensor) -> Tensor:
            drawn: Tensor = self._law(output).sample()
            return drawn

        chunks, generators = [], _generators(inputs[0].device)
        for part in zip(*(value.split(self.chunk) for value in inputs), strict=True):
            output = self._in_chunks(output_of, *part)
            drawing = partial(joined, draw, (output,))
            chunks.append(self._drawn_together.attempt(len(output), drawing, *generators))
        return cat(chunks)

    @torch.inference_mode()
    def reconstruct(self, images: Tensor, noise: Tensor, *dither: Tensor) -> Tensor:
        """Decoder means (B, C, H, W) of one posterior draw for 8-bit images; as `posterior`."""
        return self._in_chunks(lambda *part: self.posterior(*part).mean, images, noise, *dither)

    def _in_chunks(self, of: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """`of` applied to inputs (B, ...) a chunk at a time, and joined."""
        chunks = zip(*(value.split(self.chunk) for value in inputs), strict=True)
        return cat(
            [self.chunks.attempt(len(chunk[0]), partial(joined, of, chunk)) for chunk in chunks]
        )


def _generators(device: torch.device) -> list[Generator]:
    """torch's default generators, of the CPU and of `device`."""
    found = [torch.default_generator]
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        found.append(torch.cuda.default_generators[index])
    return found


@dataclass(frozen=True)
class PosteriorSample:
    """One draw z ~ q(z|x) for each image of a chunk, and p(x|z) at that draw.

    Attributes:
        images: what the decoder scores, (B, C, H, W) in [0, 1] or, dequantised, half a level
            beyond; `to_level` gives the 8-bit image. Of videos frames, (B, T, C, H, W).
        distribution: p(x|z), one for each image, or for each frame.
        rate_by_part: KL(q(z|x) || p(z)) by part of the latent, nats, (B, parts).
        posteriors: mean and log variance by part, (B, channels, ...); see `Draw`.
    """

    images: Tensor
    distribution: Distribution
    rate_by_part: Tensor
    context: Context
    posteriors: tuple[Moments, ...] | None = None

    @cached_property
    def rate(self) -> Tensor:
        """KL(q(z|x) || p(z)), nats, (B,)."""
        return self.rate_by_part.sum(-1)

    @cached_property
    def log_p(self) -> Tensor:
        """ln p(x|z), nats, (B,), or of each frame, (B, frames)."""
        log_p: Tensor = self.distribution.log_prob(self.images)
        return log_p

    @cached_property
    def mean(self) -> Tensor:
        """The mean of p(x|z), (B, C, H, W)."""
        mean: Tensor = self.distribution.mean
        return mean

    @cached_property
    def variance(self) -> Tensor:
        """The variance of p(x|z), (B, C, H, W), bounded so that its mean is finite."""
        return bounded(self.distribution.variance)


Measure = Callable[[PosteriorSample], Tensor]
"""What is kept of B images: one number each, (B,), or one row each, (B, k)."""


@dataclass(frozen=True)
class Summed:
    """A measure too large to keep of each image: the pass keeps its sum over all images.

    `of` returns the sum over the B images that it is given, (k,), float64.
    """

    of: Measure

    def __call__(self, drawn: PosteriorSample) -> Tensor:
        return self.of(drawn)


@torch.inference_mode()
def score(
    scorer: Scorer,
    images: Tensor,
    seed: int,
    name: str,
    measures: Mapping[str, Measure],
    *generators: Generator,
    dither: UniformRows | None = None,
) -> dict[str, Tensor]:
    """Measure 8-bit images (N, C, H, W) in one pass with one draw each.

    Arguments:
        name: the stream of `seed` that the draws come from.
        measures: each sees the chunks in the order of the images.
        generators: those that measures draw from.
        dither: what dequantises the images, (N, C·H·W), where anything does.

    Returns:
        By measure, its values of all images, (N,) or (N, k), or their sum (k,) where it is
        `Summed`; float64, on the CPU.
    """
    noise = NormalRows(len(images), scorer.vae.model.noise_size, seed, name, device=images.device)
    inputs = (images, noise) if dither is None else (images, noise, dither)
    kept: dict[str, Tensor] = {}
    for start in range(0, len(images), scorer.chunk):
        chunk = slice(start, start + scorer.chunk)
        measured = partial(_measured, scorer, measures, [of[chunk] for of in inputs])
        found = scorer.chunks.attempt(len(images[chunk]), measured, *generators)
        for measure, rows in found.items():
            if isinstance(measures[measure], Summed):
                # Only what a whole attempt returned is added: one that ran out of memory adds none.
                kept[measure] = kept[measure].add_(rows) if measure in kept else rows
                continue
            # All rows are allocated at once: small results between large temporaries would keep
            # the allocator from reusing the space of these.
            if measure not in kept:
                kept[measure] = rows.new_empty(len(images), *rows.shape[1:])
            kept[measure][chunk] = rows
    return {measure: rows.double().cpu() for measure, rows in kept.items()}


def _measured(
    scorer: Scorer, measures: Mapping[str, Measure], inputs: Sequence[Tensor], size: int
) -> dict[str, Tensor]:
    rows: dict[str, list[Tensor]] = {measure: [] for measure in measures}
    for part in zip(*(of.split(size) for of in inputs), strict=True):
        drawn = scorer.posterior(*part)
        for measure, of in measures.items():
            found = of(drawn)
            if isinstance(of, Summed) and rows[measure]:
                rows[measure][0] += found
            else:
                rows[measure].append(found)
    return {measure: cat(parts) for measure, parts in rows.items()}


def eight_bit(images: Tensor) -> Tensor:
    """Images in [0, 1] as 8-bit values, rounded as for a PNG; values outside are clipped."""
    return images.clamp(0, 1).mul(255).round().to(torch.uint8)
