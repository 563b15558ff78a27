"""Distances of samples at other temperatures, where the best temperature is known."""

import pytest
import torch
from torch import Tensor, nn

from baselines.build import build_decoder, build_model
from baselines.vae import Vae
from bench.data import Dataset
from bench.data.dataset import Description
from bench.evaluation import sample_quality
from bench.evaluation.context import Evaluated, EvaluationContext
from bench.evaluation.features.base import Extractor
from bench.evaluation.scorer import Scorer
from bench.run import Evaluation, Features, Run, Training
from tests.specs import decoder_spec, model_spec

SIDE, COUNT = 4, 4000
REAL, MADE = 0.07, 0.1
"""The spread of the halves' brightness, of real images and of samples at temperature 1."""

FEATURES = Features(name="torchscript", metric="fd_halves", sha256="0" * 64)


def halves(numbers: Tensor) -> Tensor:
    """Images (B, 1, SIDE, SIDE) whose upper and lower halves have a brightness each."""
    return numbers.repeat_interleave(SIDE**2 // 2, dim=1).view(-1, 1, SIDE, SIDE)


def measured(**evaluation: object) -> Evaluated:
    decoder = build_decoder(decoder_spec("gaussian", link="identity"))
    model = build_model(model_spec("linear_vae", latent=2), channels=1, resolution=SIDE, outputs=1)
    with torch.no_grad():
        nn.init.constant_(model.get_parameter("output.bias"), 0.5)
        weight = torch.stack([halves(MADE * row[None]).flatten() for row in torch.eye(2)], dim=1)
        model.get_parameter("output.weight").copy_(weight)
    rng = torch.Generator().manual_seed(0)
    images = halves(0.5 + REAL * torch.randn(COUNT, 2, generator=rng))
    images = images.clamp(0, 1).mul(255).round().to(torch.uint8)
    run = Run(
        dataset="made",
        content="0" * 64,
        split_seed=0,
        model=model_spec("linear_vae", latent=2),
        decoder=decoder_spec("gaussian"),
        training=Training(),
        evaluation=Evaluation(samples=COUNT, features=FEATURES, distances=("means",), **evaluation),
        seed=0,
    )

    def network(pixels: Tensor) -> Tensor:
        return pixels[:, 0, [0, -1], 0].float() / 255

    made = Description("made", "0" * 64, 1, SIDE, *3 * (COUNT,))
    dataset = Dataset(made, images, images, images)
    extractor = Extractor(FEATURES, network, torch.device("cpu"))
    scorer = Scorer(Vae(model, decoder), {}, torch.float32)
    return sample_quality.summarise(EvaluationContext(run, scorer, dataset, extractor), {})


def test_the_distance_is_that_of_the_narrowed_gaussian_and_vanishes_at_the_true_spread() -> None:
    """2 (t · MADE - REAL)², for Gaussians of equal means and independent halves."""
    metrics, protocol, _ = measured(temperatures=(0.4, 0.7, 2.0))
    for t, name in ((0.4, "_t0.4"), (1.0, ""), (2.0, "_t2")):
        expected = 2 * (t * MADE - REAL) ** 2
        assert metrics[f"fd_halves{name}"] == pytest.approx(expected, rel=0.2)
    assert metrics["fd_halves_t0.7"] < 0.03 * metrics["fd_halves"]
    assert protocol["distance"]["temperatures"] == [0.4, 0.7, 2.0]
    assert "times t" in protocol["distance"]["tempered_are"]


def test_without_any_all_other_numbers_and_the_protocol_are_as_they_were() -> None:
    warm, plain = measured(temperatures=(0.7,)), measured()
    assert plain.metrics == {k: v for k, v in warm.metrics.items() if k != "fd_halves_t0.7"}
    own = {"temperatures", "tempered_are"}
    section = warm.protocol["distance"]
    assert plain.protocol["distance"] == {k: v for k, v in section.items() if k not in own}
    assert own <= section.keys()
