"""What a record says of a balance: its weight, its β, and that scores are the ELBO's."""

from collections.abc import Callable
from pathlib import Path

import pytest

from bench import data
from bench.evaluation.context import Evaluated
from bench.evaluation.evaluate import evaluate
from bench.grid.expand import Row
from bench.training.train import train
from tests.specs import balance_spec

Measured = Callable[..., tuple[Evaluated, list[dict[str, float]]]]


@pytest.fixture
def measured(expand: Callable[..., list[Row]], tiny: Path, tmp_path: Path) -> Measured:
    """The measures and the history of a short training of a fixed Gaussian, σ² = β/2 = 0.05."""

    def measure(name: str, **options: float) -> tuple[Evaluated, list[dict[str, float]]]:
        dataset = data.load(f"npz:{tiny}")
        plain = expand(decoders=[{"name": "beta", "beta": 0.1}])[0].runs[0]
        run = plain.model_copy(update={"balance": balance_spec(name, **options)})
        trained = train(run, dataset.train, tmp_path / name)
        return evaluate(run, trained, dataset, None), trained.history

    return measure


def test_under_the_elbo_a_record_says_nothing_of_a_balance(measured: Measured) -> None:
    found, _ = measured("elbo")
    assert found.metrics["beta_effective"] == pytest.approx(0.1)
    assert "balance_weight" not in found.metrics
    assert "balance" not in found.protocol


def test_a_weight_of_lambda_on_a_fixed_gaussian_has_a_beta_of_lambda_beta(
    measured: Measured,
) -> None:
    found, history = measured("control", goal=5)
    weight = history[-1]["weight"]
    assert 0 < weight < 1
    assert found.metrics["balance_weight"] == weight
    assert found.metrics["beta_effective"] == pytest.approx(0.1 * weight)
    assert found.protocol["balance"]["rule"] == "control"
    assert found.protocol["balance"]["fixes"] == "the rate"
    assert found.protocol["balance"]["last_steps_descend"] == "a weighted rate"
    parts = found.metrics["distortion"] + found.metrics["rate"]
    assert found.metrics["neg_log_p"] == pytest.approx(parts)


def test_after_a_warm_up_the_objective_is_the_elbo(measured: Measured) -> None:
    found, _ = measured("warm_up", share=0.5)
    assert found.metrics["balance_weight"] == 1
    assert found.metrics["beta_effective"] == pytest.approx(0.1)
    assert found.protocol["balance"]["last_steps_descend"] == "the negative ELBO"


def test_free_bits_have_a_weight_and_no_beta(measured: Measured) -> None:
    """The floor is above any rate here, so no part was weighed."""
    found, _ = measured("free_bits", floor=1000)
    assert found.metrics["balance_weight"] == 0
    assert "beta_effective" not in found.metrics
