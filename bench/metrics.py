"""The catalogue of metrics: one line for each."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Literal, NamedTuple


@dataclass(frozen=True)
class Threshold:
    """The smallest difference of means that matters, in `unit`s."""

    value: float
    unit: Literal["of the metric", "of the baseline", "per dimension"]

    def of(self, baseline: float, dimensions: int) -> float:
        """The threshold in the metric's own units."""
        scale = {
            "of the metric": 1.0,
            "of the baseline": abs(baseline),
            "per dimension": float(dimensions),
        }
        return self.value * scale[self.unit]


THRESHOLDS = (
    # 0.16 nats of an MNIST image, the last digit that papers print; with ten latents in use a KL
    # weight of 1.05 moves the distortion by 0.24 (½ ln 1.05 a latent).
    (r"neg_log_p|neg_log_p_fitted_sigma|distortion|iwae_\d+", Threshold(2e-4, "per dimension")),
    # The same, 2e-4 / ln 2.
    (r"bits_per_dim", Threshold(3e-4, "of the metric")),
    # Half a percentage point of coverage; one of manifold coverage.
    (r"calibration_error", Threshold(0.005, "of the metric")),
    (r"(precision|recall)(_\w+)?", Threshold(0.01, "of the metric")),
    # Distances of a few thousand samples scatter by percents.
    (r"(fid|kid|fd|kd)(_\w+)?", Threshold(0.02, "of the baseline")),
    (r".*", Threshold(0.01, "of the baseline")),
)
"""What matters by default: the first pattern that fits a metric's whole name."""


def default_threshold(metric: str) -> Threshold:
    return next(kept for pattern, kept in THRESHOLDS if re.fullmatch(pattern, metric))


class Metric(NamedTuple):
    """What a number means; `better` is None where neither direction is."""

    name: str
    better: Literal["lower", "higher"] | None
    meaning: str


METRICS = (
    Metric(
        "neg_log_p",
        "lower",
        "single-sample negative ELBO, nats per image, under the decoder's own σ frozen from "
        "training: the paper's column; of discrete decoders -ln of a probability",
    ),
    Metric("distortion", "lower", "its first part: -ln p(x|z) for one posterior draw, nats"),
    Metric("rate", None, "its second part: KL(q(z|x) || p(z)), nats"),
    Metric(
        "bits_per_dim",
        "lower",
        "the same bound on the 8-bit image, p(x|z) integrated over each value's bin: comparable "
        "across all decoders",
    ),
    Metric(
        "iwae_K",
        "higher",
        "importance-weighted lower bound on ln p(x) with K draws, nats per image",
    ),
    Metric("iwae_K_ess", "higher", "effective sample size of its weights, of K, mean over images"),
    Metric(
        "neg_log_p_fitted_sigma",
        "lower",
        "negative ELBO of a Gaussian with the one σ that fits the training data: what the mean "
        "network is worth once calibrated",
    ),
    Metric(
        "calibration_error",
        "lower",
        "mean gap between nominal and observed coverage of central intervals of p(x|z)",
    ),
    Metric("z_variance", None, "variance of (x-μ)/σ over all values; 1 where σ fits the errors"),
    Metric(
        "mutual_information",
        None,
        "I(x; z), nats, by Monte Carlo over the aggregate posterior; at most ln N for N images",
    ),
    Metric("marginal_kl", None, "KL(m(z) || p(z)), nats: the rate less the mutual information"),
    Metric("active_units", None, "latents whose posterior mean has a variance above 0.01"),
    Metric(
        "fid",
        "lower",
        "Fréchet distance of decoder means to real images, Inception 2015-12-05, 2048-d",
    ),
    Metric("fid_sampled", "lower", "the same distance of draws from p(x|z), clipped to 8 bits"),
    Metric("fid_reconstruction", "lower", "the same distance of reconstructions of the images"),
    Metric(
        "kid", "lower", "kernel distance of decoder means to real images, unbiased, same network"
    ),
    Metric("precision", "higher", "part of decoder means that lie among real images, same network"),
    Metric("recall", "higher", "part of real images that lie among decoder means, same network"),
    Metric("fd_<extractor>", "lower", "fid on another extractor's features"),
    Metric("fd_<extractor>_sampled", "lower", "fid_sampled on another extractor's features"),
    Metric(
        "fd_<extractor>_reconstruction",
        "lower",
        "fid_reconstruction on another extractor's features",
    ),
    Metric("kd_<extractor>", "lower", "kid on another extractor's features"),
    Metric("precision_<extractor>", "higher", "precision on another extractor's features"),
    Metric("recall_<extractor>", "higher", "recall on another extractor's features"),
    Metric("mse", "lower", "squared error of the mean for one posterior draw, per dimension"),
    Metric("sigma", None, "root mean variance of p(x|z) in scoring"),
    Metric("sigma_fitted", None, "the σ that fits the training data"),
    Metric("beta_effective", None, "2σ², the β of a β-VAE with the same σ"),
)
"""`<name>_se` beside a metric is its standard error, over images where the protocol does not say
otherwise; `iwae_K_monte_carlo_se` is the part of it that more draws would remove."""

NAMES = {
    "neg_log_p": "-log p",
    "bits_per_dim": "bits/dim",
    "neg_log_p_fitted_sigma": "-log p, fitted σ",
    "mse": "MSE",
    "sigma": "σ",
    "sigma_fitted": "σ, fitted",
    "beta_effective": "2σ²",
    "marginal_kl": "marginal KL",
}

PICTURES = {"sampled": "drawn pixels", "reconstruction": "reconstructions"}
"""What a distance compares, where that is not decoder means of prior draws."""


def metric_name(metric: str) -> str:
    """A metric as the table's heading and caption call it."""
    if metric in NAMES:
        return NAMES[metric]
    words = metric.split("_")
    if words[0] in ("iwae", "fid", "kid", "fd", "kd"):
        words[0] = words[0].upper()
        if len(words) > 1 and words[-1] in PICTURES:
            words[-2:] = [f"{words[-2]},", PICTURES[words[-1]]]
    return " ".join(words)


@cache
def better(metric: str) -> Literal["lower", "higher"] | None:
    """Where a metric is better, None where neither direction is or nobody knows."""
    for known in METRICS:
        pattern = re.escape(known.name).replace("<extractor>", r"\w+")
        if re.fullmatch(re.sub(r"_K(?=_|$)", r"_\\d+", pattern), metric):
            return known.better
    return None
