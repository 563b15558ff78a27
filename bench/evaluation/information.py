"""Information in a Gaussian latent: mutual information, marginal KL, and active units."""

import math

import torch
from torch import Tensor

from baselines.models.base import GaussianLatentModel
from bench.evaluation.context import Evaluated, EvaluationContext, Scores, means
from bench.evaluation.scorer import POSTERIOR, Measure, PosteriorSample
from bench.rng import NormalRows

ACTIVE = 0.01
"""The variance over images above which a posterior mean counts as active (Burda et al. 2016)."""

NO_LATENT = "the model has no single Gaussian latent"


def measures(context: EvaluationContext) -> dict[str, Measure]:
    """The encoding of each image, where the model has one Gaussian latent."""
    return {"encoding": encoding} if has_gaussian_latent(context) else {}


def summarise(context: EvaluationContext, scores: Scores) -> Evaluated:
    """The rate's two parts, which add up to it, and the latents in use."""
    if not has_gaussian_latent(context):
        return Evaluated({}, {"information": {"absent": NO_LATENT}}, {})
    seed, device = context.run.seed, context.images.device
    mean, log_variance = scores["encoding"].to(device).chunk(2, dim=1)
    count = len(mean)
    # The draws that were scored: the same stream, from its start.
    noise = NormalRows(len(mean), mean.shape[1], seed, POSTERIOR, device=device)[:]
    carried = information(mean, log_variance, noise).cpu()
    metrics = means({"mutual_information": carried, "marginal_kl": scores["rate"] - carried})
    metrics["active_units"] = active_units(mean)
    protocol = {
        "images": count,
        "draws": 1,
        "bound": math.log(count),
        "estimator": "ln q(z|x) - ln m(z), m the mixture of all N encodings, the draw's own among "
        "them: at most ln N, and in expectation a lower bound of I(x; z) for new images",
        "marginal_kl": "rate - mutual_information",
        "active_variance": ACTIVE,
        "standard_error": "over images, the encodings being given",
        "seed": seed,
    }
    return Evaluated(metrics, {"information": protocol}, {})


def has_gaussian_latent(context: EvaluationContext) -> bool:
    """Whether a context of the model is the mean and the log variance of one Gaussian latent."""
    return isinstance(context.scorer.vae.model, GaussianLatentModel)


def encoding(drawn: PosteriorSample) -> Tensor:
    """The mean and the log variance of q(z|x), concatenated, (B, 2 · latent)."""
    mean, log_variance = drawn.context
    return torch.cat([mean, log_variance], dim=1)


def information(mean: Tensor, log_variance: Tensor, noise: Tensor, *, rows: int = 512) -> Tensor:
    """ln q(z|x) - ln m(z) for one draw z = μ + σ·noise of each image, nats, (N,), float64.

    m(z) = 1/N Σ_n q(z|x_n) is the aggregate posterior of the N images (Rosca et al. 2018), the
    draw's own encoding among them. The mean over images is therefore at most ln N: an unbiased
    estimate of I(n; z) for an image n chosen uniformly among these N, and in expectation a lower
    bound of I(x; z) for new images (Poole et al. 2019), far below it where that nears ln N.

    Arguments:
        mean, log_variance, noise: (N, latent) each.
        rows: draws whose densities under all encodings are held at once.
    """
    mean, log_variance, noise = mean.double(), log_variance.double(), noise.double()
    draws = mean + (0.5 * log_variance).exp() * noise
    # ln q(z|x) up to a constant that cancels: a quadratic form in z, hence two matrix products.
    precision = (-log_variance).exp()
    constant = (mean.square() * precision + log_variance).sum(1)
    squared, linear = (-0.5 * precision).T, (mean * precision).T
    own = torch.empty(len(draws), dtype=torch.float64, device=draws.device)
    for start, part in zip(range(0, len(draws), rows), draws.split(rows), strict=True):
        # In place, since every copy has a number for each pair of a draw and an encoding.
        log_q = (part.square() @ squared).add_(part @ linear).sub_(0.5 * constant)
        own[start : start + rows] = log_q.diagonal(start) - log_q.logsumexp(1)
    return own + torch.tensor(float(len(draws)), dtype=own.dtype).log()


def active_units(mean: Tensor) -> int:
    """How many latents have a posterior mean (N, latent) that varies over images."""
    return int((mean.var(0) > ACTIVE).sum())
