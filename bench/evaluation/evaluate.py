"""All measures of one run: a flat dict of numbers, and the protocol that they were taken under."""

import math
from typing import Any

import torch
from torch import Tensor

from bench.data import Dataset
from bench.evaluation.features import Extractor
from bench.evaluation.fid import Moments, frechet_distance, moments, real_moments
from bench.evaluation.likelihood import (
    BLOCK,
    Scorer,
    fitted_sigma,
    gaussian_distortion,
    importance_weighted,
    mean_and_error,
    score,
)
from bench.grid import Run
from bench.streams import normal
from bench.training import Trained

Metrics = dict[str, float]
Protocol = dict[str, Any]


def split(dataset: Dataset, run: Run) -> Tensor:
    """The images that `run` is scored on."""
    images: Tensor = getattr(dataset, run.evaluation.split)
    return images


def evaluate(
    run: Run, trained: Trained, dataset: Dataset, extractor: Extractor | None
) -> tuple[Metrics, Protocol]:
    """Measure a trained run on its split; a measure that its decoder does not have is absent.

    Arguments:
        dataset: 8-bit images on the device of the model.
        extractor: the feature network of the run's protocol, or None where it has none.
    """
    scorer = Scorer(trained.vae.eval(), trained.state, getattr(torch, run.evaluation.precision))
    metrics, protocol = likelihood(run, scorer, dataset)
    if extractor is not None and run.evaluation.features is not None:
        distance, how = distances(run, scorer, dataset, extractor)
        metrics |= distance
        protocol |= how
    return metrics, protocol


def likelihood(run: Run, scorer: Scorer, dataset: Dataset) -> tuple[Metrics, Protocol]:
    """`neg_log_p` and its parts, the refitted σ, and the importance-weighted bound."""
    images = split(dataset, run)
    dimensions = images[0].numel()
    scores = score(scorer, images, run.seed, "posterior draw")
    training = score(scorer, dataset.train, run.seed, "posterior draw for training data")
    refitted = fitted_sigma(training, dimensions)
    variance = scores.variance.mean().item()

    metrics: Metrics = {}
    metrics["rate"], metrics["rate_se"] = mean_and_error(scores.rate)
    metrics["mse"], metrics["mse_se"] = mean_and_error(scores.squared_error / dimensions)
    metrics["sigma"] = math.sqrt(variance)
    metrics["beta_effective"] = 2 * variance
    metrics["sigma_fitted"] = refitted
    metrics["neg_log_p_fitted_sigma"], metrics["neg_log_p_fitted_sigma_se"] = mean_and_error(
        gaussian_distortion(scores.squared_error, dimensions, refitted) + scores.rate
    )
    if scorer.vae.decoder.is_likelihood:
        metrics["distortion"], metrics["distortion_se"] = mean_and_error(scores.distortion)
        metrics["neg_log_p"], metrics["neg_log_p_se"] = mean_and_error(
            scores.distortion + scores.rate
        )
        if draws := run.evaluation.iwae:
            bound = importance_weighted(scorer, images, draws, run.seed)
            name = f"iwae_{draws}"
            metrics[name], metrics[f"{name}_se"] = mean_and_error(bound.log_p)
            if draws > 1:
                noise = bound.monte_carlo_variance.sum().sqrt().item() / len(images)
                metrics[f"{name}_monte_carlo_se"] = noise
    protocol: Protocol = {
        "likelihood": {
            "split": run.evaluation.split,
            "images": len(images),
            "dimensions": dimensions,
            "units": "nats per image on data in [0, 1]",
            "draws": 1,
            "sigma": "frozen from the training split",
            "beta_convention": "sigma^2 = beta / 2, all terms summed over dimensions",
            "fitted_sigma_images": len(dataset.train),
            "iwae_draws": run.evaluation.iwae,
            "iwae_noise_block": BLOCK,
            "precision": run.evaluation.precision,
            "standard_error": "over images",
            "seed": run.seed,
        }
    }
    return metrics, protocol


def eight_bit(images: Tensor) -> Tensor:
    """Images in [0, 1] as the 8-bit values that a PNG would hold."""
    return images.clamp(0, 1).mul(255).round().to(torch.uint8)


def distances(
    run: Run, scorer: Scorer, dataset: Dataset, extractor: Extractor
) -> tuple[Metrics, Protocol]:
    """The Fréchet distance between decoder means of prior draws and the real images."""
    chosen = run.evaluation.features
    assert chosen is not None
    images, batch = split(dataset, run), run.evaluation.batch
    shape = (run.evaluation.samples, scorer.vae.model.noise_size)
    noise = normal(shape, run.seed, "samples", device=images.device)
    generated = moments(
        (eight_bit(scorer.generate(part)) for part in noise.split(batch)), extractor
    )
    real = real_moments(
        images,
        f"{run.content}:{run.split_seed}:{run.evaluation.split}",
        extractor,
        batch=batch,
    )
    protocol: Protocol = {
        "distance": {
            "metric": chosen.metric,
            "extractor": chosen.name,
            "weights_sha256": chosen.sha256,
            "dimension": int(real.mean.numel()),
            "samples": run.evaluation.samples,
            "real_images": len(images),
            "real_split": run.evaluation.split,
            "samples_are": "decoder means of prior draws, rounded to 8 bits",
            "batch": batch,
            "precision": extractor.precision,
            "seed": run.seed,
        }
    }
    return {chosen.metric: _distance(generated, real)}, protocol


def _distance(one: Moments, other: Moments) -> float:
    return frechet_distance(one.mean, one.covariance, other.mean, other.covariance)
