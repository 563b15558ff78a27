"""All measures of one run: numbers by name, the protocol that they were taken under, and curves."""

from collections.abc import Mapping
from importlib import import_module
from typing import Protocol, cast, get_args

import torch
from torch import Tensor

from bench.data import Dataset
from bench.evaluation.context import Evaluated, EvaluationContext, Scores
from bench.evaluation.features.base import Extractor
from bench.evaluation.features.video import VideoExtractor
from bench.evaluation.scorer import POSTERIOR, Measure, Scorer, score
from bench.metric import Home
from bench.run import Run
from bench.training.checkpoint import Trained


class Measuring(Protocol):
    """A module that computes metrics: what it keeps of each image, and what it makes of that."""

    def measures(self, context: EvaluationContext) -> Mapping[str, Measure]: ...
    def summarise(self, context: EvaluationContext, scores: Scores) -> Evaluated: ...


MODULES = [cast(Measuring, import_module(f"bench.evaluation.{home}")) for home in get_args(Home)]
"""The homes of the catalogue's metrics, in the order of their metrics in a record."""


def evaluate(
    run: Run,
    trained: Trained,
    dataset: Dataset,
    extractor: Extractor | None,
    videos: VideoExtractor | None = None,
    others: Mapping[str, Tensor] | None = None,
) -> Evaluated:
    """Measure a trained run on its split; what its decoder or model does not have is absent.

    Arguments:
        dataset: 8-bit images on the device of the model.
        extractor: the feature network of the run's protocol, or None where it has none.
        videos: that of whole videos, where the run has one.
        others: the 8-bit test images of the run's `evaluation.ood`, by the name of their measure.
    """
    if run.binarised == "resampled":
        dataset = dataset.drawn_once()
    scorer = Scorer(trained.vae.eval(), trained.state, getattr(torch, run.evaluation.precision))
    context = EvaluationContext(
        run,
        scorer,
        dataset,
        extractor,
        videos,
        others=others or {},
        weight=trained.history[-1].get("weight") if trained.history else None,
    )
    measures = {name: of for module in MODULES for name, of in module.measures(context).items()}
    generators = context.generators.values()
    scores = score(
        scorer,
        context.images,
        run.seed,
        POSTERIOR,
        measures,
        *generators,
        dither=context.dither(),
    )
    whole = Evaluated({}, {}, {})
    for module in MODULES:
        part = module.summarise(context, scores)
        whole.metrics.update(part.metrics)
        for name, curve in part.curves.items():
            known = whole.curves.get(name)
            # Two modules may each have curves over the same horizon.
            whole.curves[name] = {**known, **curve} if isinstance(known, dict) else curve
        for section, fields in part.protocol.items():
            whole.protocol.setdefault(section, {}).update(fields)
    return whole
