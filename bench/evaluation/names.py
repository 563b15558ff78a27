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
        "training: the paper's column",
    ),
    Metric("distortion", "lower", "its first part: -ln p(x|z) for one posterior draw, nats"),
    Metric("rate", None, "its second part: KL(q(z|x) || p(z)), nats"),
    Metric(
        "iwae_K",
        "higher",
        "importance-weighted lower bound on ln p(x) with K draws, nats per image",
    ),
    Metric(
        "neg_log_p_fitted_sigma",
        "lower",
        "negative ELBO with the one σ that fits the training data: what the mean network is "
        "worth once calibrated",
    ),
    Metric(
        "fid",
        "lower",
        "Fréchet distance of decoder means to real images, Inception 2015-12-05, 2048-d",
    ),
    Metric("fd_<extractor>", "lower", "the same distance on another extractor's features"),
    Metric("mse", "lower", "squared error of the mean for one posterior draw, per dimension"),
    Metric("sigma", None, "root mean variance of p(x|z) in scoring"),
    Metric("sigma_fitted", None, "the σ that fits the training data"),
    Metric("beta_effective", None, "2σ², the β of a β-VAE with the same σ"),
)
"""`<name>_se` beside a metric is its standard error over images; `iwae_K_monte_carlo_se` is the
part of it that more draws would remove."""
