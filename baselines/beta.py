"""Anybody's VAE loss in our β, σ and nats.

Here a β-VAE's loss is ‖x-μ‖² + β·KL, without ½, summed over dimensions, with x in [0, 1]. Up to a
constant it is a multiple of the negative ELBO of a Gaussian decoder with σ² = β/2. A loss with
other reductions, factors or scales of the data has the same minimum for a β that `translate` finds.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Likelihood = Literal["Gaussian", "Laplace", "Bernoulli"]

ERRORS: dict[str, tuple[str, Likelihood, float, int]] = {
    "mse": ("(x-μ)²", "Gaussian", 1.0, 2),
    "half-mse": ("½(x-μ)²", "Gaussian", 0.5, 2),
    "l1": ("|x-μ|", "Laplace", 1.0, 1),
    "bce": ("-x ln μ - (1-x) ln(1-μ)", "Bernoulli", 1.0, 0),
}
"""Formula for one value, likelihood that it belongs to, factor, power of the data's unit."""

REDUCTIONS = {
    "mean": "mean over {} and batch",
    "sum": "sum over {}, mean over batch",
    "sum-batch": "sum over {} and batch",
}
"""Of the error over pixels (all channels) and of the KL over latent dimensions."""

LOSSES = {
    f"{error}-{reduction}": f"{over.format('pixels')} of {formula}"
    for error, (formula, *_) in ERRORS.items()
    for reduction, over in REDUCTIONS.items()
}
"""Reconstruction losses by name, each with its formula."""

MEANINGS: dict[Likelihood, str] = {
    "Gaussian": "Up to a constant the loss is a multiple of ‖x-μ‖² + β·KL with x in [0, 1], "
    "and so of the negative ELBO of a Gaussian decoder with a fixed σ = √(β/2).",
    "Laplace": "Up to a constant the loss is a multiple of the negative ELBO of a Laplace decoder "
    "with a fixed b. That is no Gaussian: it has no β, and σ = √2·b is its standard deviation.",
    "Bernoulli": "Binary cross-entropy on grey images is no likelihood and has no σ; with x in "
    "{0, 1} and a weight of 1 beside its sum it is a Bernoulli decoder's.",
}

HALF_LEVEL = 0.5 / 255
"""Half the distance between two 8-bit values on [0, 1]."""

DENSE = 2048
"""Dimensions up to which several eigenvalues are found from the whole covariance."""

WEIGHTED = ("kl", "reconstruction")


@dataclass(frozen=True)
class Translation:
    """What a loss means on [0, 1]; None where its likelihood has no such number.

    `kl_weight` is the KL's beside the summed error: β for a Gaussian, b for a Laplace. No images
    in [0, 1] call for a σ (b for a Laplace) outside `calibrated`, from the error of rounding to 8
    bits to that of a constant ½. A perfect reconstruction has -log p of `nats_constant`, in nats
    per image, as a density, and `bits_per_dim` as a probability of 8-bit values off the ends.

    >>> found = translate("half-mse-sum", 1, "1x28x28")  # the usual "MSE + KL"
    >>> found.likelihood, found.beta, found.sigma
    ('Gaussian', 2.0, 1.0)
    """

    loss: str
    likelihood: Likelihood
    dimensions: int
    kl_weight: float
    collapse_beta: float | None
    beta: float | None = None
    sigma: float | None = None
    laplace_b: float | None = None
    calibrated: tuple[float, float] | None = None
    nats_constant: float | None = None
    bits_per_dim: float | None = None


def translate(
    loss: str,
    weight: float,
    shape: str,
    *,
    kl: str = "sum",
    weight_on: str = "kl",
    data_range: float = 1.0,
    batch: int | None = None,
    latent: int | None = None,
    collapse: float | None = None,
) -> Translation:
    """Find what a loss, error + weight · KL, is in our convention.

    Arguments:
        loss: a name in `LOSSES`.
        weight: on the KL or, with `weight_on="reconstruction"`, on the error.
        shape: of an image, `CxHxW`.
        kl: the KL's reduction, a name in `REDUCTIONS`.
        data_range: the width that [0, 1] has in the loss's units: 2 for [-1, 1], 255 for 8-bit
            values, 1/s for images divided by one standard deviation s.
        batch: images per batch; needed where only one of the terms is summed over the batch.
        latent: latent dimensions; needed for the KL's mean over them.
        collapse: what `collapse_beta` found for the data.

    Raises:
        ValueError: an unknown name, a number that is not positive, one that is missing.

    >>> pytorch_vae = translate("mse-mean", 0.00025, "3x64x64")
    >>> round(pytorch_vae.beta, 3), round(pytorch_vae.sigma, 3)
    (3.072, 1.239)
    """
    names = {"loss": (loss, LOSSES), "kl": (kl, REDUCTIONS), "weight-on": (weight_on, WEIGHTED)}
    for option, (name, possible) in names.items():
        if name not in possible:
            raise ValueError(f"--{option} {name}: unknown; possible: {', '.join(possible)}")
    given = {"weight": weight, "range": data_range, "batch": batch, "latent": latent}
    for option, value in given.items():
        if value is not None and not 1e-30 <= value <= 1e30:  # no power of these overflows
            raise ValueError(f"--{option} {value}: give a positive number, 1e-30 to 1e30")
    if not re.fullmatch(r"[1-9]\d{0,5}(x[1-9]\d{0,5}){2}", shape, re.ASCII):
        raise ValueError(f"--shape {shape}: give channels, height and width as 3x64x64")
    dimensions = math.prod(map(int, shape.split("x")))
    error, reduction = next((e, r) for e in ERRORS for r in REDUCTIONS if loss == f"{e}-{r}")
    _, likelihood, factor, power = ERRORS[error]
    if not power and data_range != 1:
        raise ValueError(f"--range {data_range:g}: {loss} needs x in [0, 1]; leave --range out")
    if (reduction == "sum-batch") != (kl == "sum-batch") and batch is None:
        raise ValueError(f"--batch is missing: {loss} and --kl {kl} treat the batch differently")
    if kl == "mean" and latent is None:
        raise ValueError("--latent is missing: --kl mean averages over the latent dimensions")

    # Each term as a multiple of its sum over an image's dimensions, averaged over the batch.
    multiples = {"sum": 1.0, "sum-batch": float(batch or 1)}
    error_factor = factor * data_range**power * multiples.get(reduction, 1 / dimensions)
    kl_factor = multiples.get(kl, 1 / (latent or 1))
    kl_weight = kl_factor / error_factor * (weight if weight_on == "kl" else 1 / weight)
    found = Translation(loss, likelihood, dimensions, kl_weight, collapse)
    if likelihood == "Bernoulli":
        return found
    if likelihood == "Gaussian":
        sigma = math.sqrt(kl_weight / 2)
        width, bin_share = sigma * math.sqrt(2 * math.pi), math.erf(HALF_LEVEL / sigma / 2**0.5)
        found = replace(found, beta=kl_weight, calibrated=(HALF_LEVEL / math.sqrt(3), 0.5))
    else:
        sigma = math.sqrt(2) * kl_weight
        width, bin_share = 2 * kl_weight, -math.expm1(-HALF_LEVEL / kl_weight)
        found = replace(found, laplace_b=kl_weight, calibrated=(HALF_LEVEL / 2, 0.5))
    nats, bits = dimensions * math.log(width), abs(math.log2(bin_share))
    return replace(found, sigma=sigma, nats_constant=nats, bits_per_dim=bits)


def rows(found: Translation) -> list[tuple[str, str]]:
    """Name and value of each number that the loss's likelihood has, to be printed.

    >>> rows(translate("l1-sum", 0.1, "1x28x28"))[2]
    ("b, the Laplace's scale", '0.1')
    """
    numbers = {
        "KL's weight beside the summed error": None if found.sigma else found.kl_weight,
        "β, the KL's weight beside ‖x-μ‖²": found.beta,
        "β/2 = σ², its weight beside ½‖x-μ‖²": found.beta and found.beta / 2,
        "b, the Laplace's scale": found.laplace_b,
        "σ": found.sigma,
        "-log p of a perfect reconstruction, nats": found.nats_constant,
        "the same, bits/dim of 8-bit data": found.bits_per_dim,
        "β at which a linear VAE collapses, 2λ₁": found.collapse_beta,
    }
    shown = [(name, f"{value:.6g}") for name, value in numbers.items() if value is not None]
    return [("error", LOSSES[found.loss]), ("likelihood", found.likelihood), *shown]


def lines(found: Translation) -> list[str]:
    """What the numbers mean and whether they can be calibrated, one thought a line.

    >>> lines(translate("half-mse-sum", 1, "1x28x28"))[1]
    'No images in [0, 1] call for a σ above 0.5, the error of a constant ½: the KL weighs too much.'
    """
    sentences = [MEANINGS[found.likelihood]]
    if found.calibrated is not None and found.sigma is not None:
        sentences += _calibration(found, found.sigma, *found.calibrated)
    if found.collapse_beta is not None:
        said = f"On these images a linear VAE collapses from β = {found.collapse_beta:.4g} on"
        if found.beta is None:
            said += "; that is of a Gaussian decoder and says nothing about this one."
        elif found.beta >= found.collapse_beta:
            times = found.beta / found.collapse_beta
            said += f": this β is {times:.4g} times that, so expect a KL near 0."
        else:
            said += f": this β is {found.collapse_beta / found.beta:.4g} times smaller."
        sentences.append(said)
    return sentences


def as_dict(found: Translation) -> dict[str, Any]:
    """The translation and its sentences as plain values, for JSON.

    >>> as_dict(translate("mse-sum", 0.5, "1x28x28"))["sigma"]
    0.5
    """
    return asdict(found) | {"sentences": lines(found)}


def collapse_beta(images: "npt.ArrayLike") -> float:
    """Find the β from which on a linear VAE's posterior equals its prior: 2λ₁ of these images.

    λ₁ is the largest eigenvalue of the images' covariance on [0, 1]. A latent dimension of a linear
    VAE carries information only where an eigenvalue exceeds σ² = β/2. Sources: arXiv 2510.01621;
    Lucas et al. 2019.

    Arguments:
        images: (N, C, H, W), uint8 or floats in [0, 1].

    Raises:
        ValueError: fewer than two images that differ, values outside [0, 1].

    >>> import numpy as np
    >>> halves = np.zeros((2, 1, 2, 2))
    >>> halves[0] = 1  # two opposite images: the one eigenvalue is their squared half distance, 1
    >>> round(collapse_beta(halves), 6)
    2.0
    """
    return 2 * float(eigenvalues(images, 1)[0])


def eigenvalues(images: "npt.ArrayLike", count: int) -> "npt.NDArray[np.float64]":
    """The `count` largest eigenvalues of the images' covariance on [0, 1], falling, (count,).

    In float64: of all dimensions where several are asked of at most `DENSE`, else by Lanczos
    iteration from a fixed start. There are no more than dimensions. Rounding gives none below 0.

    Arguments:
        images: (N, C, H, W), uint8 or floats in [0, 1].

    Raises:
        ValueError: fewer than two images that differ, values outside [0, 1].

    >>> import numpy as np
    >>> corners = np.array([[0, 0], [0, 0.5], [1, 0], [1, 0.5]])  # variances of ¼ and 1/16
    >>> eigenvalues(corners, 2)
    array([0.25  , 0.0625])
    """
    import numpy as np
    from scipy.linalg import eigvalsh
    from scipy.sparse.linalg import LinearOperator, eigsh

    table = np.asarray(images)
    if table.ndim < 2 or not len(table) or table[0].size < 2 or (table == table[0]).all():
        raise ValueError(f"images, {table.shape}: give at least two that differ, (N, C, H, W)")
    table = table.reshape(len(table), -1)
    scale = 255 if table.dtype == np.uint8 else 1
    if not (table.min() >= 0 and table.max() <= scale):
        raise ValueError("images outside [0, 1]: scale them, or give uint8")
    (size, dimensions), mean = table.shape, table.mean(axis=0, dtype=np.float64)
    blocks = np.array_split(table, 1 + table.size // 2**22)  # so few values are float64 at a time
    count = min(count, dimensions)

    if count == dimensions or (count > 1 and dimensions <= DENSE):
        covariance = np.zeros((dimensions, dimensions))
        for block in blocks:
            centred = block - mean
            covariance += centred.T @ centred
        places = (dimensions - count, dimensions - 1)
        found = eigvalsh(covariance / (size * scale**2), subset_by_index=places)
        return np.asarray(found[::-1]).clip(min=0)

    def covariance_times(vector: "npt.NDArray[np.float64]") -> "npt.NDArray[np.float64]":
        product = np.zeros(dimensions)
        for block in blocks:
            centred = block - mean
            product += centred.T @ (centred @ vector)
        return product / (size * scale**2)

    operator = LinearOperator((dimensions, dimensions), matvec=covariance_times, dtype=np.float64)
    start = np.random.default_rng(0).standard_normal(dimensions)
    found = eigsh(operator, k=count, which="LA", v0=start, return_eigenvectors=False)
    return np.sort(found)[::-1].clip(min=0)


def linear_rate(spectrum: "npt.ArrayLike", variance: float) -> float:
    """The rate of the best linear VAE of variance σ², nats: ½ Σ ln(λ/σ²) over the λ above σ².

    A linear VAE whose bound is tight is probabilistic PCA (Tipping & Bishop 1999). At its optimum a
    latent of eigenvalue λ has KL(q(z|x) || p(z)) = ½ ln(λ/σ²) on average, and none where λ < σ²
    (Lucas et al. 2019, arXiv 1911.02469; arXiv 2510.01621).

    Arguments:
        spectrum: eigenvalues of the data's covariance, (k,), the largest of which a model with k
            latents can use.

    Raises:
        ValueError: σ² is not positive.

    >>> round(linear_rate([4.0, 1.0, 0.5], variance=1.0), 4)  # ln 2: the others are at most σ²
    0.6931
    """
    import numpy as np

    if not variance > 0:
        raise ValueError(f"variance {variance}: give a positive number")
    above = np.asarray(spectrum, dtype=np.float64) / variance
    return 0.5 * float(np.log(above[above > 1]).sum())


def _calibration(found: Translation, sigma: float, least: float, most: float) -> Iterator[str]:
    name, value, error, power = "σ", sigma, "root mean squared error", "²"
    if found.laplace_b is not None:
        name, value, error, power = "b", found.laplace_b, "mean absolute error", ""
    if value > most:
        yield (
            f"No images in [0, 1] call for a {name} above {most:g}, the error of a constant ½: "
            "the KL weighs too much."
        )
    elif value < least:
        yield (
            f"No 8-bit images call for a {name} below {least:.2g}, the error of their rounding: "
            "the KL weighs too little."
        )
    yield (
        f"The decoder is calibrated if the {error} in training, on [0, 1], is {name}; "
        f"if that is e, multiply the KL's weight by (e/{value:.4g}){power}."
    )
