"""Records with everything that a figure is drawn from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from bench.files import write_checked
from bench.records.store import Store
from bench.report.figures import style
from bench.report.figures.subset import Subset, subsets
from bench.report.tables import Table
from tests.bench.report.conftest import Results

LEVELS = [level / 100 for level in range(1, 100)]
IMAGES = 1000


@dataclass
class Laboratory:
    """A folder of results whose records have curves, pictures and information."""

    results: Results

    def add(
        self,
        decoder: Mapping[str, Any] | str,
        *,
        wide: float = 1.0,
        density: list[float] | None = None,
        picture: bool = True,
        **run: Any,
    ) -> dict[str, Any]:
        """A completed run; `wide` is σ over the σ that would be calibrated.

        `density` is the PIT histogram of a density.
        """
        record = self.results.add(decoder, **run)
        folder = Store(self.results.folder).folder_of(record["id"])
        levels = np.array(LEVELS)
        half = stats.norm.ppf((1 + levels) / 2)
        edges = stats.norm.ppf(np.linspace(0, 1, 21))
        record["curves"] = {
            "coverage": {
                "nominal": LEVELS,
                "observed": list(2 * stats.norm.cdf(wide * half) - 1),
            },
            "pit": list(20 * np.diff(stats.norm.cdf(wide * edges))),
            **({} if density is None else {"pit_density": density}),
        }
        record["protocol"]["information"] = {"images": IMAGES, "bound": math.log(IMAGES)}
        if picture:
            record["artifacts"]["samples"] = "images/samples.png"
            path = folder / "images" / "samples.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mosaic(run.get("seed", 0))).save(path)
        write_checked(folder / "record.json", record)
        return record

    def table(self) -> Table:
        table = self.results.table()
        folders = list(map(Store(self.results.folder).folder_of, table.records["id"]))
        records = table.records.assign(folder=folders)
        return replace(table, records=records)

    def part(self) -> Subset:
        return next(subsets(self.table(), self.searches()))

    def searches(self) -> list[dict[str, Any]]:
        return list(Store(self.results.folder).searches())


def mosaic(seed: int, size: int = 12) -> np.ndarray[Any, Any]:
    """16 images, 8 a row, each of one grey with its number in it, as a run's picture has them."""
    side = size + 1
    pixels = np.full((2 * side + 1, 8 * side + 1, 3), 255, np.uint8)
    for number in range(16):
        top, left = (number // 8) * side + 1, (number % 8) * side + 1
        pixels[top : top + size, left : left + size] = 10 * number + seed
    return pixels


def rate(beta: float) -> float:
    """The rate of a β-VAE whose every halving of β costs the same."""
    return max(0.5, 8 - 4 * math.log(beta))


@pytest.fixture(autouse=True)
def few_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Coarse files: what they show is read from the artists, and drawing takes half the time."""
    monkeypatch.setattr(style, "DPI", 50)


@pytest.fixture
def lab(results: Results) -> Laboratory:
    return Laboratory(results)


@pytest.fixture
def figure4(lab: Laboratory) -> Laboratory:
    """A sweep of β whose mutual information is full at β = 1, with a σ-VAE at 0.02.

    Its records have no upper bound of the mutual information, as older versions wrote them.
    """
    add_sweep(lab)
    return lab


def add_sweep(lab: Laboratory, gap: float | None = None) -> None:
    for seed in range(3):
        for beta in (1e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0):
            add_beta(lab, {"name": "beta", "beta": beta}, beta, seed, gap)
        add_beta(lab, "shared", 0.02 * (1 + 0.1 * seed), seed, gap)


def add_beta(
    lab: Laboratory, decoder: Any, beta: float, seed: int, gap: float | None = None
) -> None:
    """A run; `gap` is between the bounds of its mutual information, None for no upper one."""
    carried = rate(beta) * (1 + 0.01 * seed)
    full = math.log(IMAGES)
    metrics = {
        "neg_log_p": -1000 + 20 * carried,
        "rate": carried,
        "mse": 0.02 * (1 + beta),
        "distortion": -1000 + 19 * carried,
        "mutual_information": min(full, carried),
        "marginal_kl": max(0.1 * (1 + seed), carried - full),
        "beta_effective": beta,
    }
    if gap is not None:
        metrics["mutual_information_upper"] = metrics["mutual_information"] + gap
    losses = [100 / (1 + epoch) - 10 * seed for epoch in range(6)]
    lab.add(decoder, seed=seed, metrics=metrics, losses=losses)
