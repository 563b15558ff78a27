"""The importance-weighted bound on the likelihood, its Monte Carlo error and effective draws."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from baselines.models.base import Context
from baselines.vae import per_item
from bench.evaluation.context import (
    Evaluated,
    EvaluationContext,
    Metrics,
    Protocol,
    Scores,
    means,
)
from bench.evaluation.out_of_memory import Chunks
from bench.evaluation.scorer import Measure, Scorer
from bench.metrics import is_loose
from bench.rng import UniformRows, normal
from bench.training.step import scaled

BLOCK = 128
"""Images that share one noise stream; another number would give other draws."""


def measures(context: EvaluationContext) -> dict[str, Measure]:
    """Nothing: many draws of each image are a pass of their own."""
    return {}


def summarise(context: EvaluationContext, scores: Scores) -> Evaluated:
    """`iwae_K`; for two draws and more its effective sample size, gain and Monte Carlo error."""
    draws, metrics = context.run.evaluation.iwae, Metrics()
    protocol: Protocol = {"iwae_draws": draws, "iwae_noise_block": BLOCK}
    if draws and context.scorer.vae.decoder.is_likelihood:
        bound = importance_weighted(
            context.scorer, context.images, draws, context.run.seed, context.dither()
        )
        name = f"iwae_{draws}"
        metrics = means({name: bound.log_p})
        if draws > 1:
            metrics |= means({f"{name}_ess": bound.effective_draws, f"{name}_gain": bound.gain})
            noise = bound.monte_carlo_variance.sum().sqrt().item() / len(context.images)
            metrics[f"{name}_monte_carlo_se"] = noise
            protocol["iwae_monte_carlo_se"] = "jackknife over draws, the images given"
        if is_loose(name, metrics):
            protocol["iwae_bound"] = "loose by an unknown amount: few effective draws"
    return Evaluated(metrics, {"likelihood": protocol}, {})


@dataclass(frozen=True)
class Bound:
    """The importance-weighted bound on ln p(x), by image, (N,), float64, nats.

    Attributes:
        monte_carlo_variance: the variance of each value over repeated draws, see `jackknife`; NaN
            for one draw.
        effective_draws: (Σ w)² / Σ w² of the weights, between 1 and K (Kong 1992); where it is far
            below K, one or two draws dominate and the bound is loose.
        gain: how much the last doubling of the draws raised it, see `last_doubling`; NaN for one
            draw.
    """

    log_p: Tensor
    monte_carlo_variance: Tensor
    effective_draws: Tensor
    gain: Tensor


@torch.inference_mode()
def importance_weighted(
    scorer: Scorer, images: Tensor, draws: int, seed: int, dither: UniformRows | None = None
) -> Bound:
    """ln (1/K) Σ_k p(x|z_k) p(z_k) / q(z_k|x), z_k ~ q(z|x), for 8-bit images.

    A lower bound of ln p(x) in expectation, tighter with every draw (Burda et al. 2016, Eq. 8).
    Encodes once; the weights are summed in float64. More draws begin with the fewer. `dither` is
    that of `score`.
    """
    model, encoding, blocks = scorer.vae.model, Chunks(BLOCK), []
    inputs = (images,) if dither is None else (images, dither)
    for index, block in enumerate(zip(*(of.split(BLOCK) for of in inputs), strict=True)):
        count = len(block[0])
        context = encoding.attempt(count, partial(_encoded, scorer, block))
        streams = (f"importance weights, draw {draw}" for draw in range(draws))
        rows = partial(normal, (BLOCK, model.noise_size), seed, index=index, device=images.device)
        noises = [partial(rows, name) for name in streams]
        weigh = partial(_weighed, scorer, context, model.target(scaled(*block)), noises)
        blocks.append(_bound(scorer.chunks.attempt(draws * count, weigh)))
    return Bound(*(torch.cat(of_blocks).cpu() for of_blocks in zip(*blocks, strict=True)))


def _encoded(scorer: Scorer, inputs: Sequence[Tensor], size: int) -> Context:
    split = zip(*(of.split(size) for of in inputs), strict=True)
    parts = [scorer.encode(*part) for part in split]
    return tuple(map(torch.cat, zip(*parts, strict=True))) if len(parts) > 1 else parts[0]


def _bound(weights: Tensor) -> tuple[Tensor, ...]:
    """The fields of `Bound`, from log weights (K, B)."""
    draws, log_p = len(weights), log_mean(weights)
    effective = draws / (weights - log_p).exp().square().mean(0)
    if draws == 1:
        unknown = torch.full_like(log_p, math.nan)
        return log_p, unknown, effective, unknown
    return log_p, jackknife(weights), effective, last_doubling(weights)


def log_mean(weights: Tensor) -> Tensor:
    """ln (1/K) Σ_k w_k, (B,), from log weights (K, B)."""
    return weights.logsumexp(0) - math.log(len(weights))


def jackknife(weights: Tensor) -> Tensor:
    """The variance of `log_mean` over repeated draws, (B,), from log weights (K, B), K > 1.

    (K-1)/K Σ_k (a_k - ā)², a_k the log mean without draw k (Efron & Stein 1981). Noisy for one
    image, less so in the mean over many. For log weights from N(0, s²), s of 0.1 to 100 and K of 8
    to 64, the standard error that it gives is 1.00 to 1.13 of the true one. The delta method is
    right for s of 0.1 and gives 0.02 for s of 100, as it cannot exceed 1 nat an image. Two disjoint
    halves give the error of K/2 draws, 1.09 to 1.42 of that of K.

    >>> jackknife(torch.tensor([[1.0], [3.0]]))  # of two draws, a quarter of the squared difference
    tensor([1.])
    """
    # ln Σ w + ln(1 - w_k / Σ w), but not for the largest weight: it may be all of the sum.
    largest = weights.argmax(0, keepdim=True)
    total = weights.logsumexp(0)
    shares = (weights - total).exp().scatter(0, largest, 0.0)
    without_largest = weights.scatter(0, largest, -math.inf).logsumexp(0, keepdim=True)
    without = (total + torch.log1p(-shares)).scatter(0, largest, without_largest)
    return (len(weights) - 1) * without.var(0, correction=0)


def last_doubling(weights: Tensor) -> Tensor:
    """The log mean of 2⌊K/2⌋ draws less the average of its two halves', (B,), from (K, B), K > 1.

    In expectation it is positive, and the bias that is left where that falls as 1/K.
    """
    half = len(weights) // 2
    first, second = log_mean(weights[:half]), log_mean(weights[half : 2 * half])
    return log_mean(weights[: 2 * half]) - (first + second) / 2


def _weighed(
    scorer: Scorer,
    context: Context,
    target: Tensor,
    noises: Sequence[Callable[[], Tensor]],
    size: int,
) -> Tensor:
    """The log weights (K, B), `size` pairs of an image and a draw at a time.

    Each of the K `noises` makes (BLOCK, noise_size) numbers, the first B of which are used.
    """
    count, rows = len(target), []
    together = max(1, size // count)
    for first in range(0, len(noises), together):
        noise = torch.stack([make()[:count] for make in noises[first : first + together]])
        parts = zip(
            zip(*(of.split(size) for of in context), strict=True),
            target.split(size),
            noise.split(size, dim=1),
            strict=True,
        )
        rows.append(torch.cat([_log_weights(scorer, *part) for part in parts], dim=1))
    return torch.cat(rows)


def _log_weights(scorer: Scorer, context: Context, target: Tensor, noise: Tensor) -> Tensor:
    """ln p(x|z) + ln p(z) - ln q(z|x), (K, B), float64, for noise (K, B, noise_size)."""
    draws, count = noise.shape[:2]
    repeated = tuple(
        of.expand(draws, *of.shape).reshape(draws * count, *of.shape[1:]) for of in context
    )
    with scorer.autocast(target):
        draw = scorer.vae.model.draw(repeated, noise.flatten(0, 1), scorer.state, training=False)
    distribution = scorer.vae.decoder(draw.output.unflatten(0, (draws, count)), scorer.state)
    log_ratio = draw.log_ratio.unflatten(0, (draws, count))
    log_p = distribution.log_prob(target.expand(draws, *target.shape))
    weights: Tensor = (
        per_item(log_p.flatten(0, 1)).unflatten(0, (draws, count)) + log_ratio
    ).double()
    return weights
