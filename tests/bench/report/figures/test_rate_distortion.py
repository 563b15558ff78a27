"""The rate-distortion plane: the curve of fixed β, and where each method ends."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bench.report.figures import rate_distortion
from tests.bench.report.figures.conftest import Laboratory

DIMENSIONS = 784
TRIAL: dict[str, Any] = {"evaluation": {"split": "validation"}, "seed": 1000, "picture": False}


def ending(rate: float, mse: float) -> dict[str, float]:
    return {"rate": rate, "mse": mse, "neg_log_p": 1.0}


def fixed(beta: float) -> dict[str, Any]:
    return {"name": "beta", "beta": beta}


def drawn(lab: Laboratory) -> tuple[Figure, Axes, str]:
    (sketch,) = rate_distortion.sketches(lab.part())
    (axes,) = sketch.figure.axes
    return sketch.figure, axes, sketch.caption


def places(line: Line2D) -> list[tuple[float, float]]:
    return list(zip(np.asarray(line.get_xdata()), np.asarray(line.get_ydata()), strict=True))


def sized(axes: Axes, size: float) -> list[tuple[float, float]]:
    return [place for line in axes.get_lines() if line.get_markersize() == size
            and line.get_marker() != "None" for place in places(line)]  # fmt: skip


def names(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_each_method_stands_at_its_mean_whatever_its_units(lab: Laboratory) -> None:
    for place, decoder in enumerate(("shared", "optimal", "categorical")):
        for seed in range(2):
            lab.add(decoder, seed=seed, metrics=ending(10.0 + place + seed, 0.1 / (2 + seed)))
    figure, axes, caption = drawn(lab)
    assert axes.get_yscale() == "log"
    mean = (0.1 / 2 + 0.1 / 3) / 2
    expected = [(10.5 + place, mean) for place in range(3)]
    assert sized(axes, 8) == [pytest.approx(place) for place in expected]
    assert names(figure) == ["shared", "optimal", "categorical"]
    assert "Grey" not in caption


def test_along_a_light_line_the_fitted_likelihood_is_the_same(lab: Laboratory) -> None:
    for decoder, rate in (("shared", 10.0), ("optimal", 90.0)):
        lab.add(decoder, metrics=ending(rate, 1 / rate))
    _, axes, _ = drawn(lab)
    guides = [line for line in axes.get_lines() if line.get_color() == "0.9"]
    assert guides
    for guide in guides:
        rates, errors = np.asarray(guide.get_data())
        nats = DIMENSIONS / 2 * np.log(2 * np.pi * np.e * errors) + rates
        assert nats == pytest.approx(nats[0])


def searched(lab: Laboratory) -> None:
    """σ = 1, a β that six runs chose, four of them kept here, and a learned σ."""
    lab.add("gaussian", metrics=ending(4.0, 0.05))
    final = lab.add(fixed(0.03), metrics=ending(50.0, 0.02))
    for beta, rate, mse in ((0.003, 120.0, 0.018), (0.3, 20.0, 0.03), (0.03, 51.0, 0.021)):
        lab.add(fixed(beta), metrics=ending(rate, mse), **TRIAL)
    lab.add(fixed(5.0), status="diverged", **TRIAL)
    lab.add("shared", metrics=ending(55.0, 0.012))
    lab.results.add_search([final], chosen=0.03)


def test_the_curve_joins_unit_variance_trials_and_the_chosen_beta(lab: Laboratory) -> None:
    searched(lab)
    figure, axes, caption = drawn(lab)
    curve = axes.get_lines()[0]
    # By rising β; the row's own test images go before a trial of the same value.
    expected = [(120.0, 0.018), (50.0, 0.02), (20.0, 0.03), (4.0, 0.05)]
    assert places(curve) == [pytest.approx(place) for place in expected]
    hollow = [line for line in axes.get_lines() if line.get_markerfacecolor() == "white"]
    assert [place for line in hollow for place in places(line)] == [(120.0, 0.018), (20.0, 0.03)]
    assert [text.get_text() for text in axes.texts] == ["β = 0.003", "0.03", "0.3", "2"]
    assert names(figure) == [
        "gaussian",
        "beta (tuned, β=0.03): 6 tuning runs",
        "shared",
        "β-VAE at a fixed β",
    ]
    assert "hollow points are trials" in caption
    assert "how many runs chose" in caption


def test_trials_of_another_training_are_no_part_of_the_curve(lab: Laboratory) -> None:
    searched(lab)
    lab.add(fixed(1.0), metrics=ending(9.0, 0.9), training={"lr": 0.1}, **TRIAL)
    lab.add(fixed(1.0), metrics=ending(9.0, 0.9), model="linear_vae", **TRIAL)
    _, axes, _ = drawn(lab)
    assert len(places(axes.get_lines()[0])) == 4


def test_betas_set_by_hand_are_the_curve_and_no_methods(figure4: Laboratory) -> None:
    figure, axes, caption = drawn(figure4)
    assert len(places(axes.get_lines()[0])) == 10
    assert names(figure) == ["shared", "β-VAE at a fixed β"]
    assert "trials" not in caption


@pytest.mark.parametrize("metrics", [{"rate": 3.0}, {"mse": 0.1}, ending(3.0, 0.0)])
def test_without_both_measures_there_is_no_plane(
    lab: Laboratory, metrics: dict[str, float]
) -> None:
    for decoder in ("shared", "optimal"):
        lab.add(decoder, metrics=metrics)
    assert list(rate_distortion.sketches(lab.part())) == []


def test_one_method_alone_is_no_plane(lab: Laboratory) -> None:
    lab.add("shared", metrics=ending(5.0, 0.02))
    assert list(rate_distortion.sketches(lab.part())) == []
