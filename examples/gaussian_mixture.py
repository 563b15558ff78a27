"""Why the decoder's variance matters, in two dimensions: Gaussian mixtures fitted by EM.

A mixture's component plays the part of a VAE's latent code, its σ that of the decoder's. Points
are drawn from five known clouds, and a mixture of five spherical Gaussians is fitted to them under
four rules for σ. A σ fixed too large merges the components, as a β-VAE with a large β collapses its
posterior. A σ fixed too small finds the centres but gives points between them hardly any density.
A learned σ, shared as a σ-VAE's or one for each component, comes close to the mixture that made
the points. No rule is told the true σ.

    python examples/gaussian_mixture.py [--seeds 5] [--points 500] [--out gaussian-mixture.png]

It needs the package installed, prints a table over the seeds and draws the fits of seed 0; about
5 seconds on one core. The model is `baselines/mixture.py`.
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import seaborn
import torch
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from scipy.special import stdtrit
from torch import Generator, Tensor

from baselines.mixture import SphericalMixture, VarianceRule, fit, initial

WEIGHTS = (0.25, 0.20, 0.15, 0.25, 0.15)
CENTRES = ((-2.5, 1.5), (0.5, 2.5), (2.5, 0.5), (1.0, -2.0), (-2.0, -1.5))
SIGMAS = (0.6, 0.4, 0.3, 0.7, 0.4)
TRUTH = SphericalMixture(
    torch.tensor(WEIGHTS, dtype=torch.float64),
    torch.tensor(CENTRES, dtype=torch.float64),
    torch.tensor(SIGMAS, dtype=torch.float64).square(),
)
HELD_OUT = 5000
STARTS = 10
"""EM finds a local maximum, so the likeliest of several fits is kept."""
MIN_SIGMA = 1e-3
"""Where a learned σ ends: the likelihood of a component on a single point has no upper bound."""

RULES: dict[str, tuple[VarianceRule, float | None]] = {
    "fixed, σ = 2.5": ("fixed", 2.5),
    "fixed, σ = 0.1": ("fixed", 0.1),
    "shared": ("shared", None),
    "per component": ("per_component", None),
}


@dataclass(frozen=True)
class Result:
    """A fitted mixture and the mean -log p of held-out points, in nats per point."""

    mixture: SphericalMixture
    neg_log_p: float
    components_used: float


def fit_rules(points: Tensor, held_out: Tensor, generator: Generator) -> dict[str, Result]:
    """Fit points (N, 2) under every rule, from the same starts, and score `held_out` (M, 2)."""
    starts = [initial(points, len(WEIGHTS), generator) for _ in range(STARTS)]
    results = {}
    for name, (rule, sigma) in RULES.items():
        fits = [
            fit(points, _with_sigma(start, sigma), rule, min_variance=MIN_SIGMA**2)
            for start in starts
        ]
        best = max(fits, key=lambda fit: float(fit.log_likelihoods[-1])).mixture
        results[name] = Result(best, _neg_log_p(best, held_out), best.components_used(points))
    return results


def _with_sigma(start: SphericalMixture, sigma: float | None) -> SphericalMixture:
    if sigma is None:
        return start
    return replace(start, variances=torch.full_like(start.variances, sigma**2))


def _neg_log_p(mixture: SphericalMixture, points: Tensor) -> float:
    return -float(mixture.log_prob(points).mean())


def mean_and_half_width(values: Sequence[float]) -> str:
    """The mean over seeds ± half the width of its 95 % interval (Student's t)."""
    mean, count = sum(values) / len(values), len(values)
    if count == 1:
        return f"{mean:.3f} ± ?"
    variance = sum((value - mean) ** 2 for value in values) / (count - 1)
    half_width = stdtrit(count - 1, 0.975) * math.sqrt(variance / count)
    return f"{mean:.3f} ± {half_width:.3f}"


def table(seeds: Sequence[dict[str, Result]], truth: Sequence[float]) -> str:
    """A line for each rule over the seeds, and one for the mixture that made the points."""
    lines = [("σ", "-log p", "fitted σ", "components used")]
    for name in RULES:
        results = [results[name] for results in seeds]
        neg_log_p = mean_and_half_width([result.neg_log_p for result in results])
        sigma = mean_and_half_width([result.mixture.sigma for result in results])
        used = mean_and_half_width([result.components_used for result in results])
        lines.append((name, neg_log_p, sigma, used))
    lines.append(("the truth", mean_and_half_width(truth), f"{TRUTH.sigma:.3f}", ""))
    return "\n".join(f"{a:<16}{b:>16}{c:>16}{d:>18}".rstrip() for a, b, c, d in lines)


def figure(points: Tensor, results: dict[str, Result]) -> Figure:
    """A panel for each rule: points, fitted centres, circles of radius σ; the true ones dashed."""
    drawing = Figure(figsize=(6.4, 6.8), layout="constrained")
    panels = drawing.subplots(2, 2, sharex=True, sharey=True).ravel()
    for axes, (name, result) in zip(panels, results.items(), strict=True):
        axes.scatter(*points.T.numpy(), s=5, color="0.65", linewidths=0, label="data")
        _circles(axes, TRUTH, "0.25", (0, (4, 3)), "σ, true mixture")
        _circles(axes, result.mixture, "tab:red", "-", "σ, fitted")
        centres = result.mixture.means.T.numpy()
        axes.plot(*centres, "+", color="tab:red", markersize=8, label="centre, fitted")
        axes.set(title=f"{name}: -log p {result.neg_log_p:.2f}", aspect="equal")
        seaborn.despine(ax=axes)
    drawing.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return drawing


Dash = str | tuple[int, tuple[int, int]]


def _circles(axes: Axes, mixture: SphericalMixture, colour: str, dash: Dash, label: str) -> None:
    sigmas = mixture.variances.sqrt().tolist()
    circles = [
        Circle(mean, sigma) for mean, sigma in zip(mixture.means.tolist(), sigmas, strict=True)
    ]
    axes.add_collection(
        PatchCollection(circles, facecolor="none", edgecolor=colour, linestyle=dash, linewidth=1.4)
    )
    axes.plot([], [], color=colour, linestyle=dash, label=label)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; --help lists the options\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """Fit, print the table and write the figure; exit code 2 for arguments that cannot be used."""
    parser = _Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="how often all is drawn anew")
    parser.add_argument("--points", type=int, default=500, help="training points of each seed")
    parser.add_argument("--out", type=Path, default=Path("gaussian-mixture.png"), help="the figure")
    options = parser.parse_args(arguments)
    if options.seeds < 1:
        parser.error(f"--seeds {options.seeds}: have at least 1")
    if options.points < len(WEIGHTS):
        parser.error(f"--points {options.points}: have at least {len(WEIGHTS)}")

    seeds, truth, drawn = [], [], []
    for seed in range(options.seeds):
        generator = Generator().manual_seed(seed)
        drawn.append(TRUTH.sample(options.points, generator))
        held_out = TRUTH.sample(HELD_OUT, generator)
        seeds.append(fit_rules(drawn[-1], held_out, generator))
        truth.append(_neg_log_p(TRUTH, held_out))
    print(table(seeds, truth))
    print(
        f"-log p: nats per point on {HELD_OUT} held-out points. Mean ± 95 % t interval over seeds."
    )
    with style.context(["default", seaborn.axes_style("ticks"), seaborn.plotting_context("paper")]):
        drawing = figure(drawn[0], seeds[0])
        try:
            drawing.savefig(options.out, dpi=130)
        except (OSError, ValueError) as error:  # no such folder, no such format
            parser.error(f"--out {options.out}: {error}")
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
