"""A search driven without training: a function of its runs answers for them."""

from collections.abc import Callable

from bench import tuning
from bench.grid.expand import Row
from bench.records.store import Record, new_record
from bench.records.validity import DIVERGED
from bench.run import Run


def beta_of(run: Run) -> float:
    beta: float = run.decoder.options["beta"]
    return beta


def answer(run: Run, score: float | None, objective: str = "neg_log_p") -> Record:
    record = new_record(run, {"rule": "trial"})
    record["cost"] = {"seconds": 2.0}
    if score is None:
        record["status"] = DIVERGED
    else:
        record["metrics"] = {objective: score}
    return record


def rounds_of(row: Row, score: Callable[[Run], Record]) -> tuple[tuning.Choice, list[list[Run]]]:
    """The choice, and the runs that may go side by side each time."""
    steps, rounds = tuning.search(row), []
    asked = next(steps)
    while True:
        rounds.append(asked)
        try:
            asked = steps.send([score(run) for run in asked])
        except StopIteration as stop:
            return stop.value, rounds


def resumed(
    row: Row, score: Callable[[Run], Record], there: set[str]
) -> tuple[tuple[tuning.Choice, list[Run]], list[str]]:
    """What `drive` returns where the records of some runs are there, and the runs computed."""
    computed: list[str] = []

    def look(run: Run) -> Record:
        if run.id not in there:
            computed.append(run.id)
        return score(run)

    return drive(row, look), computed


def drive(row: Row, score: Callable[[Run], Record]) -> tuple[tuning.Choice, list[Run]]:
    choice, rounds = rounds_of(row, score)
    return choice, [run for some in rounds for run in some]
