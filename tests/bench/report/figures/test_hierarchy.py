"""Figures of a hierarchy and of temperatures, from records that nobody trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench.files import write_checked
from bench.records.store import Store
from bench.report.figures import groups, rate_by_group, temperature
from tests.bench.report.figures.conftest import Laboratory, mosaic

PARTS = ["1x1", "4x4.1", "4x4.2", "8x8"]


def add(
    lab: Laboratory,
    decoder: str,
    seed: int = 0,
    *,
    parts: Sequence[str] = PARTS,
    rates: Sequence[float] | None = None,
    pictures: Mapping[str, np.ndarray[Any, Any]] | None = None,
    temperatures: tuple[float, ...] = (),
) -> None:
    """A run with rates by part and pictures by the name of their artifact."""
    curves = {"rate_by_part": {"parts": list(parts), "rate": list(rates)}} if rates else {}
    evaluation = {"temperatures": temperatures}
    record = lab.results.add(decoder, seed=seed, curves=curves, evaluation=evaluation)
    folder = Store(lab.results.folder).folder_of(record["id"])
    for name, pixels in (pictures or {}).items():
        record["artifacts"][name] = f"images/{name}.png"
        path = folder / record["artifacts"][name]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    write_checked(folder / "record.json", record)


def drawn(axes: Any) -> list[list[float]]:
    """The heights of the decoders' lines; those between levels have no marker."""
    return [list(line.get_ydata()) for line in axes.get_lines() if line.get_marker() != "None"]


def test_rates_are_means_over_seeds_by_group_and_sums_by_resolution(lab: Laboratory) -> None:
    add(lab, "shared", 0, rates=[0.0, 1.0, 2.0, 30.0])
    add(lab, "shared", 1, rates=[1.0, 3.0, 4.0, 50.0])
    add(lab, "optimal", 0, rates=[5.0, 0.0, 0.0, 7.0])
    (sketch,) = rate_by_group.sketches(lab.part())
    by_part, by_level = sketch.figure.axes
    assert drawn(by_part) == [[0.5, 2.0, 3.0, 40.0], [5.0, 0.0, 0.0, 7.0]]
    assert drawn(by_level) == [[0.5, 5.0, 40.0], [5.0, 0.0, 7.0]]
    for axes, places in ((by_part, [0, 1.5, 3]), (by_level, [0, 1, 2])):
        assert list(axes.get_xticks()) == places
        assert [text.get_text() for text in axes.get_xticklabels()] == ["1x1", "4x4", "8x8"]
    # Between the seeds: of sums, not the sum of the ends.
    heights = np.asarray(by_level.collections[0].get_paths()[0].vertices)[:, 1]
    assert {3.0, 7.0} <= set(heights)
    assert "1 to 2 seeds" in sketch.caption


def test_one_group_a_resolution_needs_no_sums(lab: Laboratory) -> None:
    add(lab, "shared", parts=["1x1", "7x7"], rates=[1.0, 2.0])
    (sketch,) = rate_by_group.sketches(lab.part())
    assert len(sketch.figure.axes) == 1
    assert "sum" not in sketch.caption


def test_unlike_hierarchies_share_no_axis(lab: Laboratory) -> None:
    """Two versions of a user's model have one name."""
    add(lab, "shared", rates=[1.0, 2.0, 3.0, 4.0])
    add(lab, "optimal", parts=["1x1", "7x7"], rates=[1.0, 2.0])
    sketches = list(rate_by_group.sketches(lab.part()))
    assert [sketch.part for sketch in sketches] == ["4 groups", "2 groups"]


@pytest.mark.parametrize("kind", [rate_by_group, groups, temperature])
def test_a_single_latent_without_temperatures_has_none_of_them(lab: Laboratory, kind: Any) -> None:
    lab.add("shared")
    assert list(kind.sketches(lab.part())) == []


def test_temperatures_rise_from_row_to_row_with_1_among_them(lab: Laboratory) -> None:
    names = {0.5: "samples_t0.5", 1.0: "samples", 2.0: "samples_t2"}
    pictures = {name: mosaic(round(10 * t)) for t, name in names.items()}
    add(lab, "optimal", pictures=pictures, temperatures=(0.5, 2.0))
    add(lab, "shared", pictures={"samples": mosaic(0)})
    (sketch,) = temperature.sketches(lab.part())
    assert sketch.part.startswith("optimal")
    sides, rows = sketch.figure.axes[::2], sketch.figure.axes[1::2]
    assert [side.texts[0].get_text() for side in sides] == ["t = 0.5", "t = 1", "t = 2"]
    first = [np.asarray(axes.get_images()[0].get_array())[7, 7, 0] for axes in rows]
    assert first == [5, 10, 20]


def test_a_temperature_whose_picture_is_gone_is_left_out(lab: Laboratory) -> None:
    pictures = {"samples": mosaic(0), "samples_t0.5": mosaic(1)}
    add(lab, "optimal", pictures=pictures, temperatures=(0.5, 2.0))
    add(lab, "shared", pictures={"samples_t0.5": mosaic(1)}, temperatures=(0.5,))
    (sketch,) = temperature.sketches(lab.part())
    assert [side.texts[0].get_text() for side in sketch.figure.axes[::2]] == ["t = 0.5", "t = 1"]


def test_rows_say_down_to_where_latents_are_fixed(lab: Laboratory) -> None:
    picture = np.concatenate([mosaic(0), mosaic(5)[14:]])  # three rows
    add(lab, "shared", rates=[1.0, 2.0, 3.0, 4.0], pictures={"groups": picture})
    add(lab, "optimal", rates=[1.0, 2.0, 3.0, 4.0])
    (sketch,) = groups.sketches(lab.part())
    assert sketch.part == "shared"
    sides, rows = sketch.figure.axes[::2], sketch.figure.axes[1::2]
    names = [side.texts[0].get_text() for side in sides]
    assert names == ["nothing fixed", "1x1 fixed", "down to 4x4 fixed"]
    images = [np.asarray(axes.get_images()[0].get_array()) for axes in rows]
    assert [image[7, 7, 0] for image in images] == [0, 80, 85]
    assert all(image.shape == (14, 8 * 13 + 1, 3) for image in images)


def test_a_picture_of_other_levels_is_not_named_after_these(lab: Laboratory) -> None:
    add(lab, "shared", rates=[1.0, 2.0, 3.0, 4.0], pictures={"groups": mosaic(0)})
    assert list(groups.sketches(lab.part())) == []
