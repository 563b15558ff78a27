"""All measures of one run: numbers by name, the protocol that they were taken under, and curves."""

import math
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from baselines.models.base import GaussianLatentModel
from bench.data import Dataset
from bench.evaluation.calibration import (
    MIN_VARIANCE,
    calibration,
    pit_counts,
    z_moments,
    z_variance,
)
from bench.evaluation.features.base import Extractor
from bench.evaluation.information import ACTIVE, active_units, encoding, information
from bench.evaluation.iwae import BLOCK, importance_weighted
from bench.evaluation.likelihood import (
    distortion,
    eight_bit_distortion,
    fitted_sigma,
    gaussian_distortion,
    mean_and_error,
    mean_variance,
    rate,
    squared_error,
)
from bench.evaluation.sample_quality import distances
from bench.evaluation.scorer import POSTERIOR, Measure, Scorer, score
from bench.rng import generator, normal
from bench.run import Run
from bench.training.checkpoint import Trained

Metrics = dict[str, float]
Protocol = dict[str, Any]
Curves = dict[str, Any]

NO_LIKELIHOOD = "its training loss is no likelihood of the data"
NO_CELLS = "single values of p(x|z) have no cumulative distribution"
NO_LATENT = "the model has no single Gaussian latent"


class Evaluated(NamedTuple):
    """A run's measures: flat numbers, how each was taken, and the curves behind some of them.

    `curves` holds `coverage`, `nominal` and `observed` of central intervals, and `pit`, the
    histogram of PIT values as 20 densities; both are absent where calibration is.
    """

    metrics: Metrics
    protocol: Protocol
    curves: Curves


def split(dataset: Dataset, run: Run) -> Tensor:
    """The images that `run` is scored on."""
    images: Tensor = getattr(dataset, run.evaluation.split)
    return images


def evaluate(
    run: Run, trained: Trained, dataset: Dataset, extractor: Extractor | None
) -> Evaluated:
    """Measure a trained run on its split; what its decoder or model does not have is absent.

    Arguments:
        dataset: 8-bit images on the device of the model.
        extractor: the feature network of the run's protocol, or None where it has none.
    """
    scorer = Scorer(trained.vae.eval(), trained.state, getattr(torch, run.evaluation.precision))
    images = split(dataset, run)
    randomised = generator(run.seed, "randomised PIT")
    measures = _measures(scorer, images, randomised)
    scores = score(scorer, images, run.seed, POSTERIOR, measures, randomised)
    metrics, protocol = _likelihood(run, scorer, dataset, scores)
    carried, how = _information(run, images.device, scores)
    metrics |= carried
    protocol |= how
    covered, how, curves = _calibration(run, scorer, scores)
    metrics |= covered
    protocol |= how
    if extractor is not None and run.evaluation.features is not None:
        distance, how = distances(run, scorer, images, extractor)
        metrics |= distance
        protocol |= how
    return Evaluated(metrics, protocol, curves)


def _measures(scorer: Scorer, images: Tensor, randomised: Generator) -> dict[str, Measure]:
    """What the pass over the scored images keeps of each."""
    measures: dict[str, Measure] = {
        "rate": rate,
        "squared_error": squared_error,
        "variance": mean_variance,
    }
    if isinstance(scorer.vae.model, GaussianLatentModel):
        measures["encoding"] = encoding
    if scorer.vae.decoder.is_likelihood:
        measures["distortion"] = distortion
    if scorer.vae.decoder.is_likelihood and _has_cells(scorer, images[:1]):
        measures |= {
            "eight_bit_distortion": eight_bit_distortion,
            "pit": partial(pit_counts, generator=randomised),
            "z": z_moments,
        }
    return measures


@torch.inference_mode()
def _has_cells(scorer: Scorer, image: Tensor) -> bool:
    """Whether p(x|z) gives single 8-bit values a probability; a user's own may not."""
    noise = torch.zeros(1, scorer.vae.model.noise_size, device=image.device)
    try:
        eight_bit_distortion(scorer.posterior(image, noise))
    except (TypeError, NotImplementedError):
        return False
    return True


def _likelihood(
    run: Run, scorer: Scorer, dataset: Dataset, scores: dict[str, Tensor]
) -> tuple[Metrics, Protocol]:
    """`neg_log_p` and its parts, bits per dimension, the refitted σ, and the weighted bound."""
    images = split(dataset, run)
    dimensions = images[0].numel()
    training = score(
        scorer,
        dataset.train,
        run.seed,
        "posterior draw for training data",
        {"squared_error": squared_error},
    )
    refitted = fitted_sigma(training["squared_error"], dimensions)
    variance = scores["variance"].mean().item()
    gaussian = gaussian_distortion(scores["squared_error"], dimensions, refitted)
    averaged = {
        "rate": scores["rate"],
        "mse": scores["squared_error"] / dimensions,
        "neg_log_p_fitted_sigma": gaussian + scores["rate"],
    }
    if scorer.vae.decoder.is_likelihood:
        averaged["distortion"] = scores["distortion"]
        averaged["neg_log_p"] = scores["distortion"] + scores["rate"]
    if "eight_bit_distortion" in scores:
        bound = scores["eight_bit_distortion"] + scores["rate"]
        averaged["bits_per_dim"] = bound / (dimensions * math.log(2))
    metrics = _means(averaged)
    metrics["sigma"] = math.sqrt(variance)
    metrics["beta_effective"] = 2 * variance
    metrics["sigma_fitted"] = refitted
    protocol: Protocol = {
        "split": run.evaluation.split,
        "images": len(images),
        "dimensions": dimensions,
        "of": "probability" if scorer.vae.decoder.is_discrete else "density",
        "units": "nats per image: "
        + (
            "-ln of a probability of the 8-bit image"
            if scorer.vae.decoder.is_discrete
            else "-ln of a density on data in [0, 1]"
        ),
        "fitted_sigma_units": "nats per image: -ln of a density on data in [0, 1]",
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
    if not scorer.vae.decoder.is_likelihood:
        protocol["absent"] = NO_LIKELIHOOD
    else:
        metrics |= _importance(run, scorer, images)
    if "bits_per_dim" in metrics:
        protocol["bits"] = "probability of the 8-bit value's bin, end bins open"
    return metrics, {"likelihood": protocol}


def _importance(run: Run, scorer: Scorer, images: Tensor) -> Metrics:
    draws = run.evaluation.iwae
    if not draws:
        return {}
    bound, name = importance_weighted(scorer, images, draws, run.seed), f"iwae_{draws}"
    metrics = _means({name: bound.log_p})
    if draws > 1:
        metrics |= _means({f"{name}_ess": bound.effective_draws})
        noise = bound.monte_carlo_variance.sum().sqrt().item() / len(images)
        metrics[f"{name}_monte_carlo_se"] = noise
    return metrics


def _information(
    run: Run, device: torch.device, scores: dict[str, Tensor]
) -> tuple[Metrics, Protocol]:
    """The rate's two parts, which add up to it, and the latents in use."""
    if "encoding" not in scores:
        return {}, {"information": {"absent": NO_LATENT}}
    mean, log_variance = scores["encoding"].to(device).chunk(2, dim=1)
    count = len(mean)
    # The draws that were scored: the same stream, from its start.
    noise = normal(tuple(mean.shape), run.seed, POSTERIOR, device=device)
    carried = information(mean, log_variance, noise).cpu()
    metrics = _means({"mutual_information": carried, "marginal_kl": scores["rate"] - carried})
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
        "seed": run.seed,
    }
    return metrics, {"information": protocol}


def _calibration(
    run: Run, scorer: Scorer, scores: dict[str, Tensor]
) -> tuple[Metrics, Protocol, Curves]:
    """Coverage of the intervals of p(x|z), and the size of its errors."""
    if "pit" not in scores:
        reason = NO_CELLS if scorer.vae.decoder.is_likelihood else NO_LIKELIHOOD
        return {}, {"calibration": {"absent": reason}}, {}
    found = calibration(scores["pit"])
    metrics = {"calibration_error": found.error, "calibration_error_se": found.standard_error}
    metrics["z_variance"], metrics["z_variance_se"] = z_variance(scores["z"])
    protocol = {
        "intervals": "central, of p(x|z) with one posterior draw; randomised PIT where discrete",
        "levels": len(found.nominal),
        "min_sigma": math.sqrt(MIN_VARIANCE),
        "images": len(scores["pit"]),
        "standard_error": "over images",
        "seed": run.seed,
    }
    curves = {
        "coverage": {"nominal": found.nominal, "observed": found.observed},
        "pit": found.density,
    }
    return metrics, {"calibration": protocol}, curves


def _means(values: dict[str, Tensor]) -> Metrics:
    """The mean of each measure over images and, as `<name>_se`, its standard error."""
    metrics: Metrics = {}
    for name, by_image in values.items():
        metrics[name], metrics[f"{name}_se"] = mean_and_error(by_image)
    return metrics
