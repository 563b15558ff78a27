"""The negative ELBO of one posterior draw and its parts, as a density and in bits of 8-bit data."""

import math
from functools import partial

import torch
from torch import Tensor

from baselines.decoders.gaussian import deviation_from_the_mean_image
from baselines.models.base import SequenceModel
from baselines.probabilities import log_mass
from baselines.vae import per_item
from bench.evaluation.context import (
    Curves,
    Evaluated,
    EvaluationContext,
    Metrics,
    Protocol,
    Scores,
    means,
)
from bench.evaluation.scorer import TRAINING, Measure, PosteriorSample, score
from bench.run import Split

FITTED_SPLIT: Split = "validation"
"""The images that a σ is fitted to: the model has not seen them, so their errors are those of new
images. A run that is scored on them has no fitted σ."""

NO_LIKELIHOOD = "its training loss is no likelihood of the data"


def measures(context: EvaluationContext) -> dict[str, Measure]:
    """The parts of the negative ELBO and of the refitted Gaussian's, of each image."""
    kept: dict[str, Measure] = {
        "rate": rate,
        "squared_error": squared_error,
        "variance": mean_variance,
    }
    model = context.scorer.vae.model
    if len(model.parts) > 1:
        kept["rate_by_part"] = rate_by_part
    if model.is_sequence:
        kept["squared_error_by_frame"] = squared_error_by_frame
        if context.scorer.vae.decoder.is_likelihood:
            kept["distortion_by_frame"] = distortion_by_frame
    lowest = getattr(context.scorer.vae.decoder, "min_log_sigma", None)
    if lowest is not None:
        kept["sigma_at_floor"] = partial(sigma_at_floor, lowest)
    if context.scorer.vae.decoder.is_likelihood:
        kept["distortion"] = distortion
    if has_mass(context):
        kept["eight_bit_distortion"] = eight_bit_distortion
    return kept


def summarise(context: EvaluationContext, scores: Scores) -> Evaluated:
    """`neg_log_p` and its parts, bits per dimension, the σ of scoring, and a refitted one."""
    run, scorer, images = context.run, context.scorer, context.images
    decoder, dimensions = scorer.vae.decoder, context.dimensions
    variance = scores["variance"].mean().item()
    averaged = {"rate": scores["rate"], "mse": scores["squared_error"] / dimensions}
    if "sigma_at_floor" in scores:
        averaged["sigma_at_floor"] = scores["sigma_at_floor"]
    if "distortion" in scores:
        averaged["distortion"] = scores["distortion"]
        averaged["neg_log_p"] = scores["distortion"] + scores["rate"]
    if "eight_bit_distortion" in scores:
        bound = scores["eight_bit_distortion"] + scores["rate"]
        averaged["bits_per_dim"] = bound / (dimensions * math.log(2))
    curves: Curves = {}
    if isinstance(scorer.vae.model, SequenceModel):
        more, curves["by_frame"] = _by_frame(scorer.vae.model, scores, dimensions)
        averaged |= more
    elif "rate_by_part" in scores:
        by_part = scores["rate_by_part"].mean(0).tolist()
        curves["rate_by_part"] = {"parts": list(scorer.vae.model.parts), "rate": by_part}
    metrics = means(averaged)
    metrics["sigma"] = math.sqrt(variance)
    metrics["unit_sigma_constant"] = unit_sigma_constant(scorer.vae.model.target(images))
    protocol: Protocol = {
        "split": run.evaluation.split,
        "images": len(images),
        "dimensions": dimensions,
        **sequences(context),
        "of": "probability" if decoder.is_discrete else "density",
        "units": f"nats per {item(context)}: "
        + (
            "-ln of a probability of the 8-bit image"
            if decoder.is_discrete
            else "-ln of a density on data in [0, 1]"
        ),
        "draws": 1,
        "sigma": "frozen from the training split",
        "beta_convention": "sigma^2 = beta / 2, all terms summed over dimensions",
        "precision": run.evaluation.precision,
        "standard_error": "over images",
        "seed": run.seed,
    }
    if run.training.dequantise:
        protocol["data"] = "dequantised: x + (u - 1/2)/255"
    if run.binarised:
        protocol["data"] = f"black and white: {run.binarised}"
    if not decoder.is_likelihood:
        protocol["absent"] = NO_LIKELIHOOD
    if "bits_per_dim" in metrics:
        protocol["bits"] = "probability of the 8-bit value's bin, end bins open"
    if run.evaluation.split != FITTED_SPLIT:
        fitted, how = _refitted(context, scores)
        metrics |= fitted
        protocol |= how
        if decoder.is_likelihood:
            metrics |= _of_training_images(context)
            protocol["train_images"] = min(len(images), len(context.scored("train")))
    elif (halves := cross_fitted(scores["squared_error"], dimensions)) is not None:
        metrics |= means({"neg_log_p_cross_fitted_sigma": halves + scores["rate"]})
        protocol["cross_fitted_sigma"] = "of each half of the images, even and odd, for the other"
    return Evaluated(metrics, {"likelihood": protocol}, curves)


def item(context: EvaluationContext) -> str:
    """What -log p is of: an image, or a sequence."""
    return "sequence" if context.scorer.vae.model.is_sequence else "image"


def sequences(context: EvaluationContext) -> Protocol:
    """What the protocol says of the frames that are scored; nothing for images."""
    model = context.scorer.vae.model
    if not isinstance(model, SequenceModel):
        return {}
    return {
        "frames": model.frames - 1,
        "given": model.past,
        "frames_are": "the first of each video but its very first, each given those before it",
    }


def _by_frame(
    model: SequenceModel, scores: Scores, dimensions: int
) -> tuple[dict[str, Tensor], Curves]:
    """Measures of sequences (N,), and curves over their frames."""
    frames = model.frames - 1
    rate, error = scores["rate_by_part"], scores["squared_error_by_frame"]
    by_frame = {"rate": rate, "mse": error / (dimensions / frames)}
    measured: dict[str, Tensor] = {}
    if "distortion_by_frame" in scores:
        by_frame["distortion"] = scores["distortion_by_frame"]
        by_frame["neg_log_p"] = by_frame["distortion"] + rate
        measured["neg_log_p_per_frame"] = by_frame["neg_log_p"].mean(1)
        measured["neg_log_p_predicted"] = by_frame["neg_log_p"][:, model.past - 1 :].sum(1)
    curves = {name: values.mean(0).tolist() for name, values in by_frame.items()}
    return measured, {"frame": list(range(1, model.frames)), **curves}


def _refitted(context: EvaluationContext, scores: Scores) -> tuple[Metrics, Protocol]:
    """A Gaussian with the decoder's mean and the one σ that fits `FITTED_SPLIT`."""
    images = context.scored(FITTED_SPLIT)
    stream, measure = "posterior draw for the fitted sigma", {"squared_error": squared_error}
    dither = context.dither(FITTED_SPLIT)
    held_out = score(context.scorer, images, context.run.seed, stream, measure, dither=dither)
    dimensions = context.dimensions
    sigma = fitted_sigma(held_out["squared_error"], dimensions)
    metrics: Metrics = {}
    if sigma > 0:  # without any error the density is infinite
        distortion = gaussian_distortion(scores["squared_error"], dimensions, sigma)
        metrics = means({"neg_log_p_fitted_sigma": distortion + scores["rate"]})
    protocol = {
        "fitted_sigma_units": f"nats per {item(context)}: -ln of a density on data in [0, 1]",
        "fitted_sigma_split": FITTED_SPLIT,
        "fitted_sigma_images": len(images),
    }
    return {**metrics, "sigma_fitted": sigma}, protocol


def _of_training_images(context: EvaluationContext) -> Metrics:
    """-log p of as many training images as are scored, under the same frozen σ."""
    images = context.scored("train")[: len(context.images)]
    measures = {"distortion": distortion, "rate": rate}
    dither = context.dither("train", len(context.images))
    seen = score(context.scorer, images, context.run.seed, TRAINING, measures, dither=dither)
    return means({"neg_log_p_train": seen["distortion"] + seen["rate"]})


@torch.inference_mode()
def has_mass(context: EvaluationContext) -> bool:
    """Whether p(x|z) gives single 8-bit values a probability; a user's own may not."""
    if not context.scorer.vae.decoder.is_likelihood:
        return False
    try:
        eight_bit_distortion(context.example)
    except (TypeError, NotImplementedError):
        return False
    return True


def distortion(drawn: PosteriorSample) -> Tensor:
    """-ln p(x|z), nats, (B,)."""
    return -per_item(drawn.log_p)


def eight_bit_distortion(drawn: PosteriorSample) -> Tensor:
    """-ln P(x|z) of the 8-bit image, nats, (B,): p integrated over each value's bin."""
    return -per_item(log_mass(drawn.distribution, drawn.images))


def rate(drawn: PosteriorSample) -> Tensor:
    """KL(q(z|x) || p(z)), nats, (B,)."""
    return drawn.rate


def rate_by_part(drawn: PosteriorSample) -> Tensor:
    """The same by part of the latent, nats, (B, parts)."""
    return drawn.rate_by_part


def distortion_by_frame(drawn: PosteriorSample) -> Tensor:
    """-ln p(x|z) of each frame, nats, (B, frames)."""
    return -drawn.log_p


def squared_error_by_frame(drawn: PosteriorSample) -> Tensor:
    """||x - μ(z)||² of each frame, (B, frames)."""
    return (drawn.images - drawn.mean).square().sum((-3, -2, -1))


def squared_error(drawn: PosteriorSample) -> Tensor:
    """||x - μ(z)||², (B,)."""
    return per_item((drawn.images - drawn.mean).square())


def mean_variance(drawn: PosteriorSample) -> Tensor:
    """The variance of p(x|z), averaged over the image, (B,)."""
    return drawn.variance.mean(dim=tuple(range(1, drawn.variance.ndim)))


def sigma_at_floor(min_log_sigma: float, drawn: PosteriorSample) -> Tensor:
    """The share of an image's values whose σ its clip holds, (B,): at most 2 exp(min_log_sigma).

    There a soft clip passes less than half of the gradient. A density on 8-bit data has no upper
    bound: a network that is certain of a value drives σ to its clip, which then decides the score.
    """
    at_floor = drawn.variance <= (2 * math.exp(min_log_sigma)) ** 2
    return at_floor.expand_as(drawn.images).double().mean(dim=tuple(range(1, drawn.images.ndim)))


def fitted_sigma(squared_error: Tensor, dimensions: int) -> float:
    """The σ that maximises a fixed-σ Gaussian's likelihood of images: their RMSE.

    Arguments:
        squared_error: ||x - μ||² of each image of `dimensions` values, (N,).
    """
    return math.sqrt(squared_error.mean().item() / dimensions)


def cross_fitted(squared_error: Tensor, dimensions: int) -> Tensor | None:
    """-ln N(x; μ, σ² I) in nats, (N,), where no image's own σ saw it.

    Images at even places have the σ that fits those at odd ones, and the other way round. None
    where a half is empty or without any error.

    Arguments:
        squared_error: ||x - μ||² of each image of `dimensions` values, (N,).

    >>> cross_fitted(torch.tensor([1.0, 4.0]), dimensions=1)  # ½ ln 2πσ² + e²/2σ² with the other's
    tensor([1.7371, 2.9189])
    """
    if len(squared_error) < 2:
        return None
    found = torch.empty_like(squared_error)
    for half in (0, 1):
        sigma = fitted_sigma(squared_error[1 - half :: 2], dimensions)
        if sigma == 0:
            return None
        found[half::2] = gaussian_distortion(squared_error[half::2], dimensions, sigma)
    return found


def unit_sigma_constant(images: Tensor) -> float:
    """-ln N(x; x̄, I), nats, of 8-bit images (N, C, H, W) with their mean image x̄, on average.

    A Gaussian decoder with σ = 1 whose latents carry nothing pays no more. Of videos (N, T, C, H,
    W) x̄ is the mean over all frames, and the value that of a sequence.

    >>> black = torch.zeros(5, 1, 2, 2, dtype=torch.uint8)
    >>> round(unit_sigma_constant(black), 3)  # 4 · ½ ln 2π
    3.676
    """
    deviation = deviation_from_the_mean_image(images.flatten(0, -4))
    return images[0].numel() / 2 * (math.log(2 * math.pi) + deviation**2)


def gaussian_distortion(squared_error: Tensor, dimensions: int, sigma: float) -> Tensor:
    """-ln N(x; μ, σ² I) in nats from ||x - μ||², for images of `dimensions` values."""
    constant = dimensions * (math.log(sigma) + 0.5 * math.log(2 * math.pi))
    return squared_error / (2 * sigma**2) + constant
