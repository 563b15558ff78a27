"""What a run needs besides code is sent by its hash and checked on arrival."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bench.errors import RequestError
from bench.execution.chains import BY_HAND
from bench.execution.messages import Task
from bench.execution.supplies import Supply, needed, relocated
from bench.grid.expand import Row
from bench.run import Features, Run

Expand = Callable[..., list[Row]]


@pytest.fixture
def weights(tmp_path: Path) -> Supply:
    path = tmp_path / "network.pt"
    path.write_bytes(b"weights of a network")
    return Supply("weights", hashlib.sha256(path.read_bytes()).hexdigest(), str(path))


@pytest.fixture
def task(expand: Expand, weights: Supply) -> Task:
    """A task whose measures need a network."""
    (run,) = expand(decoders=["gaussian"])[0].runs
    network = Features(
        name="torchscript", metric="fd_own", sha256=weights.sha256, source=weights.name
    )
    evaluation = run.evaluation.model_copy(update={"samples": 10, "features": network})
    return Task(Run.model_copy(run, update={"evaluation": evaluation}), BY_HAND)


def test_weights_are_used_from_the_cache_of_the_machine_that_got_them(
    task: Task, weights: Supply, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, validation = weights.content()
    assert needed(task)[1] == weights
    monkeypatch.setenv("SIGMA_BENCH_CACHE", str(tmp_path / "another cache"))
    Path(weights.name).unlink()
    there = Supply(**json.loads(json.dumps(weights.dump())))
    assert not there.here()
    there.keep(content, validation)
    assert there.here()
    features = Task.read(relocated(task.dump())).run.evaluation.features
    assert features is not None
    assert Path(features.source).read_bytes() == b"weights of a network"
    assert Path(features.source).is_relative_to(tmp_path / "another cache")
    assert Task.read(relocated(task.dump())).run.id == task.run.id


def test_damaged_weights_are_not_kept(
    weights: Supply, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGMA_BENCH_CACHE", str(tmp_path / "another cache"))
    with pytest.raises(RequestError, match="damaged on their way"):
        weights.keep([np.frombuffer(b"weights of a netw0rk", np.uint8)], 0)
    assert not weights.here()


def test_weights_that_changed_are_not_sent(weights: Supply) -> None:
    Path(weights.name).write_bytes(b"others")
    with pytest.raises(RequestError, match=r"network\.pt changed while the grid ran"):
        weights.content()
    Path(weights.name).unlink()
    with pytest.raises(RequestError, match=r"network\.pt: No such file"):
        weights.content()
