"""The importance-weighted bound on the likelihood, its Monte Carlo error and effective draws."""

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from baselines.models.base import Context
from bench.evaluation.context import Evaluated, EvaluationContext, Metrics, Scores, means
from bench.evaluation.out_of_memory import Chunks
from bench.evaluation.scorer import Measure, Scorer
from bench.rng import normal
from bench.training.step import scaled

BLOCK = 128
"""Images that share one noise stream; another number would give other draws."""


def measures(context: EvaluationContext) -> dict[str, Measure]:
    """Nothing: many draws of each image are a pass of their own."""
    return {}


def summarise(context: EvaluationContext, scores: Scores) -> Evaluated:
    """`iwae_K` with its effective sample size and the part of its error that is Monte Carlo's."""
    draws, metrics = context.run.evaluation.iwae, Metrics()
    if draws and context.scorer.vae.decoder.is_likelihood:
        bound = importance_weighted(context.scorer, context.images, draws, context.run.seed)
        name = f"iwae_{draws}"
        metrics = means({name: bound.log_p})
        if draws > 1:
            metrics |= means({f"{name}_ess": bound.effective_draws})
            noise = bound.monte_carlo_variance.sum().sqrt().item() / len(context.images)
            metrics[f"{name}_monte_carlo_se"] = noise
    protocol = {"iwae_draws": draws, "iwae_noise_block": BLOCK}
    return Evaluated(metrics, {"likelihood": protocol}, {})


@dataclass(frozen=True)
class Bound:
    """The importance-weighted bound on ln p(x), by image, (N,), float64, nats.

    `monte_carlo_variance` is the variance of each value over repeated draws (delta method).
    `effective_draws`, between 1 and K, is (Σ w)² / Σ w² of the weights (Kong 1992); where it is far
    below K, one or two draws dominate and the bound is loose.
    """

    log_p: Tensor
    monte_carlo_variance: Tensor
    effective_draws: Tensor


@torch.inference_mode()
def importance_weighted(scorer: Scorer, images: Tensor, draws: int, seed: int) -> Bound:
    """ln (1/K) Σ_k p(x|z_k) p(z_k) / q(z_k|x), z_k ~ q(z|x), for 8-bit images.

    A lower bound of ln p(x) in expectation, tighter with every draw (Burda et al. 2016, Eq. 8).
    Encodes once; the weights are summed in float64.
    """
    encoding, blocks = Chunks(BLOCK), []
    for index, block in enumerate(images.split(BLOCK)):
        context = encoding.attempt(len(block), partial(_encoded, scorer, block))
        shape = (draws, len(block), scorer.vae.model.noise_size)
        noise = normal(shape, seed, "importance weights", index, device=images.device)
        weigh = partial(_weighed, scorer, context, scaled(block), noise)
        blocks.append(_bound(scorer.chunks.attempt(draws * len(block), weigh)))
    return Bound(*(torch.cat(of_blocks).cpu() for of_blocks in zip(*blocks, strict=True)))


def _encoded(scorer: Scorer, images: Tensor, size: int) -> Context:
    parts = [scorer.encode(part) for part in images.split(size)]
    return tuple(map(torch.cat, zip(*parts, strict=True))) if len(parts) > 1 else parts[0]


def _bound(weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The three fields of `Bound`, from log weights (K, B)."""
    draws = len(weights)
    log_p = weights.logsumexp(0) - math.log(draws)
    relative = (weights - log_p).exp()
    variance = relative.var(0) / draws if draws > 1 else torch.full_like(log_p, math.inf)
    return log_p, variance, draws / relative.square().mean(0)


def _weighed(scorer: Scorer, context: Context, target: Tensor, noise: Tensor, size: int) -> Tensor:
    """The log weights (K, B) of images and `noise` (K, B, noise_size), `size` of them at a time."""
    parts = zip(
        zip(*(of.split(size) for of in context), strict=True),
        target.split(size),
        noise.split(size, dim=1),
        strict=True,
    )
    return torch.cat([_log_weights(scorer, *part, size) for part in parts], dim=1)


def _log_weights(
    scorer: Scorer, context: Context, target: Tensor, noise: Tensor, size: int
) -> Tensor:
    """ln p(x|z) + ln p(z) - ln q(z|x), (K, B), float64, for noise (K, B, noise_size)."""
    rows = []
    for part in noise.split(max(1, size // len(target))):
        draws, count = part.shape[:2]
        repeated = tuple(
            of.expand(draws, *of.shape).reshape(draws * count, *of.shape[1:]) for of in context
        )
        with scorer.autocast(target):
            draw = scorer.vae.model.draw(repeated, part.flatten(0, 1), scorer.state, training=False)
        distribution = scorer.vae.decoder(draw.output.unflatten(0, (draws, count)), scorer.state)
        log_ratio = draw.log_ratio.unflatten(0, (draws, count))
        log_p = distribution.log_prob(target.expand(draws, *target.shape))
        rows.append((log_p + log_ratio).double())
    return torch.cat(rows)
