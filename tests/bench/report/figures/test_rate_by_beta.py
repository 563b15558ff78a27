"""The rate against β, beside the best linear VAE's."""

from __future__ import annotations

import math

import numpy as np
import pytest
from matplotlib.lines import Line2D

from bench.files import write_checked
from bench.records.store import Store
from bench.report.figures import rate_by_beta
from tests.bench.report.figures.conftest import Laboratory, rate

SPECTRUM = [2.0, 0.5]


def line_of(lines: list[Line2D], style: str) -> Line2D | None:
    return next((line for line in lines if line.get_linestyle() == style), None)


def test_the_measured_rate_and_no_line_where_no_record_has_eigenvalues(figure4: Laboratory) -> None:
    (sketch,) = rate_by_beta.sketches(figure4.part())
    (axes,) = sketch.figure.axes
    curve = axes.get_lines()[0]
    betas = np.asarray(curve.get_xdata())
    assert len(betas) == 10
    assert np.asarray(curve.get_ydata()) == pytest.approx([1.01 * rate(beta) for beta in betas])
    learned = np.asarray(axes.get_lines()[1].get_xdata())
    assert sorted(learned) == pytest.approx([0.02, 0.022, 0.024])
    assert line_of(axes.get_lines(), "--") is None
    assert "linear VAE" not in sketch.caption


def test_the_line_rises_by_half_a_nat_a_latent_in_use_and_ends_at_collapse(
    figure4: Laboratory,
) -> None:
    store = Store(figure4.results.folder)
    for record in store.records():
        record["curves"]["spectrum"] = SPECTRUM
        write_checked(store.folder_of(record["id"]) / "record.json", record)
    (sketch,) = rate_by_beta.sketches(figure4.part())
    (axes,) = sketch.figure.axes
    line = line_of(axes.get_lines(), "--")
    assert line is not None
    betas, rates = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
    slopes = np.diff(rates) / np.diff(np.log(betas))
    assert slopes[betas[1:] < 1] == pytest.approx(-1)  # two latents
    assert slopes[(betas[:-1] > 1) & (betas[1:] < 4)] == pytest.approx(-0.5)  # one
    assert rates[betas >= 4] == pytest.approx(0)
    assert rates[0] == pytest.approx(0.5 * math.log(4 / betas[0]) + 0.5 * math.log(1 / betas[0]))
    upright = line_of(axes.get_lines(), ":")
    assert upright is not None
    assert list(np.asarray(upright.get_xdata())) == [4, 4]
    assert "β = 2λ₁ = 4" in sketch.caption


def test_one_beta_is_no_sweep(lab: Laboratory) -> None:
    lab.add({"name": "beta", "beta": 1.0}, metrics={"rate": 3.0})
    assert list(rate_by_beta.sketches(lab.part())) == []
