"""Folders of records that nobody trained, and what the gate says of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.files import write_checked
from bench.records.store import Record, Store, new_record
from bench.regression.gate import Comparisons
from bench.run import Run

DECODERS = {"gaussian": 740.0, "shared": -280.0, "optimal": -270.0}
SEEDS = range(5)
SPREAD = 12.0
"""Nats between seeds; a rerun of the same seed elsewhere moves by an eighth of it."""

Plant = Callable[[str, int, Record], Record | None]
Write = Callable[..., Path]


def unchanged(decoder: str, seed: int, record: Record) -> Record | None:
    return record


def measured(level: float, seed: int, rerun: int) -> dict[str, float]:
    """One seed's numbers, which hang together as a run's do."""
    own, again = np.random.default_rng(seed), np.random.default_rng((seed, rerun))
    luck = SPREAD * own.normal() + (SPREAD / 8 * again.normal() if rerun else 0.0)
    rate = 25 + luck / 10
    return {
        "neg_log_p": level + luck,
        "neg_log_p_se": 2.0,
        "rate": rate,
        "distortion": level + luck - rate,
        "iwae_8": -level - luck + 3,
        "mse": 0.02 * np.exp(luck / 400),
        "sigma": 0.14,
        "bits_per_dim": 1.5 + luck / 784 / np.log(2),
        "calibration_error": 0.05 + luck / 4000,
    }


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write a grid's folder of records; `plant` changes one, or leaves it out with None."""
    # Fifteen records a folder would wait for the disk far longer than for anything tested here.
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)

    def grid(
        name: str,
        plant: Plant = unchanged,
        *,
        seeds: Iterable[int] = SEEDS,
        rerun: int = 0,
        decoders: Mapping[str, float] = DECODERS,
        **settings: Any,
    ) -> Path:
        folder = tmp_path / name
        store = Store(folder)
        store.runs.mkdir(parents=True)
        for decoder, level in decoders.items():
            for seed in seeds:
                run = Run.read(
                    {
                        "dataset": "mnist5k",
                        "content": settings.get("content", "c0" * 32),
                        "split_seed": 0,
                        "model": {"name": "conv_vae", "width": 8},
                        "decoder": {"name": decoder},
                        "training": settings.get("training", {"epochs": 4}),
                        "evaluation": {"samples": 0, "iwae": 8, "distances": ()},
                        "seed": seed,
                    }
                )
                record = new_record(run, {"rule": "by hand"})
                record["metrics"] = measured(level, seed, rerun)
                record["cost"] = {"seconds": 1.0}
                record["protocol"]["likelihood"] = {"dimensions": 784, "images": 1000, "seed": seed}
                record["environment"] = {
                    "commit": "c0ffee" * 6,
                    "versions": {"torch": "2.6.0"},
                    "device_class": settings.get("device_class", "cpu"),
                }
                planted = plant(decoder, seed, record)
                if planted is not None:
                    write_checked(store.run_folder(run) / "record.json", planted)
        return folder

    return grid


def verdicts(gate: Comparisons, verdict: str) -> set[tuple[str, str]]:
    return {(one.decoder, one.metric) for one in gate.comparisons if one.verdict == verdict}


def moved(metric: str, by: float, only: str = "shared") -> Plant:
    def plant(decoder: str, seed: int, record: Record) -> Record:
        if decoder == only:
            record["metrics"][metric] += by
        return record

    return plant
