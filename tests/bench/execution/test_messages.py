"""Tasks and messages survive the way through JSON."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.errors import RequestError
from bench.execution.messages import Message, Task
from bench.run import Run

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
positive = st.floats(1e-300, 1e300)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
)
sha256 = st.text("0123456789abcdef", min_size=64, max_size=64)
precisions = st.sampled_from(["float32", "bfloat16"])

decoders = st.one_of(
    st.fixed_dictionaries({"name": st.just("beta"), "beta": positive}),
    st.fixed_dictionaries({"name": st.just("shared"), "initial_log_sigma": st.floats(-9, 9)}),
    st.fixed_dictionaries(
        {"name": st.just("optimal"), "over": st.sampled_from(["batch", "pixel"])}
    ),
    st.sampled_from([{"name": "gaussian"}, {"name": "bernoulli"}, {"name": "categorical"}]),
)
models = st.fixed_dictionaries(
    {"name": st.just("conv_vae"), "width": st.integers(1, 99), "latent": st.integers(1, 99)}
)
features = st.none() | st.fixed_dictionaries(
    {"name": st.just("inception"), "metric": text, "sha256": sha256, "source": text}
)
runs = st.fixed_dictionaries(
    {
        "dataset": text,
        "content": sha256,
        "model": models,
        "decoder": decoders,
        "seed": st.integers(0, 2**63),
        "split_seed": st.integers(0, 2**63),
        "training": st.fixed_dictionaries(
            {"epochs": st.integers(1, 999), "lr": positive, "precision": precisions}
        ),
        "evaluation": st.fixed_dictionaries(
            {
                "split": st.sampled_from(["validation", "test"]),
                "samples": st.just(0) | st.integers(3, 10**6),
                "features": features,
                "fvd": features,
                "distances": st.sampled_from([(), ("means",), ("sampled", "reconstructions")]),
                "precision": precisions,
            }
        ),
    }
).map(Run.read)
tasks = st.builds(Task, runs, st.dictionaries(text, values, max_size=3), st.integers(1, 10**6))


def through_json(fields: dict[str, Any]) -> dict[str, Any]:
    back: dict[str, Any] = json.loads(json.dumps(fields, allow_nan=False))
    return back


@given(tasks)
def test_a_task_comes_back_equal(task: Task) -> None:
    back = Task.read(through_json(task.dump()))
    assert back == task
    assert back.run.id == task.run.id
    # The paths of the weights are in no id, and the worker needs them.
    assert back.run.evaluation.features == task.run.evaluation.features
    assert back.run.evaluation.fvd == task.run.evaluation.fvd


@given(tasks, st.sampled_from(["epoch", "measuring", "record", "wrong", "died"]), values)
def test_a_message_comes_back_equal(task: Task, kind: Any, content: Any) -> None:
    message = task.message(kind, content)
    assert Message.read(through_json(message.dump())) == message
    assert (message.run, message.attempt) == (task.run.id, task.attempt)
    assert message.ends == (kind in ("record", "wrong", "died"))
    assert task.next_attempt().message(kind, content) != message


@given(tasks)
def test_a_worker_that_computes_another_id_refuses_the_task(task: Task) -> None:
    with pytest.raises(RequestError, match="install the same version"):
        Task.read({**task.dump(), "id": "0123456789abcdef"})


@given(tasks)
def test_a_worker_without_the_decoder_refuses_the_task(task: Task) -> None:
    fields = through_json(task.dump())
    fields["run"]["decoder"]["name"] = "somebody_elses"
    with pytest.raises(RequestError, match="somebody_elses"):
        Task.read(fields)
