"""The importance-weighted bound on the likelihood, its Monte Carlo error and its sample size."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from baselines.models import Context
from bench.evaluation.scorer import Scorer
from bench.streams import normal
from bench.training import scaled

BLOCK = 128
"""Images that share one noise stream; part of what fixes the draws."""


@dataclass(frozen=True)
class Bound:
    """The importance-weighted bound on ln p(x), by image, (N,), float64, nats.

    `monte_carlo_variance` is that of each image's value over repeated draws (delta method);
    `effective_draws`, between 1 and K, is (Σ w)² / Σ w² of the weights (Kong 1992): few of K mean
    that the bound hangs on a draw or two and is loose.
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
    blocks = []
    for index, block in enumerate(images.split(BLOCK)):
        context, target = scorer.encode(block), scaled(block)
        shape = (draws, len(block), scorer.vae.model.noise_size)
        noise = normal(shape, seed, "importance weights", index, device=images.device)
        parts = zip(
            zip(*(part.split(scorer.chunk) for part in context), strict=True),
            target.split(scorer.chunk),
            noise.split(scorer.chunk, dim=1),
            strict=True,
        )
        blocks.append(torch.cat([_log_weights(scorer, *part) for part in parts], dim=1))
    weights = torch.cat(blocks, dim=1)
    log_p = weights.logsumexp(0) - math.log(draws)
    relative = (weights - log_p).exp()
    variance = relative.var(0) / draws if draws > 1 else torch.full_like(log_p, math.inf)
    return Bound(log_p.cpu(), variance.cpu(), draws / relative.square().mean(0).cpu())


def _log_weights(scorer: Scorer, context: Context, target: Tensor, noise: Tensor) -> Tensor:
    """ln p(x|z) + ln p(z) - ln q(z|x), (K, B), float64, for noise (K, B, noise_size)."""
    rows = []
    for part in noise.split(max(1, scorer.chunk // len(target))):
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
