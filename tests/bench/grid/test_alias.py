"""A data set that the grid gives a name of its own."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.errors import RequestError
from bench.grid.expand import Row
from bench.grid.read import read_grid

Write = Callable[..., Path]


def test_the_name_is_shown_and_the_id_is_that_of_the_data(
    expand: Callable[..., list[Row]], tiny: Path
) -> None:
    place = f"npz:{tiny}"
    (plain,) = expand(decoders=["gaussian"])[0].runs
    (named,) = expand(decoders=["gaussian"], datasets=[{"name": "shapes", "data": place}])[0].runs
    assert (plain.dataset, plain.place) == (place, place)
    assert (named.dataset, named.place) == ("shapes", place)
    assert named.id == plain.id
    assert "data" not in plain.model_dump()


def test_a_named_data_set_runs_and_its_path_is_in_no_record(
    write_grid: Write, tiny: Path, tmp_path: Path, call: Callable[..., tuple[int, str, str]]
) -> None:
    datasets = [{"name": "shapes", "data": f"npz:{tiny}"}]
    grid = write_grid(datasets=datasets, decoders=["gaussian"], training={"epochs": 1, "batch": 70})
    words = ("--results", tmp_path / "results", "--only", "dataset=shapes", "--json")
    code, out, err = call("run", grid, *words)
    assert code == 0, err
    assert json.loads(out)[0]["dataset"] == "shapes"
    (record,) = tmp_path.glob("results/small/runs/*/*/record.json")
    assert str(tiny) not in record.read_text()


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ({"name": "mnist", "data": "npz:x.npz"}, "'mnist' is the name of another data set"),
        ({"name": "a/b", "data": "mnist5k"}, "a name of letters, digits"),
        ({"name": "digits", "data": 5}, "expected {name: …, data: …}"),
        ({"name": "digits", "data": "mnist5"}, "unknown dataset 'mnist5'"),
        ({"name": "digits"}, "datasets.0: expected text"),
        ({"name": 5, "data": "mnist5k"}, "datasets.0: expected text"),
    ],
)
def test_a_wrong_entry_is_told(write_grid: Write, entry: object, complaint: str) -> None:
    with pytest.raises(RequestError) as caught:
        read_grid(str(write_grid(datasets=[entry])))
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)
