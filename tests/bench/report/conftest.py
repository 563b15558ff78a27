"""A results folder with records that nobody trained: the report reads records and nothing else."""

import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from torchvision.utils import make_grid

from baselines.declarations import from_class
from baselines.models.base import SequenceModel
from baselines.options import MODELS, Configured, ModelSpec, make_spec
from bench.data.binary import binarised
from bench.files import write_bytes, write_checked
from bench.records.frame import frame
from bench.records.rows import is_discrete
from bench.records.store import Record, Store
from bench.report.tables import Table, build
from bench.run import SCHEMA, Evaluation, Features, Run, Training

EFFICIENTNET = Features(
    name="efficientnet_lite0", metric="fd_efficientnet_lite0", sha256="ab12cd34" * 8, source="/w"
)
INCEPTION = Features(name="inception", metric="fid", sha256="6726825d" * 8, source="/v")
DIMENSIONS = {"efficientnet_lite0": 1280, "inception": 2048}


@dataclass(frozen=True)
class Results:
    """One grid's folder, and what a worker would write into it."""

    folder: Path

    def add(
        self,
        decoder: Mapping[str, Any] | str = "shared",
        *,
        seed: int = 0,
        dataset: str = "mnist5k",
        model: Mapping[str, Any] | str = "conv_vae",
        status: str = "completed",
        metrics: Mapping[str, float] | None = None,
        training: Mapping[str, Any] | None = None,
        evaluation: Mapping[str, Any] | None = None,
        features: Features | None = EFFICIENTNET,
        selection: Mapping[str, Any] | None = None,
        losses: Sequence[float] = (),
        curves: Mapping[str, Any] | None = None,
        distance: Mapping[str, Any] | None = None,
        images: bool = False,
        frames: npt.NDArray[np.uint8] | None = None,
    ) -> Record:
        """Write one record, with its history and images where asked for, and return it.

        `distance` is said of its distances beside what every record says.
        `frames` are those of its sheet of rollouts, (clips, strips, frames, side, side).
        """
        run = Run.read(
            {
                "dataset": dataset,
                "content": hashlib.sha256(dataset.encode()).hexdigest(),
                "binarised": binarised(dataset),
                "split_seed": 0,
                "model": {"name": model} if isinstance(model, str) else model,
                "decoder": {"name": decoder} if isinstance(decoder, str) else decoder,
                "training": Training(**(training or {})),
                "evaluation": Evaluation(
                    **{"samples": 1000, "features": features, **(evaluation or {})}
                ),
                "seed": seed,
            }
        )
        folder = Store(self.folder).run_folder(run)
        record: Record = {
            "schema": SCHEMA,
            "id": run.id,
            "run": run.model_dump(mode="json"),
            "status": status,
            "metrics": {},
            "protocol": {"selection": dict(selection or {"rule": "by hand"})},
            "cost": {"seconds": 60.0, "images_per_second": 2000.0, "peak_memory_bytes": 2**30},
            "environment": {"commit": "c0ffee", "versions": {"torch": "2.6"}, "device": "a CPU"},
            "artifacts": {},
        }
        if status == "completed":
            record["metrics"] = dict(metrics or {"neg_log_p": -900.0 - seed, "sigma": 0.2})
            record["protocol"] |= protocol(run)
            if distance:
                record["protocol"]["distance"] |= distance
            record["curves"] = dict(curves or {})
        elif status == "diverged":
            record["divergence"] = {"step": 17, "what": "distortion", "last": {}}
        else:
            record["failure"] = {"type": "OutOfMemoryError", "message": "1 < 2"}
        if images:
            for name in ("samples", "reconstructions"):
                content = io.BytesIO()
                Image.new("RGB", (8, 8), (seed, 120, 40)).save(content, format="PNG")
                write_bytes(folder / "images" / f"{name}.png", content.getvalue())
                record["artifacts"][name] = f"images/{name}.png"
        if frames is not None:
            record["artifacts"]["rollouts"] = "images/rollouts.png"
            write_bytes(folder / "images" / "rollouts.png", sheet(frames))
        if losses:
            lines = [
                {
                    "epoch": epoch,
                    "loss": loss,
                    "distortion": loss - 20.0,
                    "rate": 20.0,
                    "sigma": 0.5 / (1 + epoch),
                }
                for epoch, loss in enumerate(losses)
            ]
            text = "".join(json.dumps(line) + "\n" for line in lines)
            write_bytes(folder / "history.jsonl", text.encode())
        write_checked(folder / "record.json", record)
        return record

    def add_search(self, runs: Sequence[Record], chosen: float | None, **changes: Any) -> Record:
        """Write the summary of a β search whose final runs are `runs`."""
        first = runs[0]["run"] if runs else self.add({"name": "beta", "beta": 1.0})["run"]
        search: Record = {
            "schema": SCHEMA,
            "id": f"{len(list(self.folder.glob('searches/*'))):016x}",
            "dataset": first["dataset"],
            "model": first["model"],
            "decoder": {**first["decoder"], "beta": 0.001},
            "option": "beta",
            "search": {
                "low": 0.001,
                "high": 10.0,
                "trials": 6,
                "objective": "neg_log_p",
                "seeds": [1000],
                "startup": 4,
                "sampler": "gp",
                "pruner": "none",
                "sampler_seed": 0,
            },
            "trials": [],
            "chosen": chosen,
            "runs": [run["id"] for run in runs],
            "cost": {"runs": 6, "seconds": 120.0},
            **changes,
        }
        write_checked(self.folder / "searches" / f"{search['id']}.json", search)
        return search

    def table(self, grid: str = "grid", expected: int | None = None) -> Table:
        store = Store(self.folder)
        return build(frame(store.records()), list(store.searches()), grid, expected)


PIXELS = {"svhn": 2352, "cifar10": 3072, "celeba": 3072}
"""Numbers in an image; all other data sets are MNIST's."""


def protocol(run: Run) -> dict[str, Any]:
    """What an evaluation of `run` says about itself."""
    stated: dict[str, Any] = {
        "likelihood": {
            "split": run.evaluation.split,
            "images": 1000,
            "dimensions": PIXELS.get(run.dataset, 784),
            "of": "probability" if is_discrete(run.decoder.name) else "density",
            "sigma": "frozen from the training split",
            "fitted_sigma_split": "validation",
            "fitted_sigma_images": 500,
            "precision": run.evaluation.precision,
        }
    }
    if chosen := run.evaluation.features:
        stated["distance"] = {
            "metric": chosen.metric,
            "extractor": chosen.name,
            "weights_sha256": chosen.sha256,
            "dimension": DIMENSIONS[chosen.name],
            "samples": run.evaluation.samples,
            "samples_are": "decoder means of prior draws, rounded to 8 bits",
            "real_images": 1000,
            "real_split": run.evaluation.split,
            "batch": run.evaluation.batch,
            "precision": "float32",
        }
    if run.model.is_sequence:
        past, future = run.model.options["past"], run.model.options["future"]
        scored = {"images": CLIPS, "dimensions": (past + future - 1) * SIDE**2}
        frames_are = "the first of each video but its very first, each given those before it"
        stated["likelihood"] |= {
            **scored,
            "frames": past + future - 1,
            "given": past,
            "frames_are": frames_are,
        }
        stated["prediction"] = {
            "rollouts": 10,
            "clips": CLIPS,
            "given": past,
            "predicted": future,
            "split": run.evaluation.split,
            "best": "for each measure its own rollout of a clip",
            "fed_back": "decoder means",
        }
    return stated


# -- videos ----------------------------------------------------------------------------------------

CLIPS, SIDE = 64, 16


class Film(SequenceModel):
    """A model of videos that nobody trains."""


CONSTANTS = ("honours_detached_outputs", "is_sequence", "sizes")
FILM = make_spec(ModelSpec, "film", from_class(Film, Configured, CONSTANTS))
"""The report knows a model by its name and its options."""


def sheet(frames: npt.NDArray[np.uint8]) -> bytes:
    """A PNG of frames (clips, strips, frames, side, side) as an evaluation writes it."""
    images = torch.from_numpy(frames.reshape(-1, 1, *frames.shape[-2:]))
    grid = make_grid(images, nrow=frames.shape[2], padding=1, pad_value=255)
    content = io.BytesIO()
    Image.fromarray(grid.permute(1, 2, 0).numpy()).save(content, format="PNG")
    return content.getvalue()


def squares(past: int, future: int, clips: int, drift: float) -> npt.NDArray[np.uint8]:
    """A sheet's frames: a square that moves, and rollouts that leave its path by `drift`."""
    frames = np.zeros((clips, 4, past + future, SIDE, SIDE), np.uint8)
    for clip, strip, time in np.ndindex(frames.shape[:3]):
        ahead = max(0, time + 1 - past)
        errors = {0: [0.0], 1: [0.3], 2: [1.0], 3: [0.3, -0.5, 1.0]}[strip]
        for error in errors:
            top = round(time + drift * error * ahead) % (SIDE - 4)
            left = (2 * clip + time // 2) % (SIDE - 4)
            frames[clip, strip, time, top : top + 4, left : left + 4] += 255 // len(errors)
    return frames


def add_videos(results: Results, *, past: int = 3, future: int = 5, seeds: int = 3) -> Results:
    """Fill `results` with four decoders on videos, one of which knows its uncertainty."""
    ages = np.arange(1, future + 1)
    for decoder, worth, drift in (
        ("gaussian", 2.0, 1.0),
        ("shared", 1.0, 0.4),
        ("optimal", 1.01, 0.5),
        ("categorical", 1.5, 0.2),
    ):
        for seed in range(seeds):
            noise = 1 + 0.02 * (seed - 1)
            crps = 0.01 * worth * noise * np.sqrt(ages)
            error = 0.02 * worth * noise * ages
            likeness = 1 - 0.05 * worth * noise * np.sqrt(ages)
            frames = np.arange(1, past + future)
            rate = worth * noise * np.exp(-frames / 4)
            bent = 1 + 0.1 * worth * np.cos(np.linspace(0, 2 * np.pi, 20))
            results.add(
                decoder,
                seed=seed,
                dataset="smmnist5k",
                model={"name": "film", "past": past, "future": future},
                metrics={
                    "neg_log_p": 1000 * worth * noise,
                    "neg_log_p_per_frame": 1000 * worth * noise / len(frames),
                    "rate": float(rate.sum()),
                    "prediction_crps": float(crps.mean()),
                    "prediction_calibration_error": float(error.mean()),
                    "prediction_calibration_error_first": float(error[0]),
                    "prediction_calibration_error_last": float(error[-1]),
                    "ssim_best_10": float(likeness.mean()),
                },
                losses=[30.0 * worth, 20.0 * worth + seed, 15.0 * worth],
                curves={
                    "by_frame": {
                        "frame": frames.tolist(),
                        "rate": rate.tolist(),
                        "neg_log_p": (1000 * worth * noise / frames).tolist(),
                    },
                    "by_horizon": {
                        "horizon": ages.tolist(),
                        "crps": crps.tolist(),
                        "calibration_error": error.tolist(),
                        "ssim_best": likeness.tolist(),
                        "ssim_mean": (0.9 * likeness).tolist(),
                        "ssim_copy": (0.8 / ages).tolist(),
                        "fd": (40 * worth * noise * ages).tolist(),
                    },
                    "prediction_pit": {"first": bent.tolist(), "last": (2 - bent).tolist()},
                },
                frames=squares(past, future, 2, drift + 0.1 * seed),
            )
    return results


@pytest.fixture
def videos(results: Results, monkeypatch: pytest.MonkeyPatch) -> Results:
    """A results folder of runs on videos, and a model of that kind."""
    monkeypatch.setitem(MODELS, "film", FILM)
    return add_videos(results)


# -- images ----------------------------------------------------------------------------------------


# What each decoder is worth on the second data set, less 300 nats a seed's noise; -log p, bits/dim,
# distance, calibration error.
WORTH = {
    "mse": (None, None, 180.0, None),
    "gaussian": (740.5, 4.1, 90.0, 0.31),
    "per_pixel": (-2100.0, 1.9, 60.0, 0.12),
    "shared": (-896.1, 1.6, 22.25, 0.041),
    "optimal": (-895.7, 1.6, 23.0, 0.043),
    "categorical": (1210.0, 1.5, 30.0, 0.012),
}


def realistic(results: Results) -> Results:
    """Fill `results` with two data sets, seven decoders (one β tuned), three seeds, two lost."""
    rng = np.random.default_rng(0)

    def metrics(worth: Sequence[float | None], shift: float, seed: int) -> dict[str, float]:
        noise = 1 + 0.002 * (seed - 1) + 0.001 * rng.standard_normal()
        names = ("neg_log_p", "bits_per_dim", "fd_efficientnet_lite0", "calibration_error")
        known = {
            name: value * noise + (shift if name == "neg_log_p" else 0.0)
            for name, value in zip(names, worth, strict=True)
            if value is not None
        }
        bound = {"iwae_64": -known["neg_log_p"] + 21.0} if "neg_log_p" in known else {}
        rest = {"mse": 0.005 * noise, "sigma": 0.07 * noise, "rate": 64.0 * noise}
        return {**known, **bound, **rest, "distortion": 100.0 * noise}

    coverage = {"nominal": [0.25, 0.5, 0.75], "observed": [0.2, 0.46, 0.72]}
    for dataset, shift in (("mnist5k", 0.0), ("fashion_mnist", 310.0)):
        common: dict[str, Any] = {"dataset": dataset, "images": True}
        common["curves"] = {"coverage": coverage, "pit": [1.0] * 20}
        for decoder, worth in WORTH.items():
            losses = [600.0, 120.0, 40.0] if worth[0] is not None else []
            for seed in range(3):
                lost = decoder == "per_pixel" and seed == 2
                results.add(
                    decoder,
                    seed=seed,
                    status="diverged" if lost else "completed",
                    metrics=metrics(worth, shift, seed),
                    losses=[loss + seed + shift for loss in losses],
                    **common,
                )
        chosen = 0.0123 if shift else 0.0096
        finals = [
            results.add(
                {"name": "beta", "beta": chosen},
                seed=seed,
                metrics=metrics((-890.0, 1.63, 26.0, 0.05), shift, seed),
                losses=[580.0 + shift, 130.0 + shift, 45.0 + shift],
                selection={"rule": "tuned", "search": "0" * 16},
                **common,
            )
            for seed in range(3)
        ]
        results.add_search(finals, chosen)
    return results


@pytest.fixture(scope="session")
def new_results(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Results]:
    """Makes an empty results folder at every call."""
    return lambda: Results(tmp_path_factory.mktemp("results") / "grid")


@pytest.fixture
def results(new_results: Callable[[], Results]) -> Results:
    return new_results()


@pytest.fixture(scope="session")
def inception() -> Features:
    """The protocol's entry of a network whose distance is FID."""
    return INCEPTION
