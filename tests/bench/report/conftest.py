"""A results folder with records that nobody trained: the report reads records and nothing else."""

import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bench.files import write_bytes
from bench.grid import SCHEMA, Evaluation, Features, Run, Training
from bench.records import Record, Store, frame, write_checked
from bench.report import Table, build

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
        images: bool = False,
    ) -> Record:
        """Write one record, with its history and images where asked for, and return it."""
        run = Run.read(
            {
                "dataset": dataset,
                "content": hashlib.sha256(dataset.encode()).hexdigest(),
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
        folder = self.folder / "runs" / run.id
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
        if losses:
            lines = [
                {"epoch": epoch, "loss": loss, "sigma": 0.5 / (1 + epoch)}
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


def protocol(run: Run) -> dict[str, Any]:
    """What an evaluation of `run` says about itself."""
    stated: dict[str, Any] = {
        "likelihood": {
            "split": run.evaluation.split,
            "images": 1000,
            "sigma": "frozen from the training split",
            "fitted_sigma_images": 3500,
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
    return stated


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
