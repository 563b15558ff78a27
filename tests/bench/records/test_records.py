"""The store: whole or absent, one writer, and nothing believed that does not check out."""

import json
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.errors import RequestError
from bench.files import read_checked, write_checked
from bench.grid.expand import Row
from bench.records.frame import frame
from bench.records.store import Store, done, new_record
from bench.records.validity import COMPLETED, DIVERGED, FAILED


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "results", "small")


def finished(row: Row) -> dict[str, object]:
    record = new_record(row.runs[0], {"rule": "by hand"})
    record["metrics"] = {"neg_log_p": -12.5}
    record["cost"] = {"seconds": 1.0}
    return record


def test_a_record_comes_back_as_written(store: Store, expand: Callable[..., list[Row]]) -> None:
    row = expand()[0]
    assert store.record(row.runs[0]) is None
    write_checked(store.run_folder(row.runs[0]) / "record.json", finished(row))
    record = store.record(row.runs[0])
    assert record is not None
    assert record["metrics"] == {"neg_log_p": -12.5}
    assert record["run"]["decoder"]["name"] == "gaussian"
    assert isinstance(record["run"]["dataset"], str)
    assert [r["id"] for r in store.records()] == [row.runs[0].id]


@given(data=st.data())
def test_any_damage_is_recognised_and_set_aside(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("damage") / "record.json"
    write_checked(path, {"status": "completed", "metrics": {"mse": 0.125}})
    content = path.read_bytes()
    kind = data.draw(st.sampled_from(["cut", "flip", "empty"]))
    if kind == "cut":
        damaged = content[: data.draw(st.integers(1, len(content) - 3))]
    elif kind == "flip":
        place = data.draw(st.integers(0, len(content) - 1))
        bit = 1 << data.draw(st.integers(0, 7))
        damaged = content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :]
    else:
        damaged = b""
    path.write_bytes(damaged)
    try:
        same = json.loads(damaged) == json.loads(content)
    except ValueError:
        same = False
    logging.getLogger("sigma-bench").disabled = True
    try:
        believed = read_checked(path)
    finally:
        logging.getLogger("sigma-bench").disabled = False
    if same:  # white space between values carries nothing
        assert believed is not None
    else:
        assert believed is None
        assert not path.exists()
        assert path.with_name("record.json.bad").read_bytes() == damaged


def test_an_edited_number_is_not_believed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "record.json"
    write_checked(path, {"metrics": {"fid": 31.0}})
    path.write_text(path.read_text().replace("31.0", "13.0"))
    assert read_checked(path) is None
    assert "torn or was edited" in caplog.text


def test_one_writer(store: Store, expand: Callable[..., list[Row]]) -> None:
    run = expand()[0].runs[0]
    with store.claim(run) as claim:
        assert claim is not None
        assert claim.folder == store.run_folder(run)
        with store.claim(run) as second:
            assert second is None
    with store.claim(run) as again:
        assert again is not None


def test_a_failure_is_tried_again_and_a_divergence_is_a_result() -> None:
    assert not done(None)
    assert not done({"status": FAILED})
    assert done({"status": COMPLETED})
    assert done({"status": DIVERGED})


def test_the_frame_has_dotted_columns(expand: Callable[..., list[Row]]) -> None:
    records = [finished(row) for row in expand()]
    table = frame(records)
    assert list(table["run.decoder.name"]) == ["gaussian", "optimal"]
    assert list(table["metrics.neg_log_p"]) == [-12.5, -12.5]
    assert frame([]).empty
    # Records that differ in what they hold, nested as deep as they come.
    ragged = [*records, {**records[0], "curves": {"pit": [1, 2]}, "cost": {"a": {"b": {"c": 1}}}}]
    normal = pd.json_normalize(ragged)
    pd.testing.assert_frame_equal(frame(ragged), normal, check_like=True)
    with pytest.raises(RequestError, match="schema 99"):
        frame([{**records[0], "schema": 99}])


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("a file where a folder should be")
    with pytest.raises(RequestError, match="cannot be written"):
        Store.open(tmp_path / "results", "small")


def test_many_may_open_a_folder_at_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        opened = list(pool.map(lambda _: Store.open(tmp_path / "results", "small"), range(400)))
    assert len(opened) == 400
    assert not list((tmp_path / "results" / "small").glob(".writable"))
