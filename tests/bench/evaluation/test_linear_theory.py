"""The linear theory of a run's data, where the covariance is known."""

import math

import pytest
import torch
from torch import Tensor

from baselines.build import build_decoder, build_model
from baselines.vae import Vae
from bench.data import Dataset
from bench.data.dataset import Description
from bench.evaluation import linear_theory
from bench.evaluation.context import Evaluated, EvaluationContext
from bench.evaluation.scorer import Scorer
from bench.run import Evaluation, Run, Training
from tests.specs import decoder_spec, model_spec

SIDE = 16


def crossed() -> Tensor:
    """Images of two orthogonal patterns, with amplitudes of ±51 and ±13 levels around 128."""
    strong = torch.ones(SIDE, SIDE, dtype=torch.int64)
    weak = torch.ones(SIDE, SIDE, dtype=torch.int64)
    weak[:, SIDE // 2 :] = -1
    images = [128 + a * 51 * strong + b * 13 * weak for a in (-1, 1) for b in (-1, 1)]
    return torch.stack(images)[:, None].to(torch.uint8).repeat(5, 1, 1, 1)


LAMBDAS = (SIDE**2 * (51 / 255) ** 2, SIDE**2 * (13 / 255) ** 2)


def measured(
    images: Tensor,
    decoder: str = "gaussian",
    model: str = "linear_vae",
    variance: float = 0.1,
    split: str = "test",
    **options: object,
) -> Evaluated:
    chosen, law = model_spec(model, **options), build_decoder(decoder_spec(decoder))
    built = build_model(chosen, channels=1, resolution=SIDE, outputs=law.outputs)
    vae = Vae(built, law).eval()
    run = Run(
        dataset="made",
        content="0" * 64,
        split_seed=0,
        model=chosen,
        decoder=decoder_spec(decoder),
        training=Training(),
        evaluation=Evaluation(split=split),
        seed=0,
    )
    made = Description("made", "0" * 64, 1, SIDE, *3 * (len(images),))
    scorer = Scorer(vae, vae.initial_state(), torch.float32)
    dataset = Dataset(made, images, images[:2], images[:2])
    scores = {"variance": torch.full((2,), variance, dtype=torch.float64)}
    return linear_theory.summarise(EvaluationContext(run, scorer, dataset, None), scores)


def test_the_rate_and_the_collapse_of_two_known_directions() -> None:
    for variance, used in ((0.1, 2), (3.0, 1), (11.0, 0)):
        metrics, protocol, curves = measured(crossed(), variance=variance, latent=2)
        expected = sum(0.5 * math.log(one / variance) for one in LAMBDAS[:used])
        assert metrics["linear_rate"] == pytest.approx(expected, abs=1e-9)
        assert metrics["collapse_beta"] == pytest.approx(2 * LAMBDAS[0])
        assert curves["spectrum"] == pytest.approx(list(LAMBDAS))
        assert protocol["linear_theory"]["images"] == 20


def test_so_many_latents_use_so_many_directions() -> None:
    metrics, _, curves = measured(crossed(), latent=1)
    assert metrics["linear_rate"] == pytest.approx(0.5 * math.log(LAMBDAS[0] / 0.1))
    assert len(curves["spectrum"]) == 1


@pytest.mark.parametrize("decoder", ["bernoulli", "categorical"])
def test_what_has_no_sigma_has_no_rate_of_it(decoder: str) -> None:
    assert measured(crossed(), decoder=decoder).metrics.keys() == {"collapse_beta"}


@pytest.mark.parametrize(
    "setting",
    [
        {"model": "hierarchical", "groups": "1@1 1@4"},
        {"latent": linear_theory.MOST_LATENTS + 1},
        {"split": "validation"},
    ],
)
def test_hierarchies_wide_codes_and_trials_have_none(setting: dict[str, object]) -> None:
    assert measured(crossed(), **setting) == Evaluated({}, {}, {})  # type: ignore[arg-type]


def test_images_that_are_all_equal_have_no_covariance() -> None:
    assert measured(torch.full((9, 1, SIDE, SIDE), 7, dtype=torch.uint8)).metrics == {}
