"""Figures of videos, from records that nobody trained."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
from matplotlib.patches import StepPatch

from bench.files import write_checked
from bench.records.store import Store
from bench.report import figures
from bench.report.figures import by_frame, by_horizon, calibration, predictions
from tests.bench.report.conftest import Results
from tests.bench.report.figures.conftest import Laboratory
from tests.bench.report.test_rollouts import coded


@pytest.fixture
def cinema(videos: Results) -> Laboratory:
    return Laboratory(videos)


def labels(drawing: Any) -> list[str]:
    return [side.texts[0].get_text() for side in drawing.axes[::2]]


def greys(axes: Any, side: int, count: int) -> list[int]:
    """The grey in the lowest row of each frame of a strip."""
    pixels = np.asarray(axes.get_images()[0].get_array())
    return [int(pixels[-2, place * (side + 1), 0]) for place in range(count)]


def test_a_film_strip_has_the_truth_once_and_three_strips_a_decoder(lab: Laboratory) -> None:
    for decoder in ("shared", "optimal"):
        record = lab.results.add(decoder, frames=coded())
        record["protocol"]["prediction"] = {"given": 3, "predicted": 4}
        rewrite(lab, record)
    first, second = predictions.sketches(lab.part())
    assert (first.part, second.part) == ("clip 1", "clip 2")
    of_decoders = ["shared\nbest", "worst", "mean", "optimal\nbest", "worst", "mean"]
    assert labels(first.figure) == ["truth", *of_decoders]
    for clip, sketch in enumerate((first, second)):
        strips = sketch.figure.axes[1::2]
        for strip, axes in zip((0, 1, 2, 3, 1, 2, 3), strips, strict=True):
            start = 100 * clip + 20 * strip
            assert greys(axes, 3, 7) == list(range(start, start + 7))
            (line,) = axes.get_lines()  # between the third frame and the fourth
            assert list(np.asarray(line.get_xdata())) == [11.5, 11.5]
    above = [text.get_text() for text in first.figure.axes[1].texts]
    assert above == [str(place) for place in range(7)]
    assert "the first 3 are given" in first.caption


def rewrite(lab: Laboratory, record: dict[str, Any]) -> None:
    write_checked(Store(lab.results.folder).folder_of(record["id"]) / "record.json", record)


def test_unlike_clips_share_no_figure(lab: Laboratory) -> None:
    """Rows of two split seeds were tested on other videos."""
    for decoder, shift in (("shared", 0), ("optimal", 5)):
        record = lab.results.add(decoder, frames=coded(clips=1) + np.uint8(shift))
        record["protocol"]["prediction"] = {"given": 3, "predicted": 4}
        rewrite(lab, record)
    sketches = list(predictions.sketches(lab.part()))
    assert [sketch.part for sketch in sketches] == ["clip 1", "clip 1, other clips 1"]
    assert [labels(sketch.figure)[1] for sketch in sketches] == ["shared\nbest", "optimal\nbest"]


@pytest.mark.parametrize(
    ("given", "frames", "shown"),
    [
        (5, 10, list(range(10))),
        (5, 30, [2, 3, 4, 5, 8, 11, 14, 17, 20, 23, 26, 29]),
        (2, 30, [0, 1, 2, 5, 8, 11, 14, 17, 20, 23, 26, 29]),
        (10, 13, [7, 8, 9, 10, 11, 12]),
    ],
)
def test_a_long_film_keeps_the_frames_around_the_cut_and_the_last(
    given: int, frames: int, shown: list[int]
) -> None:
    assert predictions.places(given, frames) == shown


def drawn(axes: Any) -> dict[str, list[float]]:
    """The heights of the lines by their dash: decoders' are solid."""
    return {str(line.get_color()): list(np.asarray(line.get_ydata())) for line in axes.get_lines()}


def test_measures_by_horizon_are_means_over_seeds_beside_the_copied_frame(
    cinema: Laboratory,
) -> None:
    part = cinema.part()
    (sketch,) = by_horizon.sketches(part)
    names = [axes.get_ylabel() for axes in sketch.figure.axes]
    assert names == [
        "CRPS, predicted",
        "calibration error, predicted",
        "SSIM, best of 10",
        "SSIM, mean of 10",
        "FD efficientnet lite0",
    ]
    crps, _, best, *_, distance = sketch.figure.axes
    ages = np.arange(1, 6)
    shared = str(part.styles["shared"].colour)
    assert drawn(crps)[shared] == pytest.approx(list(0.01 * np.sqrt(ages)))
    assert drawn(distance)[shared] == pytest.approx(list(40.0 * ages))
    heights = np.asarray(crps.collections[1].get_paths()[0].vertices)[:, 1]
    assert heights.max() == pytest.approx(0.01 * 1.02 * np.sqrt(5))
    (copied,) = [line for line in best.get_lines() if line.get_linestyle() == "--"]
    assert list(np.asarray(copied.get_ydata())) == pytest.approx(list(0.8 / ages))
    assert "the last given frame, copied" in sketch.caption
    assert "3 seeds each" in sketch.caption


def test_nats_by_frame_keep_densities_and_probabilities_apart(cinema: Laboratory) -> None:
    part = cinema.part()
    densities, probabilities = by_frame.sketches(part)
    assert probabilities.part == "probabilities"
    nats, rate = densities.figure.axes
    shared = str(part.styles["shared"].colour)
    frames = np.arange(1, 8)
    assert drawn(nats)[shared] == pytest.approx(list(1000 / frames))
    assert drawn(rate)[shared] == pytest.approx(list(np.exp(-frames / 4)))
    upright = nats.get_lines()[-1]
    assert list(np.asarray(upright.get_xdata())) == [2.5, 2.5]  # frames 0 to 2 are given
    assert len(probabilities.figure.legends[0].get_texts()) == 1


def test_the_pit_of_a_prediction_has_both_ends(cinema: Laboratory) -> None:
    (sketch,) = calibration.sketches(cinema.part())
    assert sketch.part == "prediction"
    first, last = (cast(StepPatch, patch) for patch in sketch.figure.axes[1].patches)
    bent = 1 + 0.1 * np.cos(np.linspace(0, 2 * np.pi, 20))
    assert list(first.get_data()[0]) == pytest.approx(list(bent))
    assert list(last.get_data()[0]) == pytest.approx(list(2 - bent))
    assert last.get_linestyle() == "--"


@pytest.mark.parametrize("kind", [predictions, by_horizon, by_frame])
def test_images_have_none_of_them(lab: Laboratory, kind: Any) -> None:
    lab.add("shared")
    assert list(kind.sketches(lab.part())) == []


def test_the_report_of_videos_begins_with_what_was_predicted(cinema: Laboratory) -> None:
    part = cinema.part()
    titles = [kind.TITLE for kind in figures.KINDS for _ in kind.sketches(part)]
    assert titles[:3] == ["Predictions", "Predictions", "By horizon"]
    assert titles[-3:] == ["By frame", "By frame", "Calibration"]
    assert "Samples" not in titles


def test_a_distance_alone_has_its_panel_and_no_copied_frame(lab: Laboratory) -> None:
    """A run without measured rollouts still has one for the distance."""
    lab.results.add("shared", curves={"by_horizon": {"fd": [3.0, 5.0]}})
    (sketch,) = by_horizon.sketches(lab.part())
    (axes,) = sketch.figure.axes
    line = axes.get_lines()[0]
    assert list(np.asarray(line.get_xdata())) == [1, 2]
    assert list(np.asarray(line.get_ydata())) == [3.0, 5.0]
    assert "copied" not in sketch.caption
