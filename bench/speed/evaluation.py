"""Measuring a trained run: its time by part, and a plain evaluation as tutorials write it."""

import copy
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import torch
from torch import Tensor

from bench import data
from bench.data import Dataset
from bench.evaluation.evaluate import evaluate
from bench.evaluation.features.base import Extractor, build
from bench.processor import threads
from bench.run import EvaluationSettings, Run
from bench.speed import peer
from bench.speed.grids import run_of_quick
from bench.speed.pairs import Arm, Finding, Pairs, alternate
from bench.speed.plain import Plain
from bench.speed.setting import Setting
from bench.training.checkpoint import Trained
from bench.training.train import train

OURS = "all that a run of `quick` measures"


@dataclass
class Measured:
    """A trained run of `quick` and its data, measured again and again.

    `feature_seconds` is the time in the feature network since it was last set to 0.
    """

    setting: Setting
    run: Run
    trained: Trained
    dataset: Dataset
    extractor: Extractor | None = None
    feature_seconds: float = field(default=0.0)

    @classmethod
    def of(cls, setting: Setting, run: Run) -> "Measured":
        loaded = data.load(run.place, run.split_seed)
        parts = (loaded.train, loaded.validation, loaded.test)
        dataset = Dataset(loaded.description, *(part.to(setting.device) for part in parts))
        with tempfile.TemporaryDirectory(dir=setting.folder) as folder:
            trained = train(run, dataset.train, Path(folder))
        chosen = run.evaluation.features
        found = cls(setting, run, trained, dataset)
        if chosen is not None:
            extractor = build(chosen, setting.device)

            def network(images: Tensor) -> Tensor:
                setting.wait()
                start = perf_counter()
                taken = extractor.network(images)
                setting.wait()
                found.feature_seconds += perf_counter() - start
                return taken

            found.extractor = replace(extractor, network=network)
        return found

    def arm(self, **changes: object) -> Arm:
        """Measuring it all, but for changed settings of its evaluation."""
        run = self.run.model_copy(
            update={"evaluation": self.run.evaluation.model_copy(update=changes)}
        )
        extractor = self.extractor if run.evaluation.samples else None

        def measure() -> None:
            evaluate(run, self.trained, self.dataset, extractor)

        return self.setting.timed(measure)


def evaluation(setting: Setting) -> Iterator[Finding]:
    """Row `evaluation`: with one thread, the features of real images being cached."""
    with threads(1):
        size = setting.size
        run = run_of_quick(setting, size.run_images, size.samples, epochs=1)
        measured = Measured.of(setting, run)
        whole = measured.arm()
        once = whole()  # it takes the features of the real images, which are then in the cache
        asked: EvaluationSettings = run.evaluation
        parts = {"samples": 0, "features": None, "distances": ()}
        arms = {"likelihoods": measured.arm(**parts, iwae=0), "bounds": measured.arm(**parts)}
        taken = {name: [arm() for _ in range(setting.repeats)] for name, arm in arms.items()}
        likelihoods, bounds = (median(times) for times in taken.values())
        measured.feature_seconds = 0.0
        pairs, theirs = _compared(measured, whole)
    seconds = median(pairs.ours)
    in_features = measured.feature_seconds / len(pairs.ours)
    split = {
        "likelihoods": likelihoods,
        f"bound_of_{asked.iwae}_draws": max(0.0, bounds - likelihoods),
        "features": in_features,
        "samples_and_distances": max(0.0, seconds - in_features - bounds),
    }
    images = len(measured.dataset.test)
    told = ", ".join(f"{name.replace('_', ' ')} {took:.2f} s" for name, took in split.items())
    yield Finding(
        "evaluation",
        f"{theirs}; {images} test images, {asked.samples} samples, one thread",
        pairs if pairs.baseline else None,
        {
            "seconds": seconds,
            **{f"seconds_of_{name}": took for name, took in split.items()},
            "seconds_once_a_grid": max(0.0, once - seconds),
            "images_per_second": images / seconds,
        },
        f"{seconds:.2f} s: {told}; {images / seconds:.0f} test images a second; the features of "
        f"real images take {max(0.0, once - seconds):.1f} s once a grid",
    )


def _compared(measured: Measured, whole: Arm) -> tuple[Pairs, str]:
    """The times of both sides and what they are; of ours alone where the other cannot be had."""
    setting, chosen = measured.setting, measured.run.evaluation.features
    why = "no feature network is here"
    network = None
    if chosen is not None:
        network = peer.Network.find(chosen.name, setting.device, setting.folder)
        why = f"no other library has {chosen.name}"
        if not peer.runs():
            network, why = None, peer.CANNOT_RUN
    if network is None:
        alone = Pairs((), tuple(whole() for _ in range(setting.repeats)))
        return alone, f"{OURS}; no usual way beside it: {why}"
    usual = setting.timed(Usual(measured, network).measure)
    return alternate(usual, whole, setting.repeats), (
        "ELBO by a DataLoader of PIL images in float32, samples as PNG files, pytorch-fid's "
        f"distance to saved statistics / {OURS}, which is more: bits, a bound, calibration, "
        "information, further distances"
    )


class Usual:
    """The ELBO of the test images and the Fréchet distance of samples, as tutorials have them."""

    def __init__(self, measured: Measured, network: peer.Network) -> None:
        self.setting, self.network = measured.setting, network
        self.samples = measured.run.evaluation.samples
        vae = copy.deepcopy(measured.trained.vae).to(memory_format=torch.contiguous_format)
        self.plain = Plain(vae.eval(), measured.trained.state, self.setting.device)
        self.test = measured.dataset.test
        self.real = self._moments(self.test.cpu(), "real")

    def measure(self) -> tuple[float, float]:
        """The ELBO in nats, and the distance."""
        elbo = self.plain.elbo(self.test, peer.BATCH)
        made = self._moments(self.plain.samples(self.samples, peer.BATCH), "samples")
        return elbo, peer.distance(*made, *self.real)

    def _moments(self, images: Tensor, folder: str) -> tuple[np.ndarray, np.ndarray]:
        paths = peer.write(images, self.setting.folder / f"usual-{folder}")
        features = self.network.activations(paths)
        return features.mean(0), np.cov(features, rowvar=False)
