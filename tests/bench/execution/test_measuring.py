"""How far the measures of a run are, counted from outside."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import nn

from bench.evaluation.features.base import Extractor
from bench.evaluation.rollouts import Rollouts, measured
from bench.evaluation.scorer import Scorer
from bench.execution import measuring
from bench.execution.listeners import Listener
from bench.execution.measuring import Meter
from bench.execution.schedule import execute
from bench.grid.expand import Row
from bench.records.store import Store
from bench.run import Features, Run
from tests.sequences import FUTURE, PAST, clips, gaussian, run_of, walk


def test_images_are_counted_and_the_features_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "EVERY", 0)
    told: list[str] = []
    meter = Meter(told.append, real=40, made=25)
    decoder = nn.Identity()
    with meter.watching(decoder):
        decoder(torch.zeros(3, 1, 4, 4))
        decoder(torch.zeros(5, 3, 1, 4, 4))  # five draws for each of three images
    decoder(torch.zeros(3, 1, 4, 4))
    assert told == ["likelihoods, 3 images decoded", "likelihoods, 18 images decoded"]
    told.clear()
    features = Features(name="f", metric="fd_f", sha256="0")
    extractor = Extractor(features, lambda images: images.flatten(1), torch.device("cpu"))
    images = torch.randint(0, 256, (10, 3, 2, 2), dtype=torch.uint8)
    assert torch.equal(meter.counted(extractor)(images), extractor(images))
    assert told[-1] == "features of 10 images, at most 65"


def test_a_worker_tells_that_it_measures(expand: Callable[..., list[Row]], tmp_path: Path) -> None:
    told: list[tuple[str, str]] = []

    class Noting(Listener):
        def measuring(self, run: Run, how_far: str) -> None:
            told.append((run.id, how_far))

    rows, store = expand(decoders=["gaussian"]), Store.open(tmp_path, "small")
    console = Console(file=io.StringIO())
    assert execute(rows, store, "small", ["cpu"], 1, console, [Noting()]).well
    assert {identity for identity, _ in told} == {rows[0].runs[0].id}
    assert told[0][1].startswith("likelihoods, ")


def test_frames_are_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame that is fed back is decoded alone, and again with its video."""
    monkeypatch.setattr(measuring, "EVERY", 0)
    told: list[str] = []
    spec = gaussian(0.1)
    vae = walk(spec)
    run = run_of(spec, samples=4, temperatures=(0.5,))
    meter = Meter.of(told.append, run, vae.model, 6)
    # Of four clips means, draws, reconstructions and means at another temperature, and of four of
    # training the true frames.
    assert meter.most == 6 * FUTURE + 4 * FUTURE + 4 * 4 * FUTURE
    scorer = Scorer(vae, vae.initial_state(), torch.float32)
    with meter.watching(vae.decoder):
        measured(Rollouts(scorer, clips(6), 0), 2, mass=False)
    assert told[-1] == f"likelihoods and rollouts, {6 * 2 * FUTURE} frames decoded"
    features = Features(name="f", metric="fd_f", sha256="0")
    extractor = Extractor(features, lambda images: images.flatten(1), torch.device("cpu"))
    meter.counted(extractor)(clips(5))
    assert told[-1] == f"features of {5 * (PAST + FUTURE)} frames, at most {meter.most}"
    with meter.watching(vae.decoder):
        measured(Rollouts(scorer, clips(1), 0), 1, mass=False)
    assert "rollouts" in told[-1]


def test_frames_of_a_longer_horizon_are_real_ones_of_other_places() -> None:
    spec = gaussian(0.1)
    run = run_of(spec, samples=4, distances=("means", "reconstructions"))
    meter = Meter.of(lambda how_far: None, run, walk(spec, horizon=7).model, 6)
    assert meter.most == 6 * (7 + FUTURE) + 4 * 7 + 4 * (7 + FUTURE)
    evaluation = run.evaluation.model_copy(update={"split": "validation"})
    trial = run.model_copy(update={"evaluation": evaluation})
    meter = Meter.of(lambda how_far: None, trial, walk(spec, horizon=7).model, 6)
    assert meter.most == 6 * (7 + FUTURE) + 4 * (7 + FUTURE)
