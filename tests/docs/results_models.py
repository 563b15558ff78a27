"""What docs/results.md says of hierarchies, videos and the autoencoder of latent diffusion."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tests.docs.claims import Claim, Says, Tabled
from tests.docs.records import (
    FD,
    Grid,
    Row,
    interval,
    number,
    rounded,
    scaled,
    spread,
    word,
)
from tests.docs.results_paper import likelihood

hierarchical, video, diffusion = (
    Grid("hierarchical-quick"), Grid("video-quick"), Grid("latent-diffusion"),
)  # fmt: skip


def parameters(row: Row) -> float:
    """The parameters of a row's model."""
    return float(row.column("cost.parameters").iloc[0])


def rates(row: Row) -> list[float]:
    """The rate of each group of latents, the mean over seeds."""
    found: list[float] = np.mean(list(row.column("curves.rate_by_part.rate")), axis=0).tolist()
    return found


def of_hierarchies() -> Iterator[Claim]:
    place = "In a hierarchy"
    grid = hierarchical
    digits, photos = (grid.rows(dataset=name) for name in ("mnist5k", "photos"))
    yield Says(
        place,
        f"({rounded(parameters(digits[0]), 2)} parameters on digits, "
        f"{rounded(parameters(photos[0]), 3)} on photographs) for "
        f"{grid.setting('training.steps')} steps of {grid.setting('training.batch')} images, "
        f"{grid.seeds}, trained in {grid.precision}",
    )
    heads = (
        "decoder,-log p,bits/dim,FD (Lite0),CRPS,{} dB,rate,by resolution; top first,σ at its floor"
    )
    names = [head.format("PSNR,").replace(";", ",") for head in heads.split(",")]
    columns = ("bits_per_dim", FD, "crps", "psnr", "rate")
    for heading, rows in (("digits", digits), ("photos", photos)):
        # The two tables differ in their first heading.
        own = [f"decoder, {heading}", *names[1:]]
        yield Tabled(
            place,
            own,
            [
                (
                    row.name, likelihood(row), *map(row.text, columns),
                    ", ".join(number(rate, 1) for rate in rates(row)),
                    "-" if np.isnan(row["sigma_at_floor"]) else row.at("sigma_at_floor", 2),
                )
                for row in rows
            ],
        )  # fmt: skip

    def of(name: str, dataset: str) -> Row:
        return grid.row(name, dataset=dataset)

    lead = {
        dataset: [
            of("beta", dataset)["neg_log_p"] - of(name, dataset)["neg_log_p"]
            for name in ("shared", "optimal")
        ]
        for dataset in ("mnist5k", "photos")
    }
    decibels = [
        of(name, dataset)["psnr"] - of("beta", dataset)["psnr"]
        for name in ("shared", "optimal")
        for dataset in ("mnist5k", "photos")
    ]
    yield Says(
        place,
        f"`shared` and `optimal` are {spread(lead['mnist5k'])} nats better than the β that six "
        f"trials chose on MNIST-5k and {spread(lead['photos'])} on `photos`; their reconstructions "
        f"have {spread(decibels)} dB more.",
        min(*lead["mnist5k"], *lead["photos"], *decibels) > 0,
    )
    coarse = [rates(of("gaussian", dataset)) for dataset in ("mnist5k", "photos")]
    fine = [
        rates(of(name, dataset))[-1]
        for name in ("shared", "optimal")
        for dataset in ("mnist5k", "photos")
    ]
    yield Says(
        place,
        f"only the coarse groups carry anything ({number(coarse[0][0], 1)} and "
        f"{number(coarse[0][1], 1)} nats on digits, {number(coarse[1][0], 1)} and "
        f"{number(coarse[1][1], 1)} on photographs) and the finest ones nothing. With a learned σ "
        f"of {of('shared', 'mnist5k').at('sigma', 2)} the finest group has "
        f"{spread([round(rate, -1) for rate in fine])} nats.",
        max(coarse[0][-1], coarse[1][-1]) < 0.05,
    )
    yield Says(place, f"and {grid.setting('training.steps')} steps are few")
    yield Says(
        place,
        "`student_t` on digits has one seed of three that hardly trains, hence "
        f"{of('student_t', 'mnist5k').text('neg_log_p')}.",
        sum(of("student_t", "mnist5k").seeds("neg_log_p") > -2500) == 1,
    )
    shared, student, mixture = (
        of(name, "photos") for name in ("shared", "student_t", "logistic_mixture")
    )
    yield Says(
        place,
        f"On photographs the learned σ ({shared.at('bits_per_dim', 2)}), `student_t` "
        f"({student.at('bits_per_dim', 2)}) and `logistic_mixture` "
        f"({mixture.at('bits_per_dim', 2)}) cannot be told apart.",
        all("bits_per_dim" in row.line["best"] for row in (shared, student, mixture)),
    )


def horizon(row: Row, curve: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """A measure of predictions by horizon, the mean over seeds."""
    values: np.ndarray[tuple[int], np.dtype[np.float64]] = np.mean(
        list(row.column(f"curves.by_horizon.{curve}")), axis=0
    )
    return values


def of_videos() -> Iterator[Claim]:
    place = "On video"
    grid = video
    gaussian, release, tuned, per_pixel, shared, optimal = map(
        grid.row,
        ("gaussian", "beta (beta=0.1024)", "beta (tuned)", "per_pixel", "shared", "optimal"),
    )
    yield Says(
        place,
        f"({number(parameters(gaussian), comma=True)} parameters) for "
        f"{grid.setting('training.steps')} steps of {grid.setting('training.batch')} sequences",
    )
    yield Says(
        place,
        f"**{grid.seeds}**, trained in {grid.precision}. It sees "
        f"{word(int(shared.column('protocol.prediction.given').iloc[0]))} frames and predicts "
        f"{word(int(shared.column('protocol.prediction.predicted').iloc[0]))};",
    )
    yield Says(place, f"{grid.minutes} minutes of computing.")
    yield Says(
        place,
        f"per sequence of {word(int(shared.column('protocol.likelihood.frames').iloc[0]))} frames; "
        f"predictions are {word(int(shared.column('protocol.prediction.rollouts').iloc[0]))} "
        f"rollouts of each of {number(shared.column('protocol.prediction.clips').iloc[0])} "
        "sequences.",
    )
    heads = (
        "decoder,-log p,of frames to predict,rate,σ,CRPS; next frame,CRPS; tenth frame,"
        "calibration error; next,tenth"
    )
    columns = (
        "neg_log_p", "neg_log_p_predicted", "rate", "sigma", "prediction_crps_first",
        "prediction_crps_last", "prediction_calibration_error_first",
        "prediction_calibration_error_last",
    )  # fmt: skip
    yield Tabled(
        place,
        [head.replace(";", ",") for head in heads.split(",")],
        [(row.name, *map(row.text, columns)) for row in grid.rows()],
    )
    learned = (shared, optimal)
    by_release = [release["neg_log_p"] - row["neg_log_p"] for row in learned]
    by_tuned = [tuned["neg_log_p"] - row["neg_log_p"] for row in learned]
    runs = [value for row in learned for value in row.seeds("neg_log_p")]
    yield Says(
        place,
        f"**A learned σ beats the release's β by {spread(by_release, comma=True)} nats and the "
        f"tuned one by {spread(by_tuned, comma=True)}, at less than a third of the tuned one's "
        "cost.** "
        "Each of the four learned runs is better than both tuned ones; with two seeds the "
        "intervals are wide. Both learn 2σ² = "
        f"{spread([r['beta_effective'] for r in learned], 3)}, next to the tuned "
        f"{tuned.at('beta_effective', 4)}.",
        max(runs) < min(tuned.seeds("neg_log_p"))
        and all(0.25 < row["seconds"] / tuned["seconds"] < 1 / 3 for row in learned),
    )
    yield Says(place, f"is β = {release.at('beta_effective', 4)} for such frames")
    crps, calibration = "prediction_crps_first", "prediction_calibration_error_first"
    yield Says(
        place,
        f"**The next frame is predicted better:** CRPS {spread([r[crps] for r in learned], 3)} "
        f"against {tuned.at(crps, 3)} (tuned) and {release.at(crps, 3)} (the release's), "
        f"calibration error {spread([r[calibration] for r in learned], 3)} against "
        f"{tuned.at(calibration, 3)} (tuned).",
        max(row[crps] for row in learned) < min(tuned[crps], release[crps]),
    )
    last = [row["prediction_crps_last"] for row in (*learned, tuned, release)]
    yield Says(
        place,
        f"**Ten frames ahead the three cannot be told apart in CRPS** ({spread(last, 3)})",
    )
    yield Says(
        place,
        "is then the better calibrated one "
        f"({release.at('prediction_calibration_error_last', 3)}), at a higher CRPS",
        release["prediction_calibration_error_last"]
        < min(r["prediction_calibration_error_last"] for r in (*learned, tuned)),
    )
    low, high = sorted(per_pixel.seeds("rate"))
    yield Says(
        place,
        f"(a rate of {number(low, 2)} and {number(high, 1)} nats). It knows where nothing can be; "
        "its rollouts of a sequence are all but one (diversity "
        f"{per_pixel.at('rollout_diversity', 3)}).",
    )
    yield Says(place, f"* {grid.setting('training.steps')} steps are few")
    behind = [horizon(shared, "psnr_copy")[1:] - horizon(row, "psnr_best")[1:] for row in learned]
    yield Says(
        place,
        f"and about {number(float(-np.mean(behind)))} dB less PSNR at every horizon",
        bool(np.all(np.array(behind) < 0)),
    )
    models = [horizon(row, "ssim_best")[-1] for row in grid.rows()]
    copy = horizon(shared, "ssim_copy")
    yield Says(
        place,
        "Copying the last given frame has the higher SSIM than any model from the second frame on "
        f"({number(copy[-1], 2)} against {spread(models, 2)} for the best of ten at the tenth)",
        bool(all((copy > horizon(row, "ssim_best"))[1:].all() for row in grid.rows())),
    )


def of_diffusion() -> Iterator[Claim]:
    place = "The autoencoder of latent diffusion"
    grid = diffusion
    names = ["laplace_fixed", "laplace", "laplace_optimal", "shared", "optimal", "beta", "gaussian"]
    fixed, laplace, analytic, _, _, beta, _ = rows = [*map(grid.row, names)]
    yield Says(
        place,
        f"{rounded(parameters(fixed), 3)} parameters, a map of",
    )
    yield Says(
        place,
        f"{grid.setting('training.steps')} steps of {grid.setting('training.batch')} images, "
        f"{grid.seeds}, {grid.runs} runs, {grid.minutes} minutes of computing, trained in "
        f"{grid.precision}.",
    )
    heads = (
        "decoder,-log p,bits/dim,calibration error,variance of (x-μ)/σ,rate,PSNR; dB,SSIM,CRPS,"
        "FD of reconstructions"
    )
    columns = (
        "calibration_error", "z_variance", "rate", "psnr", "ssim", "crps",
        f"{FD}_reconstruction",
    )  # fmt: skip
    yield Tabled(
        place,
        [head.replace(";", ",") for head in heads.split(",")],
        [
            (
                row.name,
                scaled(row.seeds("neg_log_p")) if row is fixed else row.text("neg_log_p"),
                *map(row.text, ("bits_per_dim", *columns)),
            )
            for row in rows
        ],
    )
    scale = analytic["sigma"] / np.sqrt(2)
    own = float(fixed.column("run.decoder.b").iloc[0])
    yield Says(
        place,
        f"`laplace_optimal` asks for b = {number(scale, 3)}, which is {rounded(scale / own, 2)} "
        "times as much.",
    )
    floor = fixed.column("protocol.calibration.min_sigma").iloc[0]
    yield Says(
        place,
        f"Even with its σ raised to that of rounding to 8 bits ({number(floor, 4)}) squared errors "
        f"are {rounded(fixed['z_variance'], 1)} times the variance, and central intervals miss "
        f"nearly always ({fixed.at('calibration_error', 4)} of at most",
    )
    yield Says(
        place,
        "as an autoencoder with next to no KL it reconstructs as well as any row, for "
        f"{rounded(fixed['rate'], 1)} nats.",
        "psnr" in fixed.line["best"],
    )
    gap = laplace.minus(beta, "neg_log_p_fitted_sigma")
    yield Says(
        place,
        "With a σ fitted afterwards it is "
        f"{interval(gap, -1, comma=True)} nats better than `laplace`, and its "
        f"reconstructions have {interval(beta.minus(laplace, 'psnr'), 1)} dB more.",
        beta["neg_log_p_fitted_sigma"] == min(row["neg_log_p_fitted_sigma"] for row in rows),
    )
    yield Says(place, f"begin wide and {grid.setting('training.steps')} steps are too few for them")
    least = fixed[f"{FD}_floor"]
    times = [row[FD] / least for row in rows]
    yield Says(
        place,
        f"Distances are {spread(times)} times the floor ({number(least)}) for every row",
    )
