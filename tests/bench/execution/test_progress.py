"""What a person sees: a live panel in a terminal, plain lines elsewhere."""

import contextlib
import io
from collections.abc import Callable

import pytest
from rich.console import Console

from bench.execution.progress import Progress
from bench.grid.expand import Row
from bench.records.store import Record, new_record
from bench.records.validity import DIVERGED
from bench.run import Run
from bench.text import duration

LINE = {
    "epoch": 0,
    "loss": 12.0,
    "distortion": 10.0,
    "rate": 2.0,
    "sigma": 0.5,
    "seconds": 1.0,
    "images_per_second": 210.0,
}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59, "59 s"), (61, "1 min 01 s"), (3599, "59 min 59 s"), (7260, "2 h 01 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def record_of(run: Run) -> Record:
    record = new_record(run, {"rule": "by hand"})
    record["metrics"] = {"neg_log_p": -12.5, "sigma": 0.25, "fd_x": 33.0}
    record["cost"] = {"seconds": 65.0}
    return record


def test_plain_lines_say_what_happened(expand: Callable[..., list[Row]]) -> None:
    text = io.StringIO()
    one, two = (row.runs[0] for row in expand())
    with contextlib.closing(Progress("small", 2, Console(file=text, width=300))) as progress:
        progress.started(one)
        progress.epoch(one, LINE)
        progress.finished(one, record_of(one))
        progress.started(two)
        progress.finished(
            two,
            {
                **record_of(two),
                "status": DIVERGED,
                "divergence": {"step": 7, "what": "rate", "last": {}},
            },
        )
    lines = text.getvalue().splitlines()
    assert lines[0].startswith("[1/2]")
    assert "gaussian seed 0  neg_log_p -12.5  sigma 0.25  fd_x 33  (1 min 05 s)" in lines[0]
    assert "1 min 05 s left" in lines[0]
    assert "diverged at step 7: rate was not finite" in lines[1]


def test_the_panel_shows_the_current_runs(expand: Callable[..., list[Row]]) -> None:
    text = io.StringIO()
    console = Console(file=text, width=160, force_terminal=True)
    one, two = (row.runs[0] for row in expand())
    with contextlib.closing(Progress("small", 2, console)) as progress:
        progress.started(one)
        progress.started(two)
        progress.epoch(two, LINE)
        assert progress.finished_share() == 0.5  # one of its two epochs
        with console.capture() as capture:
            console.print(progress.panel())
        progress.finished(one, record_of(one))
        assert progress.finished_share() == 1.5
    shown = capture.get()
    assert "0/2 runs" in shown
    assert "epoch 1/2" in shown
    assert "epoch 2/2  -elbo 12  distortion 10  rate 2  sigma 0.5  210 images/s" in shown


def test_found_runs_count_as_settled_but_not_as_speed(expand: Callable[..., list[Row]]) -> None:
    one, two = (row.runs[0] for row in expand())
    progress = Progress("small", 2, Console(file=io.StringIO()))
    progress.found(one.id)
    assert progress.left() == 0
    progress.started(two)
    progress.finished(two, record_of(two))
    assert len(progress.settled_runs) == 2
    assert progress.computed == [65.0]


def test_measuring_is_in_the_panel_and_a_line_a_minute_in_a_log(
    expand: Callable[..., list[Row]], monkeypatch: pytest.MonkeyPatch
) -> None:
    text, now = io.StringIO(), [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    (run,) = expand(decoders=["gaussian"])[0].runs
    progress = Progress("small", 1, Console(file=text, width=300), last_line=0.0)
    progress.started(run)
    progress.epoch(run, {**LINE, "epoch": 1})
    for now[0] in range(0, 180, 2):
        progress.measuring(run, f"features of {now[0]:.0f} images, at most 500")
    lines = text.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[0].endswith("gaussian seed 0  measuring: features of 62 images, at most 500")
    console = Console(file=io.StringIO(), width=160)
    with console.capture() as capture:
        console.print(progress.panel())
    assert "measuring: features of 178 images" in capture.get()
