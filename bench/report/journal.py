"""The finished searches as an Optuna journal: a study each, which optuna-dashboard opens."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from bench.grid.knob import Number
from bench.metrics import sign
from bench.records.frame import column_of
from bench.records.labels import JOINT
from bench.records.searches import knobs_of
from bench.records.store import Record

if TYPE_CHECKING:
    import optuna

Times = Mapping[str, tuple[datetime, datetime]]
"""When a run began and ended, by its id; of a run that was interrupted, as if it had not been."""


def journal(searches: Sequence[Record], records: pd.DataFrame) -> bytes:
    """A journal file's content, with the values, states, seeds' scores and times of every trial.

    A study minimises or maximises the objective itself. Its best trial is the search's choice.

    Arguments:
        searches: their summaries.
        records: the frame that has their trials' runs.
    """
    import optuna
    from optuna.storages.journal import JournalFileBackend

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it tells of each study
    times = _times(records)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        path = Path(folder) / "journal"
        storage = optuna.storages.JournalStorage(JournalFileBackend(str(path)))
        for search in searches:
            _write(search, times, storage)
        optuna.logging.set_verbosity(verbosity)
        return path.read_bytes() if searches else b""


def name(search: Record) -> str:
    """A study's name, which no other search has.

    >>> model, decoder = {"name": "conv_vae"}, {"name": "beta"}
    >>> name({"id": "0" * 16, "dataset": "mnist5k", "model": model, "decoder": decoder})
    'mnist5k · conv_vae · beta · 0000000000000000'
    """
    parts = [search["dataset"], search["model"]["name"], search["decoder"]["name"], search["id"]]
    return JOINT.join(parts)


def _write(search: Record, times: Times, storage: optuna.storages.BaseStorage) -> None:
    import optuna

    settings, chosen = search["search"], search["chosen"]
    objective = settings["objective"]
    study = optuna.create_study(
        storage=storage,
        study_name=name(search),
        direction="minimize" if sign(objective) > 0 else "maximize",
    )
    study.set_metric_names([objective])
    told = {
        "search": search["id"],
        "dataset": search["dataset"],
        "model": search["model"],
        "decoder": search["decoder"],
        "balance": search.get("balance"),
        "split": "validation",
        "settings": settings,
        "chosen": _named(search, chosen) if chosen else None,
        "final runs": search["runs"],
        "seconds": search["cost"]["seconds"],
    }
    for key, value in told.items():
        study.set_user_attr(key, value)
    for trial in search["trials"]:
        study.add_trial(_trial(search, trial, times))


def _named(search: Record, values: Sequence[Number]) -> dict[str, Number]:
    """The value of each knob by its name."""
    return {knob.name: value for knob, value in zip(knobs_of(search), values, strict=True)}


def _trial(search: Record, trial: Mapping[str, Any], times: Times) -> optuna.trial.FrozenTrial:
    import optuna

    settings = search["search"]
    factor = sign(settings["objective"])  # a summary's scores are to be minimised
    state = optuna.trial.TrialState.COMPLETE
    if trial["score"] is None:
        state = optuna.trial.TrialState.FAIL
    elif len(trial["runs"]) < len(settings["seeds"]) and trial["values"] != search["chosen"]:
        state = optuna.trial.TrialState.PRUNED
    made = optuna.trial.create_trial(
        state=state,
        value=None if trial["score"] is None else factor * trial["score"],
        params=_named(search, trial["values"]),
        distributions={knob.name: knob.distribution for knob in knobs_of(search)},
        intermediate_values={
            step: factor * score for step, score in enumerate(trial["scores"]) if score is not None
        },
        user_attrs={
            "runs": trial["runs"],
            "seeds": settings["seeds"][: len(trial["runs"])],
            "seconds": trial["seconds"],
            "status": trial["status"],
        },
    )
    if known := [times[run] for run in trial["runs"] if run in times]:
        made.datetime_start = min(start for start, _ in known)
        made.datetime_complete = max(end for _, end in known)
    else:  # a record of an earlier version has no time, only how long it took
        assert made.datetime_complete is not None
        made.datetime_start = made.datetime_complete - timedelta(seconds=trial["seconds"])
    return made


def _times(records: pd.DataFrame) -> Times:
    columns = [column_of(records, key) for key in ("id", "cost.finished", "cost.seconds")]
    found = {}
    for run, finished, seconds in zip(*columns, strict=True):
        if isinstance(finished, str):
            end = datetime.fromisoformat(finished)
            found[run] = (end - timedelta(seconds=seconds), end)
    return found
