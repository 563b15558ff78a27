"""Figures from records that nobody trained: what goes in comes out as artists."""

from __future__ import annotations

import math
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection
from matplotlib.container import ErrorbarContainer
from matplotlib.lines import Line2D
from matplotlib.patches import StepPatch
from PIL import Image

from bench.report.figures import (
    calibration,
    information,
    learning,
    quality,
    rate_distortion,
    samples,
    search,
    style,
)
from tests.bench.report.figures.conftest import (
    IMAGES,
    LEVELS,
    Laboratory,
    add_beta,
    add_sweep,
    mosaic,
    rate,
)


def along_x(line: Line2D) -> list[float]:
    return list(np.asarray(line.get_xdata()))


def along_y(line: Line2D) -> list[float]:
    return list(np.asarray(line.get_ydata()))


def test_information_is_the_mean_over_seeds_with_the_learned_beta_upright(
    figure4: Laboratory,
) -> None:
    (sketch,) = information.sketches(figure4.part())
    frame = figure4.table().frame
    above, below = sketch.figure.axes
    swept = frame[frame["decoder"] != "shared"]
    for axes, metric in ((above, "mutual_information"), (below, "marginal_kl")):
        curve, _, _, upright, _, learned = axes.get_lines()[:6]
        assert along_y(curve) == pytest.approx(list(swept[metric]))
        assert along_x(curve) == pytest.approx(list(swept["beta_effective"]))
        assert along_x(upright)[0] == pytest.approx(0.022)
        assert len(along_x(learned)) == 3
    (ceiling,) = [line for line in above.get_lines() if line.get_linestyle() == "--"]
    assert along_y(ceiling)[0] == pytest.approx(math.log(IMAGES))


def test_what_a_thousand_images_cannot_show_is_hollow_and_has_no_bend(
    figure4: Laboratory,
) -> None:
    (sketch,) = information.sketches(figure4.part())
    for axes in sketch.figure.axes:
        known, hollow = axes.get_lines()[1:3]
        assert along_x(known) == [3.0, 10.0]
        assert len(along_x(hollow)) == 8
        assert hollow.get_markerfacecolor() == "white" != known.get_markerfacecolor()
    assert "where the marginal KL bends: it is known at 2 of 10 values of β" in sketch.caption
    assert "Hollow: unknown" in sketch.caption
    assert "The marginal KL bends" not in sketch.caption
    assert "bound" in sketch.figure.axes[0].get_ylabel()
    assert "upper bound" in sketch.figure.axes[1].get_ylabel()


def test_the_other_bound_ends_what_is_open(lab: Laboratory) -> None:
    """The rate less the upper bound, but no less than 0; above, the rate where that is less."""
    add_sweep(lab, gap=4.0)
    (sketch,) = information.sketches(lab.part())
    above, below = (
        np.asarray(area.get_paths()[0].vertices)
        for axes in sketch.figure.axes
        for area in axes.collections
        if area.get_hatch()
    )
    full, carried = math.log(IMAGES), rate(1e-4) * 1.01
    for shape, low, high in ((above, full, full + 4), (below, carried - full - 4, carried - full)):
        ends = shape[np.isclose(shape[:, 0], 1e-4), 1]
        assert (ends.min(), ends.max()) == pytest.approx((low, high))
    assert below[:, 1].min() == 0
    assert above[np.isclose(above[:, 0], 1.0), 1].max() == pytest.approx(rate(1.0) * 1.01)


def test_the_band_reaches_from_the_smallest_to_the_largest_seed(figure4: Laboratory) -> None:
    (sketch,) = information.sketches(figure4.part())
    band = sketch.figure.axes[1].collections[0]
    heights = np.asarray(band.get_paths()[0].vertices)[:, 1]
    most = rate(1e-4) * 1.02 - math.log(IMAGES)
    assert heights.max() == pytest.approx(most)
    assert heights.min() == pytest.approx(0.1)


def test_the_caption_says_where_the_learned_beta_lies(lab: Laboratory) -> None:
    add_sweep(lab, gap=0.3)
    (sketch,) = information.sketches(lab.part())
    assert "The marginal KL bends at β = 1." in sketch.caption
    assert "shared learned β = 0.022" in sketch.caption
    assert "times below this bend" in sketch.caption
    assert "Hollow" not in sketch.caption
    assert len(along_x(sketch.figure.axes[0].get_lines()[2])) == 0


def test_a_beta_by_itself_makes_no_sweep(lab: Laboratory) -> None:
    add_beta(lab, {"name": "beta", "beta": 0.1}, 0.1, 0)
    add_beta(lab, "shared", 0.02, 0)
    assert list(information.sketches(lab.part())) == []
    assert [sketch.part for sketch in samples.sketches(lab.part())] == [""]


def test_beta_is_swept_with_all_other_settings_equal(lab: Laboratory) -> None:
    for lr in (0.1, 0.2):
        for beta in (0.1, 1.0):
            metrics = {
                "rate": beta + lr,
                "mutual_information": beta,
                "marginal_kl": lr,
                "beta_effective": beta,
            }
            decoder = {"name": "beta", "beta": beta}
            lab.add(decoder, metrics=metrics, training={"lr": lr}, seed=0)
    sketches = list(information.sketches(lab.part()))
    assert [sketch.part for sketch in sketches] == ["lr=0.1", "lr=0.2"]
    curve = sketches[1].figure.axes[1].get_lines()[0]
    assert along_y(curve) == [0.2, 0.2]


def test_losses_of_densities_and_of_probabilities_share_no_figure(lab: Laboratory) -> None:
    for decoder in ("shared", "optimal", "categorical"):
        lab.add(decoder, metrics={"neg_log_p": 1.0}, losses=[3.0, 2.0])
    lab.add("mse", metrics={"mse": 1.0}, losses=[3.0, 2.0])
    drawn = {
        sketch.part: [text.get_text() for text in sketch.figure.legends[0].get_texts()]
        for sketch in learning.sketches(lab.part())
    }
    assert drawn == {"": ["shared", "optimal"], "probabilities": ["categorical"]}


def test_shared_against_optimal_has_a_figure_of_its_own(lab: Laboratory) -> None:
    for decoder in ("gaussian", "shared", "optimal"):
        lab.add(decoder, metrics={"neg_log_p": 1.0}, losses=[3.0, 2.0])
    alone = list(learning.sketches(lab.part()))[1]
    assert alone.part == "shared against optimal"
    assert len(alone.figure.axes[0].get_lines()) == 2


def test_rate_and_distortion_have_a_panel_for_each_unit(lab: Laboratory) -> None:
    for place, decoder in enumerate(("shared", "optimal", "categorical")):
        for seed in range(2):
            metrics = {"rate": 10.0 + place + seed, "distortion": -5.0 * place + seed}
            lab.add(decoder, seed=seed, metrics=metrics)
    (sketch,) = rate_distortion.sketches(lab.part())
    densities, probabilities = sketch.figure.axes
    frame = lab.table().frame
    means = [line for line in densities.get_lines() if line.get_markersize() == 7]
    assert [along_x(line)[0] for line in means] == list(frame["rate"][:2])
    assert [along_y(line)[0] for line in means] == list(frame["distortion"][:2])
    assert "8-bit" in probabilities.get_ylabel()
    guide = densities.get_lines()[-1]
    (left, right), (high, low) = along_x(guide), along_y(guide)
    assert low - high == pytest.approx(left - right)


def test_quality_stands_over_bits_with_the_intervals_of_the_table(lab: Laboratory) -> None:
    for place, decoder in enumerate(("shared", "optimal")):
        for seed in range(2):
            metrics = {"bits_per_dim": 3.0 + place + seed, "fd_efficientnet_lite0": 20.0 - seed}
            metrics["fd_efficientnet_lite0_sampled"] = 90.0
            lab.add(decoder, seed=seed, metrics=metrics)
    (sketch,) = quality.sketches(lab.part())
    frame = lab.table().frame
    (axes,) = sketch.figure.axes
    bars = cast(list[ErrorbarContainer], axes.containers)
    assert [along_x(bar.lines[0])[0] for bar in bars] == list(frame["bits_per_dim"])
    across = bars[0].lines[2][0].get_segments()[0][:, 0]
    assert (across.max() - across.min()) / 2 == pytest.approx(frame["bits_per_dim_half_width"][0])


def test_a_calibrated_decoder_lies_on_the_diagonal_and_its_histogram_is_flat(
    lab: Laboratory,
) -> None:
    lab.add("shared", wide=1.0)
    lab.add("gaussian", wide=2.0)
    reliability, histograms = calibration.sketches(lab.part())
    lines = {
        text.get_text(): line
        for text, line in zip(
            reliability.figure.legends[0].get_texts(),
            reliability.figure.axes[0].get_lines()[1:],
            strict=True,
        )
    }
    calibrated, wide = lines["shared"], lines["gaussian"]
    assert along_y(calibrated) == pytest.approx(LEVELS)
    assert all(y >= x for x, y in zip(along_x(wide), along_y(wide), strict=True))
    panels = {axes.get_title(loc="left"): axes for axes in histograms.figure.axes}
    heights, _, _ = cast(StepPatch, panels["shared"].patches[0]).get_data()
    assert heights == pytest.approx(np.ones(20))


def test_a_histogram_of_a_density_is_a_line_over_that_of_the_8_bit_law(lab: Laboratory) -> None:
    """Of the seeds that have one; the panel's height is the 8-bit law's."""
    peak = [0.1] * 9 + [18.2] + [0.1] * 10
    lab.add("shared", density=peak)
    lab.add("shared", seed=1)
    lab.add("categorical")
    _, histograms = calibration.sketches(lab.part())
    panels = {axes.get_title(loc="left"): axes for axes in histograms.figure.axes}
    flat, line = (cast(StepPatch, patch) for patch in panels["shared"].patches)
    assert flat.get_data()[0] == pytest.approx(np.ones(20))
    assert line.get_data()[0] == pytest.approx(peak)
    assert (flat.get_fill(), line.get_fill(), line.get_linestyle()) == (True, False, "--")
    assert panels["shared"].get_ylim()[1] == 2
    assert len(panels["categorical"].patches) == 1


def test_a_search_shows_every_trial_its_cost_and_the_choice(lab: Laboratory) -> None:
    final = lab.add({"name": "beta", "beta": 0.02}, selection={"rule": "tuned", "search": "0" * 16})
    lab.add("shared", metrics={"beta_effective": 0.03})
    scores = (5.0, 4.0, None, 3.0)
    trials = [
        {
            "value": 10.0**-place,
            "runs": ["a"],
            "scores": [score],
            "score": score,
            "seconds": 7.0 + place,
            "status": "diverged" if score is None else "completed",
        }
        for place, score in enumerate(scores)
    ]
    how = lab.results.add_search([final], 0.001)["search"]
    lab.results.add_search([final], 0.001, trials=trials, search={**how, "startup": 2})
    (sketch,) = search.sketches(lab.part())
    assert "β = 0.001 is at the lower end of its range (0.001 to 10)" in sketch.caption
    score, cost = sketch.figure.axes
    drawn = {line.get_label(): line for line in score.get_lines()}
    assert along_x(drawn["evenly spaced trial"]) == [1.0, 0.1]
    assert along_y(drawn["evenly spaced trial"]) == [5.0, 4.0]
    assert along_y(drawn["chosen"]) == [3.0]
    assert along_x(drawn["no score"]) == [0.01]
    assert "shared: learned β = 0.03" in drawn
    bars = cast(list[LineCollection], cost.collections)
    heights = [bar.get_segments()[0][1][1] for bar in bars]
    assert heights == [7.0, 8.0, 9.0, 10.0]


def test_a_strip_is_the_first_images_of_a_picture_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "samples.png"
    Image.fromarray(mosaic(0)).save(path)
    pixels = samples.strip(path)
    assert pixels.shape == (14, 12 * 13 + 1, 3)
    assert list(pixels[7, 7::13, 0]) == [10 * number for number in range(12)]


def test_any_other_picture_is_shown_whole(tmp_path: Path) -> None:
    path = tmp_path / "samples.png"
    Image.new("RGB", (100, 30)).save(path)
    assert samples.strip(path).shape == (30, 100, 3)


def test_samples_along_beta_have_the_learned_one_in_its_place(figure4: Laboratory) -> None:
    everything, along = samples.sketches(figure4.part())
    names = [axes.texts[0].get_text() for axes in along.figure.axes if axes.texts]
    assert [name.splitlines()[-1] for name in names] == [
        *(f"β = {beta}" for beta in ("10", "3", "1", "0.3", "0.1", "0.03")),
        "learned β = 0.022",
        *(f"β = {beta}" for beta in ("0.01", "0.003", "0.001", "0.0001")),
    ]
    assert len([axes for axes in everything.figure.axes if axes.images]) == 11


# -- one style ----------------------------------------------------------------------------------


def test_twenty_four_kinds_of_decoder_are_drawn_apart_as_lines_and_as_points() -> None:
    found = style.styles((f"d{number}", f"d{number}") for number in range(24)).values()
    assert len({(style.colour, style.dash) for style in found}) == 24
    assert len({(style.colour, style.marker) for style in found}) == 24


def test_members_of_a_family_share_hue_and_differ_in_shade() -> None:
    betas = [(f"beta (beta={value})", "beta") for value in (0.1, 1, 10)]
    found = style.styles([*betas, ("shared", "shared")])
    assert len({style.colour for style in found.values()}) == 4
    assert len({style.marker for style in found.values()}) == 2


def test_a_decoder_looks_the_same_in_every_figure(figure4: Laboratory) -> None:
    part = figure4.part()
    (information_,) = information.sketches(part)
    curves = next(iter(learning.sketches(part))).figure.axes[0].get_lines()
    upright = information_.figure.axes[0].get_lines()[3]
    assert curves[-1].get_color() == upright.get_color() == part.styles["shared"].colour


@pytest.mark.parametrize(("decoders", "epochs"), [(1, 1), (12, 1), (20, 3)])
def test_any_number_of_decoders_and_epochs_is_drawn_apart(decoders: int, epochs: int) -> None:
    history = pd.DataFrame(
        {"decoder": f"d{d}", "epoch": epoch, "loss": 10.0 * seed + epoch, "sigma": 0.1 + seed}
        for d in range(decoders)
        for seed in (1, 2, 6)
        for epoch in range(epochs)
    )
    looks = style.styles((name, name) for name in history["decoder"])
    drawing = learning.figure(history, looks, "sequence")
    assert drawing.axes[0].get_ylabel() == "training loss, nats per sequence"
    lines = drawing.axes[0].get_lines()
    assert along_x(lines[0]) == list(range(1, epochs + 1))
    assert along_y(lines[0]) == pytest.approx([30 + epoch for epoch in range(epochs)])
    shown = drawing.legends[0].get_lines()
    # matplotlib has no public getter of the dashes that a line was given.
    dashes = [str(line._dash_pattern) for line in shown]  # type: ignore[attr-defined]
    assert len({*zip((str(line.get_color()) for line in shown), dashes, strict=True)}) == decoders


def test_the_weight_of_the_rate_has_a_panel_where_a_balance_has_one() -> None:
    """The row without a balance, which has no weight, has no line there."""
    history = pd.DataFrame(
        [{"decoder": "plain", "epoch": epoch, "loss": 1.0, "sigma": 0.1} for epoch in range(3)]
        + [
            {"decoder": "rule", "epoch": epoch, "loss": 1.0, "sigma": 0.1, "weight": epoch / 2}
            for epoch in range(3)
        ]
    )
    looks = style.styles((name, name) for name in ("plain", "rule"))
    drawing = learning.figure(history, looks, "image")
    assert [axes.get_ylabel() for axes in drawing.axes][2] == "weight of the rate"
    plain, rule = drawing.axes[2].get_lines()
    assert not along_x(plain)
    assert along_y(rule) == [0, 0.5, 1]
