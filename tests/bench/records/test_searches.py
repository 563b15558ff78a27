"""Summaries of searches with any value anywhere: what is believed can be told."""

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.files import canonical_json
from bench.grid.knob import Knob
from bench.records.searches import chosen_by, current, knobs_of, lent_by
from bench.records.validity import search_fault
from bench.report.captions import edges_of
from tests.bench.test_hostile import VALUES, changed, places

# Written by a version that searched for β alone.
PATH = Path(__file__).with_name("searches") / "2f6c18c7159a77c5.json"
OLD = {k: v for k, v in json.loads(PATH.read_text()).items() if k != "sha256"}
LR = Knob(part="training", option="lr", low=0, high=0.1, scale="linear", each="model")


def joint() -> dict[str, Any]:
    """The same search as if it had set a learning rate too."""
    search = copy.deepcopy(current(OLD))
    search["knobs"].append(LR.model_dump(mode="json"))
    for trial in search["trials"]:
        trial["values"].append(0.01)
    search["chosen"].append(0.01)
    return search


def fault(search: Any) -> str:
    return search_fault(PATH, canonical_json(search).encode(), search)


def test_both_forms_are_sound_and_say_the_same() -> None:
    assert fault(OLD) == fault(current(OLD)) == fault(joint()) == ""
    assert current(joint()) == joint()
    assert [value for _, value in chosen_by(current(OLD))] == [OLD["chosen"]]
    assert [knob.name for knob in knobs_of(joint())] == ["beta", "training.lr"]
    assert list(lent_by(joint())) == [(LR, 0.01)]
    assert list(lent_by(current(OLD))) == []


@settings(max_examples=300)
@given(data=st.data(), form=st.sampled_from([OLD, joint()]))
def test_a_summary_that_is_believed_can_be_told(data: st.DataObject, form: dict[str, Any]) -> None:
    place = data.draw(st.sampled_from(list(places(form))))
    forged = changed(form, place, data.draw(VALUES | st.just(...)))
    if not isinstance(forged, dict) or fault(forged) or forged["schema"] != form["schema"]:
        return
    search = current(forged)
    assert all(0 <= knob.place(value) <= 1 for knob, value in chosen_by(search))
    assert all(len(trial["values"]) == len(search["knobs"]) for trial in search["trials"])
    assert all(isinstance(sentence, str) for sentence in edges_of(search))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("chosen",), 11.0),
        (("chosen",), [0.1, 0.2]),
        (("search", "low"), 20.0),
        (("search", "low"), 0.0),
        (("trials", 0, "value"), math.pi * 1e5),
    ],
)
def test_a_value_out_of_its_range_is_no_result(place: tuple[Any, ...], value: Any) -> None:
    assert fault(changed(OLD, place, value))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("chosen",), [0.1]),
        (("chosen", 1), 0.2),
        (("knobs",), []),
        (("knobs", 0, "low"), 20.0),
        (("knobs", 0, "scale"), "cubic"),
        (("knobs", 0, "low"), -1.0),
        (("trials", 0, "values"), [0.1]),
        (("trials", 0, "value"), 0.1),
    ],
)
def test_a_summary_of_several_options_is_checked_too(place: tuple[Any, ...], value: Any) -> None:
    told = fault(changed(joint(), place, value))
    assert bool(told) == (place != ("trials", 0, "value"))
