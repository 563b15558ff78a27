"""Numbers that no run can have, and the values that a careless file gives for one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from baselines.decoders.gaussian import SharedGaussian
from bench.errors import RequestError
from bench.grid.read import read_grid

Write = Callable[..., Path]
WHOLE = "expected a whole number, not "
TUNE = {"low": 0.1, "high": 1, "trials": 3}


def latent(value: Any) -> dict[str, Any]:
    return {"models": [{"name": "linear_vae", "latent": value}]}


def tuned(**changes: Any) -> dict[str, Any]:
    return {"decoders": [{"name": "beta", "beta": {"tune": {**TUNE, **changes}}}]}


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        (latent(True), WHOLE + "True"),
        (latent("20"), WHOLE + "'20'"),
        (latent(10**30), "less than or equal to 1000000"),
        ({"seeds": [2**63]}, "less than or equal to 9223372036854775807"),
        ({"seeds": [False]}, WHOLE + "False"),
        ({"split_seed": "1"}, WHOLE + "'1'"),
        ({"training": {"epochs": 10**30}}, "less than or equal to 1000000"),
        ({"training": {"batch": 10**30}}, "less than or equal to 1000000"),
        ({"evaluation": {"samples": 10**30}}, "less than or equal to 1000000"),
        ({"evaluation": {"iwae": 10**30}}, "less than or equal to 1000000"),
        ({"evaluation": {"iwae": True}}, WHOLE + "True"),
        (tuned(seeds=[2**63]), "less than or equal to 9223372036854775807"),
        (tuned(sampler_seed=2**32), "less than 4294967296"),
        (
            {"evaluation": {"distances": ["means", "means"]}},
            "at least one kind of images, each once",
        ),
        ({"datasets": "mnist5k"}, "datasets: expected a list, not 'mnist5k'"),
        ({"name": "a/b"}, "name: expected letters, digits and . _ -"),
        (
            {"decoders": [{"name": "shared", "min_log_sigma": 5, "max_log_sigma": -5}]},
            "min_log_sigma 5 must be below max_log_sigma -5",
        ),
    ],
)
def test_a_number_that_no_run_can_have_is_refused_in_one_line(
    write_grid: Write, changes: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(RequestError) as caught:
        read_grid(str(write_grid(**changes)))
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_the_largest_seed_and_a_float_that_yaml_reads_as_text_are_taken(write_grid: Write) -> None:
    grid = read_grid(str(write_grid(seeds=[2**63 - 1], training={"lr": "1e-3", "batch": 70})))
    assert grid.training.lr == 1e-3


def test_the_constructor_refuses_bounds_in_the_wrong_order_too() -> None:
    with pytest.raises(ValueError, match="min_log_sigma 5 must be below max_log_sigma -5"):
        SharedGaussian(min_log_sigma=5, max_log_sigma=-5)
