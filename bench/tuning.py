"""The search for options (β, a learning rate) on validation data; its trials are ordinary Runs.

A search keeps no state of its own: it yields runs and is sent their records, so it resumes by
being driven over the records that exist. The summary of a finished search saves that work.
"""

import itertools
import math
import warnings
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import RequestError
from bench.files import digest
from bench.grid.expand import Row, trial_run
from bench.grid.knob import Knob, Values, with_values
from bench.grid.schema import Search
from bench.metrics import sign
from bench.records.store import Record, Store, done
from bench.records.validity import COMPLETED
from bench.run import SCHEMA, Run

if TYPE_CHECKING:
    import optuna


@dataclass(frozen=True)
class Trial:
    """The values tried, one a knob: their runs, the scores (lower is better), what they cost."""

    values: Values
    runs: tuple[str, ...]
    scores: tuple[float | None, ...]
    score: float | None
    seconds: float
    status: str


@dataclass(frozen=True)
class Choice:
    """The end of a search: the best values and every trial behind them; None where all failed."""

    values: Values | None
    trials: tuple[Trial, ...]


SearchCoroutine = Generator[list[Run], list[Record], Choice]
"""A search as a dialogue: it yields runs that may go side by side, and is sent their records."""


def search_id(row: Row) -> str:
    """16 hexadecimal digits of what decides a search: a trial's identity and the settings."""
    assert row.search is not None
    settings = row.search.model_dump(mode="json")
    identity = trial_run(row, row.lowest, row.search.seeds[0]).identity
    content: dict[str, Any] = {"run": identity}
    first = row.knobs[0]
    if row.knobs == (Knob(part="decoder", option=first.option, low=first.low, high=first.high),):
        # The only search that older versions knew keeps the id that they gave it.
        content["option"] = first.option
        settings |= {"low": first.low, "high": first.high}
    else:
        # For whom else the values are chosen decides nothing of the search.
        alone = [knob.model_dump(mode="json", exclude={"each"}) for knob in row.knobs]
        content["knobs"] = alone
    return digest({**content, "search": settings})[:16]


def search(row: Row) -> SearchCoroutine:
    """The search of a row that has one, deterministic given the records it is sent.

    A round is waited for as a whole, so no value depends on which of its runs ended first.

    Raises:
        RequestError: the installed Optuna cannot place the trials of a round.
    """
    import optuna

    settings, knobs = row.search, row.knobs
    assert settings is not None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=_sampler(row), pruner=_pruner(row))
    space = {knob.name: distribution(knob) for knob in knobs}
    for start in row.start:
        study.enqueue_trial({knob.name: v for knob, v in zip(knobs, start, strict=True)})

    trials: list[Trial] = []
    while len(trials) < settings.trials:
        asked = [study.ask(space) for _ in range(_round(row, len(trials)))]
        values = [tuple(knob.rounded(t.params[knob.name]) for knob in knobs) for t in asked]
        groups = yield from _records(row, asked, values)
        for trial, tried, group in zip(asked, values, groups, strict=True):
            outcome = _trial(tried, group, settings.objective)
            trials.append(outcome)
            if outcome.score is None:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
            else:
                study.tell(trial, outcome.score)
    scored = [trial for trial in trials if trial.score is not None]
    best = min(scored, key=lambda trial: trial.score or 0.0, default=None)
    return Choice(best.values if best else None, tuple(trials))


def distribution(knob: Knob) -> "optuna.distributions.BaseDistribution":
    """A knob's range as Optuna knows it."""
    import optuna

    log = knob.scale == "log"
    if knob.whole:
        return optuna.distributions.IntDistribution(round(knob.low), round(knob.high), log=log)
    return optuna.distributions.FloatDistribution(knob.low, knob.high, log=log)


def _round(row: Row, begun: int) -> int:
    """How many trials are asked for before any of them is told, after so many."""
    assert row.search is not None
    search, startup = row.search, len(row.start)
    if begun >= startup:
        return min(search.together, search.trials - begun)
    # The trials of the start know nothing of each other, so all may run side by side. A pruner
    # judges a trial by those that were told.
    return startup if search.pruner == "none" else min(search.together, startup - begun)


def _records(
    row: Row, trials: "Sequence[optuna.Trial]", values: Sequence[Values]
) -> Generator[list[Run], list[Record], list[list[Record]]]:
    """The records of each trial of a round: of all seeds, or of those until it is pruned."""
    settings = row.search
    assert settings is not None
    groups: list[list[Record]] = [[] for _ in values]
    going = list(range(len(values)))
    # A pruner is asked after each seed.
    whole = settings.pruner == "none"
    for step, seeds in enumerate([settings.seeds] if whole else [(n,) for n in settings.seeds]):
        sent = iter((yield [trial_run(row, values[i], seed) for i in going for seed in seeds]))
        for index in going:
            groups[index] += itertools.islice(sent, len(seeds))
        if not whole:
            objective = settings.objective
            going = [i for i in going if _continues(trials[i], step, groups[i][-1], objective)]
            if not going:
                break
    return groups


def _continues(trial: "optuna.Trial", step: int, record: Record, objective: str) -> bool:
    """Tell the pruner a seed's score; whether it wants the next seed."""
    score = _score(record, objective)
    if score is None:
        return False
    trial.report(score, step)
    return not trial.should_prune()


def _trial(values: Values, group: Sequence[Record], objective: str) -> Trial:
    scores = tuple(_score(record, objective) for record in group)
    known = [score for score in scores if score is not None]
    statuses = {record["status"] for record in group}
    return Trial(
        values=values,
        runs=tuple(record["id"] for record in group),
        scores=scores,
        # One seed that diverged is a verdict on the values, not a missing number.
        score=math.fsum(known) / len(known) if len(known) == len(scores) else None,
        seconds=math.fsum(record["cost"]["seconds"] for record in group),
        status=COMPLETED if statuses == {COMPLETED} else max(statuses - {COMPLETED}),
    )


def _score(record: Record, objective: str) -> float | None:
    """The objective as something to minimise."""
    if record["status"] != COMPLETED:
        return None
    value: float | None = record["metrics"].get(objective)
    return None if value is None else sign(objective) * value


def _sampler(row: Row) -> "optuna.samplers.BaseSampler":
    import optuna

    assert row.search is not None
    seed, startup = row.search.sampler_seed, len(row.start)
    samplers = optuna.samplers
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match row.search.sampler:
            case "tpe":
                return samplers.TPESampler(
                    seed=seed,
                    n_startup_trials=startup,
                    constant_liar=row.search.together > 1,
                    multivariate=len(row.knobs) > 1,
                )
            case "random":
                return samplers.RandomSampler(seed=seed)
            case "qmc":
                return samplers.QMCSampler(seed=seed)
            case _:
                _check_batches(row.search)
                return samplers.GPSampler(seed=seed, n_startup_trials=startup)


BATCHES = 5
"""The first major version of Optuna whose `GPSampler` spreads the trials of a round.

Up to 4.7 it does not know of running trials; 4.8 and 4.9 still place some of a round within a
thousandth of each other.
"""


def _check_batches(search: Search) -> None:
    import optuna

    if search.together > 1 and int(optuna.__version__.partition(".")[0]) < BATCHES:
        raise RequestError(
            f"tune: `together: {search.together}` with the sampler gp needs Optuna {BATCHES}.0, "
            f"and here is {optuna.__version__}; install a newer one, or choose the sampler tpe, "
            "random or qmc"
        )


def _pruner(row: Row) -> "optuna.pruners.BasePruner":
    import optuna

    assert row.search is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match row.search.pruner:
            case "median":
                return optuna.pruners.MedianPruner(n_startup_trials=2, n_warmup_steps=0)
            case "wilcoxon":
                return optuna.pruners.WilcoxonPruner()
            case _:
                return optuna.pruners.NopPruner()


def startup_runs(row: Row) -> list[Run]:
    """The runs of a search's first trials, known without a sampler."""
    assert row.search is not None
    return [trial_run(row, values, seed) for values in row.start for seed in row.search.seeds]


def recall(row: Row, store: Store, settled: Callable[[str], bool] | None = None) -> Choice | None:
    """The choice of a search that has ended, from its summary; None where a record is missing.

    `settled` says of a run's id whether its record is done, for who has read the records already.
    """
    known = store.search(search_id(row))
    if known is None or known["schema"] != SCHEMA:
        return None
    lists = ("values", "runs", "scores")
    trials = tuple(
        Trial(**{**trial, **{key: tuple(trial[key]) for key in lists}}) for trial in known["trials"]
    )
    settled = settled or (lambda identity: done(store.record_of(identity)))
    whole = all(settled(identity) for trial in trials for identity in trial.runs)
    chosen = known["chosen"]
    return Choice(None if chosen is None else tuple(chosen), trials) if whole else None


def summary_path(row: Row, store: Store) -> Path:
    return store.folder / "searches" / f"{search_id(row)}.json"


def lend(row: Row, choice: Choice) -> Row:
    """The row with what its lender's search chose in its runs; none where nothing worked."""
    assert row.lender is not None
    if choice.values is None:
        return replace(row, runs=())
    chosen = dict(zip(row.lender.knobs, choice.values, strict=True))
    values = [chosen[knob] for knob in row.lent]
    return replace(row, runs=tuple(with_values(run, row.lent, values) for run in row.runs))


def final_runs(row: Row, choice: Choice) -> tuple[Run, ...]:
    """The row's runs with the chosen values; none where the search found nothing that works."""
    if choice.values is None:
        return ()
    return tuple(with_values(run, row.knobs, choice.values) for run in row.finals)


def summary(row: Row, choice: Choice) -> dict[str, Any]:
    """What `searches/<id>.json` keeps: the search, its trials, its choice and its cost."""
    assert row.search is not None
    run = row.runs[0].model_dump(mode="json")
    # Trials that tried the same whole numbers share their runs.
    spent = {trial.runs: trial.seconds for trial in choice.trials}
    return {
        "schema": SCHEMA,
        "id": search_id(row),
        **{part: run[part] for part in ("dataset", "model", "decoder", "balance") if part in run},
        "knobs": [knob.model_dump(mode="json") for knob in row.knobs],
        "search": {**row.search.model_dump(mode="json"), "startup": len(row.start)},
        "trials": [asdict(trial) for trial in choice.trials],
        "chosen": choice.values,
        "runs": [final.id for final in final_runs(row, choice)],
        "cost": {"runs": sum(map(len, spent)), "seconds": math.fsum(spent.values())},
    }
