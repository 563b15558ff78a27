"""A balance in a run: its part in the record and in the id, and one of the user's own."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from bench import data, plugins
from bench.errors import RequestError
from bench.grid.expand import Row
from bench.run import Run
from bench.training.train import train
from tests.readme import README
from tests.specs import balance_spec

Expand = Callable[..., list[Row]]

DOCUMENTED = (README.parent / "docs" / "balances.md").read_text()
OWN = DOCUMENTED.split("```python\n")[1].split("```")[0]
"""The documentation's example."""


@pytest.fixture
def own(tmp_path: Path, expand: Expand) -> Run:
    """A run under the elbo, after whose grid was read the balance is known."""
    run = expand(training={"steps": 60, "batch": 70, "lr": 0.003})[0].runs[0]
    path = tmp_path / "own.py"
    path.write_text(OWN)
    plugins.load(path)
    return run


def test_the_elbo_is_in_no_record_and_moves_no_id(expand: Expand) -> None:
    run = expand()[0].runs[0]
    assert "balance" not in run.model_dump()
    assert run.model_copy(update={"balance": balance_spec("elbo")}).id == run.id
    assert Run.read(json.loads(run.model_dump_json())).balance.name == "elbo"


def test_a_balance_of_the_users_own_is_another_experiment(own: Run) -> None:
    run = own.model_copy(update={"balance": balance_spec("constant", value=2.0)})
    fields = json.loads(run.model_dump_json())
    assert fields["balance"] == {"name": "constant", "value": 2.0}
    assert fields["plugins"] == {"balance": run.balance.source}
    assert run.id != own.id
    assert Run.read(fields).id == pickle.loads(pickle.dumps(run)).id == run.id
    plugins.forget()
    with pytest.raises(RequestError, match="the balance 'constant' of this run is not here"):
        Run.read(fields)


def test_it_weighs_the_rate_in_training(own: Run, tiny: Path, tmp_path: Path) -> None:
    """A weight of 1 trains as the ELBO does; under a heavy one the rate is paid less."""
    images = data.load(f"npz:{tiny}").train
    last = []
    for value in (1.0, 50.0):
        run = own.model_copy(update={"balance": balance_spec("constant", value=value)})
        trained = train(run, images, tmp_path / str(value))
        assert trained.state["balance.step"] == trained.state["balance.total"] == 60
        last.append(trained.history[-1]["rate"])
    unweighted = train(own, images, tmp_path / "plain")
    assert last[0] == pytest.approx(unweighted.history[-1]["rate"], rel=1e-3)
    assert last[1] < last[0] / 2
