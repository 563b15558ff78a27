"""The mixture's picture shows the mixture: circles where the components are, one panel a rule."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.report.figures.look import save
from bench.report.mixture import Fitted, figure


def fitted(sigma: float) -> Fitted:
    centres = np.array([[-2.0, 0.0], [2.0, 1.0], [0.0, -3.0]])
    points = np.random.default_rng(0).normal(size=(30, 2))
    return Fitted(1.5, points, centres, np.full(3, sigma), centres, np.full(3, 0.5))


@pytest.mark.parametrize("rules", [1, 2, 3, 4])
def test_a_panel_for_every_rule_to_one_scale(rules: int) -> None:
    drawn = figure({f"rule {index}": fitted(0.5 + index) for index in range(rules)})
    assert [axes.get_title() for axes in drawn.axes] == [
        f"rule {index}, -log p 1.50" for index in range(rules)
    ]
    assert len({axes.get_xlim() for axes in drawn.axes}) == 1


def test_circles_have_the_radius_sigma_around_the_centres() -> None:
    fit = fitted(0.7)
    truth, circles = figure({"rule": fit}).axes[0].collections[1:]
    for paths, sigma in ((truth, 0.5), (circles, 0.7)):
        boxes = [path.get_extents() for path in paths.get_paths()]
        np.testing.assert_allclose([[b.width, b.height] for b in boxes], 2 * sigma, rtol=1e-3)
        centres = [[(b.x0 + b.x1) / 2, (b.y0 + b.y1) / 2] for b in boxes]
        np.testing.assert_allclose(centres, fit.means, atol=1e-3)


def test_every_circle_is_inside_the_picture(tmp_path: Path) -> None:
    drawn = figure({"rule": fitted(4.0)})
    (left, right), (low, high) = drawn.axes[0].get_xlim(), drawn.axes[0].get_ylim()
    assert left < -6
    assert right > 6
    assert (low < -7, high > 5) == (True, True)
    paths = save(drawn, tmp_path / "mixtures")
    assert [path.suffix for path in paths] == [".png", ".pdf"]
    with Image.open(paths[0]) as picture:
        assert picture.size[0] > 1000
