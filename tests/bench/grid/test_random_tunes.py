"""Grids that tune anything anywhere: what their rows, searches and starts have in common."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench import tuning
from bench.grid.expand import expand, trial_run
from bench.grid.read import read_grid
from bench.grid.schema import BalanceEntry, DecoderEntry, ModelEntry
from bench.records.labels import row_label

Write = Callable[..., Path]

SCALES: dict[str, Any] = {"log": {"scale": "log"}, "linear": {"scale": "linear"}, "": {}}


@st.composite
def tunes(draw: st.DrawFn, low: float, high: float, *, whole: bool, each: bool) -> dict[str, Any]:
    """`{tune: …}` with a range inside another one."""
    ends = st.integers(int(low), int(high)) if whole else st.floats(low, high)
    a, b = sorted(draw(st.lists(ends, min_size=2, max_size=2, unique=True)))
    said = draw(st.sampled_from(list(SCALES.values())))
    shared = {"each": draw(st.sampled_from(["row", "model"]))} if each else {}
    return {"tune": {"low": a, "high": b, **said, **shared}}


@st.composite
def grids(draw: st.DrawFn) -> dict[str, Any]:
    """The keys of a small grid with some of its options tuned."""

    def maybe(value: Any, low: float, high: float, *, whole: bool = False, each: bool) -> Any:
        return draw(st.just(value) | tunes(low, high, whole=whole, each=each))

    decoders = [
        "gaussian",
        {"name": "beta", "beta": maybe(0.1, 1e-4, 100.0, each=False)},
        {"name": "shared", "initial_log_sigma": maybe(0.0, 0.125, 2.0, each=False)},
        {"name": "logistic_mixture", "components": maybe(3, 1, 9, whole=True, each=False)},
    ]
    balances = [
        "elbo",
        {"name": "warm_up", "share": maybe(0.5, 0.0625, 1.0, each=False), "decoders": ["beta"]},
        {"name": "geco", "goal": maybe(0.1, 0.01, 0.5, each=False), "decoders": ["gaussian"]},
    ]
    return {
        "decoders": draw(st.permutations(decoders)),
        "balances": draw(st.permutations(balances)),
        "models": [
            {"name": "conv_vae", "width": 2, "latent": maybe(3, 1, 20, whole=True, each=True)},
            "linear_vae",
        ],
        "training": {
            "epochs": 2,
            "batch": maybe(70, 10, 200, whole=True, each=True),
            "lr": maybe(0.001, 1e-5, 0.1, each=True),
        },
        "search": {"trials": draw(st.integers(1, 9)), "seeds": [7, 8]},
        "seeds": [0, 1],
    }


@settings(
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(content=grids())
def test_what_a_grid_tunes_is_set_once_for_each_row(
    content: dict[str, Any], write_grid: Write
) -> None:
    grid = read_grid(str(write_grid(**content)))
    rows = expand(grid, device="cpu", features=None, prepare=True)
    assert grid.finals == sum(len(row.finals) for row in rows) == 2 * 2 * 6
    assert len({run.id for row in rows for run in row.runs}) == 24
    assert len({row_label(row) for row in rows}) == 12
    entries: dict[str, Sequence[DecoderEntry | BalanceEntry | ModelEntry]]
    entries = {"decoder": grid.decoders, "balance": grid.balances, "model": grid.models}
    searches = set()
    for row in rows:
        run = row.runs[0]
        said = [knob.name for knob in grid.search.knobs]
        for part, listed in entries.items():
            own = next(e for e in listed if e.spec.name == getattr(run, part).name)
            said += [knob.name for knob in own.knobs]
        assert sorted(knob.name for knob in (*row.knobs, *row.lent)) == sorted(said)
        assert all(knob.each == "model" for knob in row.lent)
        if row.lender is not None:
            lender = row.lender.runs[0]
            assert (lender.dataset, lender.model.name) == (run.dataset, run.model.name)
            assert not any(knob.each == "model" for knob in row.knobs)
        assert (row.search is None) == (not row.knobs)
        if row.search is None:
            continue
        searches.add(tuning.search_id(row))
        assert 1 <= len(row.start) <= grid_trials(content)
        for values in row.start:
            assert all(k.low <= v <= k.high for k, v in zip(row.knobs, values, strict=True))
            trial = trial_run(row, values, 7)
            for knob, value in zip(row.knobs, values, strict=True):
                assert getattr(getattr(trial, knob.part), knob.option) == value
                assert isinstance(value, int if knob.whole else float)
            assert (trial.evaluation.split, trial.seed) == ("validation", 7)
    assert len(searches) == sum(row.search is not None for row in rows)


def grid_trials(content: dict[str, Any]) -> int:
    trials: int = content["search"]["trials"]
    return trials
