"""How far a grid is and what is left of it, in words."""

from collections import Counter
from collections.abc import Sequence

from bench.execution.status import Line
from bench.text import counted, duration


def progress_text(lines: Sequence[Line]) -> str:
    """The runs by state, and the time left."""
    count = Counter(line.state for line in lines)
    seconds = seconds_left(lines)
    if len(lines) == count["done"] + count["diverged"]:
        expected = "nothing left"
    elif seconds is None:
        expected = "time left unknown until such runs have finished"
    else:
        jobs = max(1, count["running"])
        with_jobs = "one job" if jobs == 1 else f"{jobs} jobs"
        expected = f"about {duration(seconds / jobs)} left with {with_jobs}"
    to_do = count["to do"] + count["not chosen yet"]
    return (
        f"{counted(len(lines), 'run')}: {count['done']} done, {count['running']} running, "
        f"{count['failed']} failed, {count['diverged']} diverged, {to_do} to do; {expected}"
    )


def seconds_left(lines: Sequence[Line]) -> float | None:
    """Of computing, by one job; None while that of some run is unknown."""
    left = [line.left for line in lines]
    return None if None in left else sum(seconds for seconds in left if seconds is not None)
