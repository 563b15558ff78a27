"""Figures as files: which are drawn, what they are called, the same bytes each time."""

from __future__ import annotations

from pathlib import Path

from bench.report import figures
from bench.report.figures import learning, style
from tests.bench.report.figures.conftest import Laboratory, add_beta


def test_everything_that_was_measured_is_drawn_once(lab: Laboratory, tmp_path: Path) -> None:
    for beta in (0.1, 1.0):
        add_beta(lab, {"name": "beta", "beta": beta}, beta, 0)
    drawn = figures.draw(lab.table(), lab.searches(), tmp_path)
    assert [one.name for one in drawn] == [
        "samples",
        "samples-2-along-beta",
        "learning-curves",
        "information-against-beta",
        "rate-against-beta",
        "rate-and-distortion",
        "calibration-1-reliability",
        "calibration-2-pit",
    ]
    files = {path.name for one in drawn for path in one.paths}
    assert files == {path.name for path in tmp_path.iterdir()}
    assert all(one.caption.endswith(".") for one in drawn)


def test_a_figure_is_two_files_of_the_same_bytes_each_time(lab: Laboratory, tmp_path: Path) -> None:
    lab.add("shared", metrics={"neg_log_p": 1.0}, losses=[3.0, 2.0])
    first, second = (
        style.save(next(iter(learning.sketches(lab.part()))).figure, tmp_path / name)
        for name in ("1", "2")
    )
    assert [path.suffix for path in first] == [".png", ".pdf"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_nothing_is_drawn_where_nothing_was_measured(lab: Laboratory, tmp_path: Path) -> None:
    lab.results.add("shared", metrics={"neg_log_p": 1.0})
    lab.results.add("optimal", status="diverged")
    assert figures.draw(lab.table(), [], tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_a_grid_of_diverged_runs_has_their_curves_alone(lab: Laboratory, tmp_path: Path) -> None:
    lab.results.add("per_pixel", status="diverged", losses=[3.0, 2.0])
    (drawn,) = figures.draw(lab.table(), [], tmp_path)
    assert drawn.title == "Learning curves"


def test_data_sets_have_figures_of_their_own(lab: Laboratory, tmp_path: Path) -> None:
    for dataset in ("mnist5k", "npz:/tmp/a b.npz"):
        lab.results.add(dataset=dataset, losses=[2.0])
    drawn = figures.draw(lab.table(), [], tmp_path)
    assert [one.name for one in drawn] == [
        "learning-curves-1-mnist5k-conv-vae",
        "learning-curves-2-npz-tmp-a-b-npz-conv-vae",
    ]
    assert drawn[0].title == "Learning curves: mnist5k · conv_vae"


def test_a_search_that_found_nothing_has_no_runs_to_draw(lab: Laboratory, tmp_path: Path) -> None:
    lab.results.add("shared")
    lab.results.add_search([], None, dataset="fashion_mnist")
    assert figures.draw(lab.table(), lab.searches(), tmp_path) == []


def test_more_decoders_than_a_figure_can_tell_apart_make_two(lab: Laboratory) -> None:
    for number in range(21):
        lab.results.add({"name": "shared", "sigma_lr": 2.0 + number}, losses=[2.0])
    names = [sketch.part for sketch in learning.sketches(lab.part())]
    assert names == ["part 1", "part 2"]
