import math

import pytest

from bench.records.labels import TUNED
from bench.report.paper import lookup, published


def test_every_number_of_the_paper_is_there() -> None:
    frame = published()
    assert len(frame) == 53
    assert dict(frame["table"].value_counts()) == {2: 42, 1: 6, 3: 5}
    per_image = frame[frame["decoder"] == "optimal_per_image"]
    assert per_image["neg_log_p_upper_bound_nats"].isna().all()


@pytest.mark.parametrize(
    ("dataset", "decoder", "beta", "expected"),
    [
        ("mnist", "gaussian", None, (740.5, 59.9)),
        ("mnist", "shared", None, (-896.1, 32.18)),
        ("svhn", "beta", 10.0, (4056, 219.3)),
        ("svhn", "beta", TUNED, (-3186, 27.93)),
        ("svhn", "optimal", None, (-3333, 27.25)),
    ],
)
def test_a_row_is_found(
    dataset: str, decoder: str, beta: float | str | None, expected: tuple[float, float]
) -> None:
    found = lookup("mine", dataset, "conv_vae", decoder, beta)
    assert found is not None
    assert (found.neg_log_p, found.fid) == expected


@pytest.mark.parametrize(("dataset", "expected"), [("celeba", -6374.0), ("cifar10", -5435.0)])
def test_the_hierarchical_model_stands_in_for_the_papers(dataset: str, expected: float) -> None:
    found = lookup(f"table2-{dataset}", dataset, "hierarchical", "shared", None)
    assert found is not None
    assert found.neg_log_p == expected


def test_what_the_paper_leaves_blank_is_nan() -> None:
    found = lookup("table3", "mnist", "conv_vae", "bernoulli", None)
    assert found is not None
    assert math.isnan(found.neg_log_p)
    assert found.fid == 32.22


@pytest.mark.parametrize(
    "asked",
    [("mnist5k", "conv_vae", "shared", None), ("svhn", "linear_vae", "shared", None)],
)
def test_other_data_and_other_models_have_no_published_row(
    asked: tuple[str, str, str, None],
) -> None:
    assert lookup("table1", *asked) is None
