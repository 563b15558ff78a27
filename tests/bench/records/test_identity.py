"""What a row is: matched by its content, told apart by its labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import pytest

from bench.grid.knob import Knob
from bench.records.frame import frame
from bench.records.identity import Key, identify
from bench.records.store import Record
from bench.run import SCHEMA
from tests.specs import model_spec

CONTENT = "c0" * 32


def record(decoder: Mapping[str, Any], **run: Any) -> Record:
    return {
        "schema": SCHEMA,
        "id": f"{decoder} {run}",
        "run": {
            "dataset": "mnist5k",
            "content": CONTENT,
            "split_seed": 0,
            "model": {"name": "conv_vae", "latent": 20, "width": 32},
            "decoder": decoder,
            "training": {"epochs": 4},
            "evaluation": {"split": "test"},
            "seed": 0,
            **run,
        },
        "metrics": {},
    }


def search(chosen: float | None, objective: str = "neg_log_p") -> Record:
    knob = Knob(part="decoder", option="beta", low=0.01, high=1).model_dump()
    values = None if chosen is None else [chosen]
    return {"knobs": [knob], "chosen": values, "search": {"objective": objective, "trials": 6}}


def identified(records: list[Record], searches: Mapping[int, Record] | None = None) -> pd.DataFrame:
    """The identities of rows of one record each; `searches` by the number of a row."""
    found = searches or {}
    lines = frame(records).assign(
        search=[str(n) if n in found else "" for n in range(len(records))]
    )
    return identify(lines, {str(number): one for number, one in found.items()})


def key(table: pd.DataFrame, row: int = 0) -> Key:
    found: Key = table["key"].iloc[row]
    return found


BETA = {"name": "beta", "link": "sigmoid", "beta": 0.1}


def test_an_option_that_a_version_did_not_know_is_its_default() -> None:
    old = record(BETA, model={"name": "conv_vae", "width": 32})
    assert key(identified([old])) == key(identified([record(BETA)]))


@pytest.mark.parametrize(
    "other",
    [
        record({**BETA, "beta": 0.2}),
        record({**BETA, "link": "identity"}),
        record({"name": "gaussian", "link": "sigmoid"}),
        record(BETA, dataset="mnist"),
        record(BETA, model={"name": "conv_vae", "latent": 20, "width": 8}),
    ],
)
def test_another_data_set_model_or_decoder_is_another_row(other: Record) -> None:
    assert key(identified([other])) != key(identified([record(BETA)]))


def test_another_protocol_is_the_same_row_of_another_table() -> None:
    other = record(BETA, training={"epochs": 9}, content="d1" * 32)
    assert key(identified([other])) == key(identified([record(BETA)]))


def test_rows_of_one_table_that_differ_in_a_setting_are_two() -> None:
    both = identified([record(BETA), record(BETA, training={"epochs": 9})])
    assert key(both, 0) != key(both, 1)
    assert list(both["settings"]) == ["epochs=4", "epochs=9"]
    assert list(both["decoder"]) == ["beta (beta=0.1) [epochs=4]", "beta (beta=0.1) [epochs=9]"]


def test_a_searchs_row_is_the_same_whatever_it_chose() -> None:
    one = identified([record(BETA)], {0: search(0.1)})
    other = identified([record({**BETA, "beta": 0.3})], {0: search(0.3)})
    assert key(one) == key(other)
    assert key(one) != key(identified([record(BETA)]))
    assert (one["decoder"][0], one["entry"][0]) == ("beta (tuned, β=0.1)", "beta (tuned)")


def test_searches_for_two_objectives_are_two_rows() -> None:
    both = identified(
        [record(BETA), record({**BETA, "beta": 0.3})], {0: search(0.1), 1: search(0.3, "fid")}
    )
    assert key(both, 0) != key(both, 1)
    assert list(both["entry"]) == ["beta (tuned, β=0.1)", "beta (tuned, β=0.3)"]


def test_rows_alike_in_all_that_is_known_are_still_two() -> None:
    both = identified([record(BETA, note=1), record(BETA, note=2)])
    assert key(both, 0) != key(both, 1)
    assert both["decoder"].is_unique


def test_the_source_of_a_users_decoder_tells_its_versions_apart() -> None:
    own = {"name": "laplace", "scale": 2.0}
    edited = [record(own, plugins={"decoder": digit * 64}) for digit in "ab"]
    assert list(identified([*edited, record(BETA)])["decoder"]) == [
        "laplace (scale=2) [plugins.decoder=aaaaaaaa]",
        "laplace (scale=2) [plugins.decoder=bbbbbbbb]",
        "beta (beta=0.1) [plugins.decoder=none]",
    ]
    assert list(identified([edited[0], record(BETA)])["decoder"]) == [
        "laplace (scale=2)",
        "beta (beta=0.1)",
    ]


def test_defaults_stay_unsaid_where_other_rows_lack_the_option() -> None:
    """A column that some rows lack is one of floats, also where the option is a whole number."""
    mixture = {"name": "logistic_mixture", "link": "identity", "components": 5}
    small = model_spec("hierarchical", width=16).model_dump()
    table = identified([record(mixture), record(BETA), record(BETA, model=small)])
    assert list(table["decoder"]) == ["logistic_mixture", "beta (beta=0.1)", "beta (beta=0.1)"]
    assert table["model"].iloc[2] == "hierarchical (width=16)"
