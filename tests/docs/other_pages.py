"""What the other pages say of the committed records: README, questions, regression, protocol."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bench.regression.power import power
from bench.regression.results import read_results
from bench.report.terminal import console
from tests.docs.claims import Claim, Printed, Says, Tabled, told
from tests.docs.records import (
    FD,
    REFERENCE,
    Grid,
    Row,
    interval,
    number,
    paired,
    rounded,
    spread,
    word,
)
from tests.docs.results_models import hierarchical, video
from tests.docs.results_paper import bend_of, decoders, fashion, figure4, off, printed, table3
from tests.docs.results_tuning import balances, quick, regression

WIDTH = 160
"""Columns of the README's terminal."""


def of_readme() -> Iterator[Claim]:
    # The caption is a paragraph of its own, behind the footnotes.
    shown = console(quick.table, WIDTH).split("\n", 1)[1]
    yield Printed("Run it", "text", shown.rsplit("\n\n", 1)[0] + "\n")
    yield Says("Run it", f"All numbers on this page were trained in {quick.precision};")
    place = "What it found"
    names = ("gaussian", "beta", "shared", "per_pixel")
    gaussian, tuned, shared, per_pixel = map(table3.row, names)
    behind, farther = tuned.minus(shared, "neg_log_p"), tuned.minus(shared, FD)
    yield Says(
        place,
        f"({table3.seeds}): σ = 1 and the shared σ within "
        f"{number(max(off(gaussian), off(shared)), 1)} % of the printed -log p. A β tuned by "
        f"{word(int(tuned['tuning_runs']))} trials ends {paired(behind)} "
        f"nats behind the shared σ and {paired(farther)} in Fréchet distance. A σ for every pixel "
        "trains unsteadily: its seeds end at "
        f"{spread(per_pixel.seeds('neg_log_p'))} nats, the paper's at "
        f"{number(printed(per_pixel)[0])}",
        behind.min() > 0 and farther.min() > 0,
    )
    tuned_there, shared_there = map(fashion.row, ("beta", "shared"))
    behind, farther = (tuned_there.minus(shared_there, name) for name in ("neg_log_p", FD))
    yield Says(
        place,
        "On full Fashion-MNIST, which the paper's table does not have, the tuned β is "
        f"{paired(behind)} nats and {paired(farther)} behind",
        behind.min() > 0 and farther.min() > 0,
    )
    full = (shared, table3.row("optimal"), tuned, per_pixel)
    learned, analytic, tuned, pixel = map(decoders.row, ("shared", "optimal", "beta", "per_pixel"))
    yield Says(
        place,
        f"{learned.text(FD)} (learned) and {analytic.text(FD)} (analytic) against {tuned.text(FD)} "
        f"for a tuned β and {pixel.text(FD)} for a σ of every pixel (MNIST-5k, {decoders.seeds};",
        max(learned[FD], analytic[FD]) < min(tuned[FD], pixel[FD]),
    )
    cells = [row.text(FD) for row in full]
    yield Says(
        place,
        f"On full MNIST the four are {', '.join(cells[:-1])} and {cells[-1]}.",
        max(row[FD] for row in full[:2]) < min(row[FD] for row in full[2:]),
    )
    base = balances.row("shared (sigma_lr=20)")
    by_rule = {
        row.line["balance"]: row
        for row in balances.rows()
        if row.line["family"] in ("beta", "gaussian")
    }
    gaps = [
        interval(by_rule[name].minus(base, "neg_log_p_fitted_sigma"), 0)
        for name in ("elbo", "geco", "control")
    ]
    yield Says(
        place,
        f"a tuned β, GECO and ControlVAE, six trials each, are {gaps[0]}, {gaps[1]} and {gaps[2]} "
        "nats worse than `shared` without a trial;",
    )
    diffusion = Grid("latent-diffusion")
    fixed, analytic = diffusion.row("laplace_fixed"), diffusion.row("laplace_optimal")
    times = analytic["sigma"] / np.sqrt(2) / float(fixed.column("run.decoder.b").iloc[0])
    yield Says(
        place,
        f"the errors of a small one ask for a scale {rounded(times, 2)} times its own. In "
        f"{diffusion.setting('training.steps')} steps learned scales do not arrive",
    )

    def nats(name: str, dataset: str) -> str:
        return hierarchical.row(name, dataset=dataset).text("neg_log_p")

    yield Says(
        place,
        f"{nats('shared', 'mnist5k')} nats against {nats('beta', 'mnist5k')} for the tuned β on "
        f"digits, {nats('shared', 'photos')} against {nats('beta', 'photos')} on photographs (a "
        f"tiny model, {hierarchical.setting('training.steps')} steps;",
    )
    learned, analytic, release, tuned = map(
        video.row, ("shared", "optimal", "beta (beta=0.1024)", "beta (tuned)")
    )
    yield Says(
        place,
        f"(a tiny SVG-LP on moving digits, {video.seeds}): {learned.text('neg_log_p')} (learned) "
        f"and {analytic.text('neg_log_p')} (analytic) a sequence, {release.text('neg_log_p')} for "
        f"the hand-set β = 10⁻⁴ of the release, {tuned.text('neg_log_p')} for one tuned by six "
        "trials.",
    )
    scored = [row["neg_log_p"] for row in decoders.rows() if not row.line["discrete"]]
    first, second = sorted(value for value in scored if not np.isnan(value))[:2]
    yield Says(place, f"Student-t leads it by {rounded(second - first, 1)} nats")
    bits = [r["bits_per_dim"] for r in decoders.rows() if r.line["discrete"]]
    rest = [r["bits_per_dim"] for r in decoders.rows() if not r.line["discrete"]]
    yield Says(
        place,
        f"{spread([b for b in bits if b > 0], 1)} bits/dim against "
        f"{number(np.nanmin(rest), 1)} and more",
    )
    images = number(figure4.everything["protocol.information.images"].max(), comma=True)
    yield Says(place, f"(the paper's Figure 4), {images} test images cannot tell.")
    bend, low, high = bend_of(figure4)
    betas = [figure4.row(name)["beta_effective"] for name in ("shared", "optimal")]
    yield Says(
        place,
        f"The rate bends at β = {number(bend, 4)} ({number(low, 4)} to {number(high, 4)}); both "
        f"σ-VAEs learn {spread(betas, 3)} ",
    )


def of_questions() -> Iterator[Claim]:
    yield Says(
        "Sum or mean? What does `kld_weight` mean?",
        f"so β = B·D and σ = {decoders.row('mse').at('sigma', 0)} in `decoders-quick`.",
    )
    optimal = table3.row("optimal")
    yield Says(
        "How do I get bits per dimension from an MSE?",
        f"`optimal` at {optimal.at('neg_log_p', 0)} nats would have "
        f"{number(optimal['neg_log_p'] / (784 * np.log(2)) + np.log2(255), 1)} bits/dim and has "
        f"{optimal.at('bits_per_dim', 2)} once each level's bin is integrated.",
    )
    batch, image = quick.row("optimal"), quick.row("optimal_per_image")
    yield Says(
        "Per image, per batch or per pixel?",
        f"FD {batch.text(FD)} and {image.text(FD)}, -log p {batch.text('neg_log_p')} and "
        f"{image.text('neg_log_p')} in `quick`. Per pixel (`{{name: optimal, over: pixel}}`) FD is "
        f"{decoders.row('optimal (over=pixel)').at(FD, 0)} against "
        f"{decoders.row('optimal').at(FD, 0)} in `decoders-quick`.",
    )
    factor = figure4.row("shared")["beta_effective"] / bend_of(figure4)[0]
    yield Says(
        "Is the learned β where the marginal KL bends?",
        f"The rate bends at a β {number(factor)} times smaller",
    )


def of_regression() -> Iterator[Claim]:
    place = "What it can see"
    linear = regression.row("gaussian", model="linear_vae (latent=10)")
    yield Says(place, f"of {linear.at('distortion', 0)} nats, is found")
    found = {
        (one.model.split(" ")[0], one.decoder.split(" ")[0]): one.change
        for one in power(read_results(REFERENCE / "regression"))
        if one.metric == "neg_log_p"
    }
    names = list(dict.fromkeys(decoder for _, decoder in found))
    yield Tabled(
        place,
        ("-log p, nats", "linear_vae", "conv_vae"),
        [
            (name, *(told(f"{found[model, name] or 0:.2g}" if (found[model, name] or 0) < 100
                          else f"{found[model, name]:.0f}")
                     for model in ("linear_vae", "conv_vae")))
            for name in names
        ],
    )  # fmt: skip
    worst = found["conv_vae", "optimal"] or 0
    stuck = regression.row("optimal", model="conv_vae (latent=10, width=4)")
    yield Says(
        place,
        f"The {number(worst)} nats come from one [stuck seed](results.md#a-stuck-seed) of "
        f"{word(int(stuck['n']))}.",
    )


def of_protocol() -> Iterator[Claim]:
    seeds = regression.row("optimal", model="conv_vae (latent=10, width=4)").seeds("neg_log_p")
    others = seeds.drop(seeds.idxmax())
    yield Says(
        "Statistics",
        f"{word(1)} of {word(len(seeds))} `optimal` runs of `regression` ended at "
        f"{number(seeds.max(), 1)} nats, the other {word(len(others))} at "
        f"{number(others.max())} to {number(others.min())}.",
    )
    place = "Calibration"
    names = ("gaussian", "per_pixel", "shared", "optimal", "optimal_per_image", "beta")
    shown = {"gaussian": "`gaussian` (σ = 1)", "beta": "`beta` (0.032)"}

    def first(row: Row, metric: str, decimals: int) -> str:
        return number(row.seeds(metric).iloc[0], decimals)

    rows = [(name, quick.row(name)) for name in names]
    yield Tabled(
        place,
        ("decoder", "`calibration_error`", "`crps`", "`bits_per_dim`"),
        [
            (shown.get(name, f"`{name}`"), first(row, "calibration_error", 3),
             first(row, "crps", 3), first(row, "bits_per_dim", 2))
            for name, row in rows
        ],
    )  # fmt: skip


ADDED = {
    "hierarchical-quick": "`sigma-bench run hierarchical-quick` (without pictures)",
    "video-quick": "`sigma-bench run video-quick` (of the pictures only the predictions)",
    "regression": "[below](#the-regression-baseline)",
}
"""How records were made whose command is not the usual one."""


def of_reference() -> Iterator[Claim]:
    grids = [Grid(path.name) for path in sorted(REFERENCE.iterdir()) if path.is_dir()]
    yield Tabled(
        "Reference records",
        ("folder", "command", "runs", "minutes of computing"),
        [
            (f"`{grid.name}/`", ADDED.get(grid.name, f"`sigma-bench run {grid.name}`"),
             grid.runs, grid.minutes)
            for grid in grids
        ],
    )  # fmt: skip
    records = number(len(regression.everything))
    yield Says("The regression baseline", f"all {records} records changed, none is missing")
