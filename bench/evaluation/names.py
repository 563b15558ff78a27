"""Every metric's name, meaning and better direction; no torch in here."""

from typing import Literal, NamedTuple


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
